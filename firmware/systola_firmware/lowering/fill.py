"""Fills with VECTOR: the borders of tensors, and PAD."""

from __future__ import annotations

from collections.abc import Sequence

from systola_firmware.ir.layers import Pad
from systola_firmware.lowering.vector import Span, pixel_spans, vectors
from systola_firmware.memory.layout import TensorLayout
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement


def fill(start: int, size: int, value: int, config: Config, spans: Sequence[Span] = ()) -> list[Operation]:
    """Write ``value`` to ``size`` bytes at ``start``, repeated over ``spans``."""
    return vectors((0, 0, start), spans, size, {"sources": 0, "bias": value}, config)


def border_fills(placement: Placement, layout: TensorLayout, config: Config, value: int | None = None) -> list[Operation]:
    """Write the border of every image: in at most three instructions an axis of images.

    The border before the first row and left of it is one run; right of a row and left of the next another, repeated;
    then the rest.
    """
    border = layout.border
    if not border:
        return []
    value = placement.fill if value is None else value
    n, h, w, c = placement.shape
    first = placement.address - layout.origin
    head = layout.origin
    between = (border.left + border.right) * c
    tail = border.right * c + border.bottom * placement.row_pitch
    images = Span(n, (0, 0, placement.image_pitch))
    rows = Span(h - 1, (0, 0, placement.row_pitch))
    result = []
    if head:
        result += fill(first, head, value, config, [images])
    if between and h > 1:
        result += fill(placement.address + w * c, between, value, config, [images, rows])
    if tail:
        result += fill(placement.address + (h - 1) * placement.row_pitch + w * c, tail, value, config, [images])
    return result


def lower_pad(layer: Pad, source: Placement, destination: Placement, config: Config) -> tuple[list[Operation], list[Operation]]:
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
