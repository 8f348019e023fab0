"""Fills with VECTOR: the borders of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from systola_firmware.lowering.vector import Span, vectors
from systola_firmware.memory.layout import TensorLayout
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement


def fill(start: int, size: int, value: int, config: Config, spans: Sequence[Span] = ()) -> list[Operation]:
    """Write ``value`` to ``size`` bytes at ``start``, repeated over ``spans``."""
    return vectors((0, 0, start), spans, size, {"sources": 0, "bias": value}, config)


def border_fills(placement: Placement, layout: TensorLayout, config: Config, value: int | None = None) -> list[Operation]:
    """Write the border of every image.

    There are three kinds of runs, each repeated for all images: the border above and to the left of the first row is
    one; the border to the right of a row and to the left of the next row is one for each row but the last; the border
    to the right of the last row and below it is one.
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
