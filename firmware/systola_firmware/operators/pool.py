"""AVERAGE_POOL_2D and MAX_POOL_2D: the output is cut into rectangles whose windows have equally many taps, and a
multiplication divides the sums."""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Pool, PoolKind
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import Span, vectors
from systola_firmware.operators.family import Family, Importer, Operator
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_LIMIT, Combine, Operation, Rounding
from systola_firmware.spec.program import Placement
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["POOL", "average_multiplier", "clip_windows"]

#: How far TFLM lets the scales of a pooling layer's input and output differ.
_POOL_SCALE_TOLERANCE = 1e-6


def _pool(kind: PoolKind) -> Importer:
    def pool(reader: OperatorReader) -> list[Layer]:
        source, target = reader.input(0), reader.output()
        window = reader.option("FilterHeight"), reader.option("FilterWidth")
        if min(window) < 1:
            raise reader.damaged(f"has the window {window[0]}×{window[1]}")
        stride = reader.pair("Stride")
        padding = reader.window(window, stride)
        if source.shape[3] != target.shape[3]:
            raise reader.damaged(f"makes {target.shape[3]} channels of {source.shape[3]}")
        if abs(source.scale - target.scale) > _POOL_SCALE_TOLERANCE or source.zero_point != target.zero_point:
            raise reader.refuse(
                "has an input and an output of different quantization, which the kernels do not take: convert the model again"
            )
        minimum, maximum = reader.clamp(target)
        return [
            Pool(
                reader.name,
                (source,),
                target,
                (reader.operator.index,),
                kind=kind,
                window=window,
                stride=stride,
                padding=padding,
                minimum=minimum,
                maximum=maximum,
            )
        ]

    return pool


@dataclass(frozen=True)
class Windows:
    """Consecutive windows along one axis with equally many taps inside the tensor.

    Window ``first + i`` (of ``count``) has ``taps`` taps from input position ``start + i*step`` on.
    """

    first: int
    count: int
    start: int
    step: int
    taps: int


def clip_windows(outputs: int, window: int, stride: int, before: int, size: int) -> list[Windows]:
    """Cut an axis of ``outputs`` windows into ranges of windows with equally many taps. ``before`` is the border before
    the axis, ``size`` its length."""
    ranges: list[Windows] = []
    for output in range(outputs):
        start = max(0, output * stride - before)
        taps = min(size, output * stride - before + window) - start
        if ranges and ranges[-1].taps == taps:
            last = ranges[-1]
            step = start - (last.start + (last.count - 1) * last.step)
            if last.count == 1 or step == last.step:
                ranges[-1] = Windows(last.first, last.count + 1, last.start, step, taps)
                continue
        ranges.append(Windows(output, 1, start, 0, taps))
    return ranges


def average_multiplier(taps: int) -> tuple[int, int]:
    """Multiplier and shift that make REQ in mode SINGLE the division by ``taps``, half away from zero, for sums of that
    many int8."""
    k = 30 + (taps - 1).bit_length()
    return (1 << k) // taps + 1, 31 - k


def _windows(layer: Pool, source: Placement, destination: Placement, config: Config) -> list[Operation]:
    """Pooling: one instruction for each rectangle of output pixels whose windows have the same taps."""
    n, h, w, c = source.shape
    _, out_h, out_w, _ = destination.shape
    average = layer.kind is PoolKind.AVERAGE
    result = []
    for rows in clip_windows(out_h, layer.window[0], layer.stride[0], layer.padding.top, h):
        for columns in clip_windows(out_w, layer.window[1], layer.stride[1], layer.padding.left, w):
            taps = rows.taps * columns.taps
            t0, t1 = (columns.taps, c), (rows.taps, source.row_pitch)
            if source.row_pitch == columns.taps * c and taps <= COUNT_LIMIT:
                t0, t1 = (taps, c), (1, 0)
            if rows.taps < 1 or columns.taps < 1 or max(t0[0], t1[0]) > COUNT_LIMIT:
                raise CompileError(f"{layer.name} has a window of {rows.taps} × {columns.taps} taps, which the engine cannot count")
            fields = {
                "sources": 1,
                "combine": int(Combine.SUM if average else Combine.MAX),
                "t0_count": t0[0],
                "t0_step": t0[1] if t0[0] > 1 else 0,
                "t1_count": t1[0],
                "t1_step": t1[1] if t1[0] > 1 else 0,
                "minimum": layer.minimum,
                "maximum": layer.maximum,
            }
            if average and taps > 1:
                multiplier, shift = average_multiplier(taps)
                fields |= {"requantize": 1, "rounding": int(Rounding.SINGLE), "multiplier": multiplier, "shift": shift}
            spans = [
                Span(n, (source.image_pitch, 0, destination.image_pitch)),
                Span(rows.count, (rows.step * source.row_pitch, 0, destination.row_pitch)),
                Span(columns.count, (columns.step * c, 0, destination.pixel_pitch)),
            ]
            addresses = (
                source.address + rows.start * source.row_pitch + columns.start * c,
                0,
                destination.address + rows.first * destination.row_pitch + columns.first * destination.pixel_pitch,
            )
            result += vectors(addresses, spans, c, fields, config)
    return result


def _lower(layer: Pool, context: Context) -> tuple[Stage, ...]:
    return context.stage(layer, _windows(layer, context.source(layer), context.destination(layer), context.config))


_LIMITS = "input and output of one quantization"
POOL = Family(
    Pool,
    (
        Operator("AVERAGE_POOL_2D", _pool(PoolKind.AVERAGE), _LIMITS, "half away from zero, as TFLM"),
        Operator("MAX_POOL_2D", _pool(PoolKind.MAXIMUM), _LIMITS, "none"),
    ),
    runs="POST unit",
    types="int8",
    lower=_lower,
)
