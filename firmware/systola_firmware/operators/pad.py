"""PAD and PADV2 over rows, columns and channels: fills, and a copy into the interior."""

from __future__ import annotations

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Pad, Reshape
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.fill import fill
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import Span, pixel_spans, vectors
from systola_firmware.operators.family import Family, Operator
from systola_firmware.operators.reshape import reshaped
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["PAD"]


def _pad(reader: OperatorReader) -> list[Layer]:
    """PAD and PADV2 over rows, columns and channels; fewer than four axes are padded as the last ones of four."""
    source, target = reader.input(0), reader.output()
    amounts = reader.integers(1)
    if amounts is None:
        raise reader.refuse("computes its paddings at run time: the engine wants constants")
    rank = len(source.shape)
    if rank > 4 or len(target.shape) != rank:
        raise reader.refuse(f"pads the shape {list(source.shape)} to {list(target.shape)}: the engine pads up to four axes")
    amounts = amounts.reshape(-1, 2)
    expected = tuple(size + int(before) + int(after) for size, (before, after) in zip(source.shape, amounts, strict=False))
    if len(amounts) != rank or expected != target.shape or amounts.min(initial=0) < 0:
        raise reader.damaged(f"has the paddings {amounts.tolist()} from {list(source.shape)} to {list(target.shape)}")
    value = target.zero_point
    if reader.has_input(2):
        filling = reader.input(2)
        if filling.constant is None or filling.elements != 1:
            raise reader.refuse("computes its pad value at run time: the engine wants a constant")
        if (filling.scale, filling.zero_point) != (target.scale, target.zero_point):
            raise reader.refuse("has a pad value in another quantization than its output, which the kernels do not take")
        value = int(filling.constant.reshape(-1)[0])
    full = [(0, 0)] * (4 - rank) + [(int(before), int(after)) for before, after in amounts]
    if any(full[0]):
        raise reader.refuse("pads the batch axis, which is not supported: pad rows, columns or channels")
    padding = Padding(*full[1], *full[2])
    reader.check_size(source, padding)
    image, before_layers = reshaped(reader, source, (1,) * (4 - rank) + source.shape, "as image for")
    wide = target
    after_layers: list[Layer] = []
    if (1,) * (4 - rank) + target.shape != target.nhwc:
        wide = Tensor(
            f"{target.name} (image of {reader.operator.index})", (1,) * (4 - rank) + target.shape, target.scale, target.zero_point
        )
        after_layers = [Reshape(f"{reader.name}_shape", (wide,), target, (reader.operator.index,))]
    layer = Pad(reader.name, (image,), wide, (reader.operator.index,), padding=padding, value=value, channels=full[3])
    return [*before_layers, layer, *after_layers]


def _fills_and_copy(
    layer: Pad, source: Placement, destination: Placement, config: Config
) -> tuple[list[Operation], list[Operation]]:
    """PAD as fills and a copy into the interior; the fills come first."""
    n, h, w, c = source.shape
    _, out_h, out_w, out_c = destination.shape
    pad = layer.padding
    spans = [Span(n, (0, 0, destination.image_pitch))]
    start = destination.address
    row, pixel = destination.row_pitch, destination.pixel_pitch
    fills: list[Operation] = []
    if any(layer.channels):
        fills = fill(start, out_w * out_c, layer.value, config, [*spans, Span(out_h, (0, 0, row))])
    else:

        def block(y: int, x: int, rows: int, columns: int) -> list[Operation]:
            if not rows or not columns:
                return []
            return fill(start + y * row + x * pixel, columns * out_c, layer.value, config, [*spans, Span(rows, (0, 0, row))])

        fills += block(0, 0, pad.top, out_w)
        fills += block(pad.top, 0, h, pad.left)
        fills += block(pad.top, pad.left + w, h, pad.right)
        fills += block(pad.top + h, 0, pad.bottom, out_w)
    interior = start + pad.top * row + pad.left * pixel + layer.channels[0]
    fields = {"sources": 1}
    copy = vectors((source.address, 0, interior), pixel_spans(source.shape, source, source, destination), c, fields, config)
    return fills, copy


def _lower(layer: Pad, context: Context) -> tuple[Stage, ...]:
    fills, body = _fills_and_copy(layer, context.source(layer), context.destination(layer), context.config)
    return context.stage(layer, body, fills=fills)


_LIMITS = "constant amounts and value; not the batch axis; up to four axes"
PAD = Family(
    Pad,
    (Operator("PAD", _pad, _LIMITS, "none"), Operator("PADV2", _pad, _LIMITS, "none")),
    runs="the border of a convolution where that is the same, else POST unit",
    types="int8",
    lower=_lower,
)
