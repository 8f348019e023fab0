"""A compiled program: everything a device needs to run one model, and everything a driver needs to talk about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Int8Array = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Placement:
    """Where and how an NHWC int8 tensor lies in the activation memory.

    Pixel ``(n, y, x)`` starts at ``address + n*image_pitch + y*row_pitch + x*pixel_pitch``; its channels are
    contiguous. The rest of the region is a border around each image, and has the value ``fill`` (the zero point).
    ``address`` is pixel (0, 0, 0), inside the border; ``start`` and ``size`` are the whole region in bytes, both
    multiples of 4.
    """

    shape: tuple[int, int, int, int]  #: n, h, w, c
    address: int
    image_pitch: int
    row_pitch: int
    pixel_pitch: int
    start: int
    size: int
    fill: int = 0

    def pixel_offsets(self) -> npt.NDArray[np.int64]:
        """Byte offsets from ``start`` of every element, shape ``n, h, w, c``."""
        n, h, w, c = (np.arange(count, dtype=np.int64) for count in self.shape)
        return (
            (self.address - self.start)
            + n[:, None, None, None] * self.image_pitch
            + h[None, :, None, None] * self.row_pitch
            + w[None, None, :, None] * self.pixel_pitch
            + c[None, None, None, :]
        )

    def pack(self, values: Int8Array) -> bytes:
        """The region's bytes for a tensor of any shape with the right number of elements."""
        region = np.full(self.size, self.fill, dtype=np.int8)
        region[self.pixel_offsets()] = np.asarray(values, dtype=np.int8).reshape(self.shape)
        return region.tobytes()

    def unpack(self, region: bytes) -> Int8Array:
        """The tensor, shape ``n, h, w, c``, from the region's bytes."""
        return np.frombuffer(region, dtype=np.int8)[self.pixel_offsets()]


@dataclass(frozen=True)
class Binding:
    """An input, output or intermediate tensor of the model and its placement on the device.

    The region of the placement holds the tensors of all inferences that the program runs at once, side by side along
    ``batch_axis``.
    """

    name: str
    shape: tuple[int, ...]  #: the model's own shape
    scale: float
    zero_point: int
    placement: Placement
    index: int = -1  #: tensor number in the model file
    batch_axis: int = 0

    @property
    def elements(self) -> int:
        """Elements of one inference."""
        return math.prod(self.shape)

    @property
    def runs(self) -> int:
        """How many consecutive runs of elements one inference has: more than one if the batch is not the outermost
        axis."""
        return math.prod(self.shape[: self.batch_axis])

    def pack(self, values: Sequence[Int8Array]) -> bytes:
        """The region's bytes for the tensors of all inferences, each of the model's own shape."""
        return self.placement.pack(np.stack([tensor.reshape(self.runs, -1) for tensor in values], axis=1))

    def unpack(self, region: bytes) -> Int8Array:
        """The tensors of all inferences from the region's bytes, stacked on a new leading axis."""
        inferences = math.prod(self.placement.shape) // self.elements
        apart = self.placement.unpack(region).reshape(self.runs, inferences, -1).swapaxes(0, 1)
        return apart.reshape(inferences, *self.shape)


@dataclass(frozen=True)
class SoftmaxStep:
    """A last SOFTMAX that the driver runs; its input is output number ``output`` of ``Program.outputs``, as computed by
    the device."""

    output: int
    beta: float
    input_scale: float
    name: str
    scale: float  #: of the softmax's own output, 1/256
    zero_point: int  #: -128
    index: int = -1


@dataclass(frozen=True)
class State:
    """A region of the activation memory that a recurrent layer keeps between calls; ``initial`` is what a reset writes
    there.

    ``name`` says what it is, for instance ``lstm_0 cell``. ``index`` is the state tensor's number in the model file;
    ``shape`` and ``dtype`` (``"int8"`` or ``"int16"``) are how to read the region.
    """

    name: str
    address: int
    initial: bytes
    shape: tuple[int, ...]
    dtype: str
    index: int = -1


@dataclass(frozen=True)
class LayerRecord:
    """One layer of the program, for reports and for stopping after it.

    ``first`` and ``end`` are program addresses (words), ``end`` exclusive. ``mark`` is the position of its trace mark,
    -1 if it has none (a layer without instructions). ``output`` is the tensor that the layer leaves in memory.
    ``steps`` is the number of time steps of a recurrent layer, 0 for others.
    """

    name: str
    operator: str
    macs: int
    first: int
    end: int
    mark: int
    output: Binding
    predicted_cycles: int = 0
    operators: tuple[int, ...] = ()
    steps: int = 0


@dataclass(frozen=True)
class Program:
    """A compiled model for one configuration.

    ``words`` is the program from program address 0. ``weights`` goes to the start of the weight memory. ``constants``
    are regions of the activation memory that are written once, when the program is loaded. It runs ``batch`` inferences
    at once: ``macs`` and cycles are those of all of them together, shapes are the model's own.
    """

    model: str
    preset: str
    configuration: dict[str, int]  #: ``Config.program_fields()`` of the target
    words: npt.NDArray[np.uint32]
    weights: bytes
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    layers: tuple[LayerRecord, ...]
    constants: tuple[tuple[int, bytes], ...] = ()
    softmax: tuple[SoftmaxStep, ...] = ()
    activation_bytes_used: int = 0
    notes: tuple[str, ...] = field(default=())  #: what the report says, e.g. which operator the driver runs
    states: tuple[State, ...] = ()  #: of recurrent layers, in order, if the program is stateful
    stateful: bool = False  #: the program continues from ``states`` rather than from their initial values
    batch: int = 1

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


#: JSON-ready types of the manifest in a program file.
Manifest = dict[str, Any]
