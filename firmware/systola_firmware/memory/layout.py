"""How each tensor lies in memory: dense NHWC, with the border that its padded readers need.

Padding costs the engine nothing: a convolution that pads simply starts inside the border of its input. The border is
stored as explicit pixels around every image and holds the tensor's zero point. Its width is the maximum, side by side,
of what the readers reach. A tensor that nobody reads with padding has no border, so it is one contiguous run of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.errors import CompileError, UnsupportedModel
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.tensor import NO_BORDER, Padding, Tensor
from systola_firmware.spec.program import Placement


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class TensorLayout:
    """A :class:`~systola_firmware.spec.program.Placement` that has no address yet.

    Parameters
    ----------
    shape:
        n, h, w, c.
    border:
        Pixels around each image.
    fill:
        Value of the border, the tensor's zero point.
    """

    shape: tuple[int, int, int, int]
    border: Padding
    fill: int

    @property
    def pixel_pitch(self) -> int:
        """Bytes from one pixel to the next: channels are dense."""
        return self.shape[3]

    @property
    def row_pitch(self) -> int:
        """Bytes from one row to the next."""
        return (self.border.left + self.shape[2] + self.border.right) * self.pixel_pitch

    @property
    def image_pitch(self) -> int:
        """Bytes from one image to the next."""
        return (self.border.top + self.shape[1] + self.border.bottom) * self.row_pitch

    @property
    def size(self) -> int:
        """Bytes of all images with their borders."""
        return self.shape[0] * self.image_pitch

    @property
    def origin(self) -> int:
        """Bytes from the start of the region to pixel (0, 0, 0)."""
        return self.border.top * self.row_pitch + self.border.left * self.pixel_pitch

    def placed_at(self, start: int, size: int) -> Placement:
        """The placement of the tensor from byte ``start`` on, in ``size`` bytes, at least :attr:`size`.

        The region that the placement names begins and ends at multiples of 4, though ``start`` may be any byte of a
        buffer.
        """
        first = start - start % 4
        return Placement(
            shape=self.shape,
            address=start + self.origin,
            image_pitch=self.image_pitch,
            row_pitch=self.row_pitch,
            pixel_pitch=self.pixel_pitch,
            start=first,
            size=round_up(start + size - first, 4),
            fill=self.fill,
        )


def _union(a: Padding, b: Padding) -> Padding:
    return Padding(max(a.top, b.top), max(a.bottom, b.bottom), max(a.left, b.left), max(a.right, b.right))


def plan_layouts(graph: Graph) -> dict[str, TensorLayout]:
    """Layout of every tensor that is stored on the device, by name.

    The output of a last SOFTMAX is not stored: the driver computes it. Raises :class:`UnsupportedModel` for a SOFTMAX
    anywhere else, and :class:`CompileError` for a tensor that is empty or computed twice.
    """
    layouts: dict[str, TensorLayout] = {}

    def add(tensor: Tensor, border: Padding = NO_BORDER) -> None:
        known = layouts.get(tensor.name)
        if tensor.elements == 0:
            raise CompileError(f"tensor {tensor.name!r} has shape {tensor.shape} and so no elements")
        if known is not None:
            if known.shape != tensor.nhwc or known.fill != tensor.zero_point:
                raise CompileError(f"two different tensors have the name {tensor.name!r}")
            border = _union(border, known.border)
        layouts[tensor.name] = TensorLayout(tensor.nhwc, border, tensor.zero_point)

    computed = {tensor.name for tensor in graph.inputs}
    for tensor in graph.inputs:
        add(tensor)
    for layer in graph.layers:
        for position, tensor in enumerate(layer.inputs):
            add(tensor, layer.traits.border(layer) if position == 0 else NO_BORDER)
        if layer.output.name in computed:
            raise CompileError(f"tensor {layer.output.name!r} is computed twice, the second time by {layer.name}")
        computed.add(layer.output.name)
        if layer.traits.on_device:
            add(layer.output)
        else:
            _check_last(graph, layer)
    for tensor in graph.outputs:
        if not any(not layer.traits.on_device and layer.output.name == tensor.name for layer in graph.layers):
            add(tensor)
    return layouts


def _check_last(graph: Graph, softmax: Layer) -> None:
    name = softmax.output.name
    if any(tensor.name == name for layer in graph.layers for tensor in layer.inputs) or all(t.name != name for t in graph.outputs):
        raise UnsupportedModel(
            f"{softmax.name} is not the model's last operator: SOFTMAX is supported only there, where the driver runs it"
        )
