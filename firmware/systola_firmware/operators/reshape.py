"""RESHAPE, SQUEEZE and EXPAND_DIMS: the same elements under another shape."""

from __future__ import annotations

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Reshape
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import lower_copy
from systola_firmware.operators.family import Family, Operator
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["RESHAPE", "reshaped"]


def reshaped(reader: OperatorReader, source: Tensor, shape: tuple[int, ...], note: str) -> tuple[Tensor, list[Layer]]:
    """``source`` under another shape, and the layers that reshape it: none if it is stored in the same way."""
    target = Tensor(f"{source.name} ({note} {reader.operator.index})", shape, source.scale, source.zero_point)
    if target.nhwc == source.nhwc:
        return source, []
    return target, [Reshape(f"{reader.name}_reshape", (source,), target, (reader.operator.index,))]


def _reshape(reader: OperatorReader) -> list[Layer]:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the output's shape is in the file; a shape operand that is known must agree with
    it."""
    source, target = reader.input(0), reader.output()
    if source.elements != target.elements:
        raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
    shape = reader.integers(1) if reader.operator.name == "RESHAPE" else None
    if shape is not None and not _agrees(shape.reshape(-1).tolist(), target.shape):
        raise reader.damaged(f"has the shape operand {shape.tolist()} and an output of {list(target.shape)}")
    return [Reshape(reader.name, (source,), target, (reader.operator.index,))]


def _agrees(wanted: list[int], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(size in (-1, actual) for size, actual in zip(wanted, shape, strict=True))


def _lower(layer: Reshape, context: Context) -> tuple[Stage, ...]:
    if context.is_there_already(layer):
        return ()
    return context.stage(layer, lower_copy(context.source(layer), context.destination(layer), context.config))


_LIMITS = "constant shape"
RESHAPE = Family(
    Reshape,
    tuple(Operator(name, _reshape, _LIMITS, "none") for name in ("EXPAND_DIMS", "RESHAPE", "SQUEEZE")),
    runs="nothing, or POST unit copies",
    types="int8",
    lower=_lower,
)
