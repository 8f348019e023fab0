"""SOFTMAX as the model's last operator: the driver computes it."""

from __future__ import annotations

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Softmax
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.operators.family import Family, Operator
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["SOFTMAX"]

_SOFTMAX_SCALE, _SOFTMAX_TOLERANCE, _SOFTMAX_ZERO_POINT = 1 / 256, 0.001 / 256, -128


def _softmax(reader: OperatorReader) -> list[Layer]:
    source, target = reader.input(0), reader.output()
    if source.shape != target.shape:
        raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
    if abs(target.scale - _SOFTMAX_SCALE) > _SOFTMAX_TOLERANCE or target.zero_point != _SOFTMAX_ZERO_POINT:
        raise reader.refuse("has an output quantization that is not scale 1/256 and zero point -128: convert the model again")
    return [Softmax(reader.name, (source,), target, (reader.operator.index,), beta=float(reader.option("Beta")))]


def _lower(_layer: Softmax, _context: Context) -> tuple[Stage, ...]:
    return ()


SOFTMAX = Family(
    Softmax,
    (Operator("SOFTMAX", _softmax, "last operator; output scale 1/256, zero point -128", "gemmlowp's fixed point, as TFLM"),),
    runs="driver",
    types="int8",
    lower=_lower,
)
