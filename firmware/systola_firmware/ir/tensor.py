"""Tensors of the integer graph, and borders around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from systola_firmware.numerics.arrays import Int8Array


@dataclass(frozen=True)
class Tensor:
    """An int8 activation tensor.

    ``scale`` and ``zero_point`` describe the real value ``scale * (q - zero_point)``. ``index`` is the tensor's number
    in the model file, -1 for one that a pass made. ``constant`` holds the values of a tensor that is not computed.
    Along ``batch_axis`` the inferences of a graph with a ``batch`` lie side by side.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    index: int = -1
    constant: Int8Array | None = None
    batch_axis: int = 0

    @property
    def nhwc(self) -> tuple[int, int, int, int]:
        """The stored shape."""
        if len(self.shape) == 4:
            n, h, w, c = self.shape
            return n, h, w, c
        if not self.shape:
            return 1, 1, 1, 1
        return 1, 1, math.prod(self.shape[:-1]), self.shape[-1]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Padding:
    """Border in pixels. For a pooling layer the border is *not* part of the window's valid taps."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


NO_BORDER = Padding()
