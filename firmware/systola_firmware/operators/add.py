"""ADD of two tensors, or of one and a constant: two tables and a requantization."""

from __future__ import annotations

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Add
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import pixel_spans, vectors
from systola_firmware.lowering.vector import reshaped as viewed
from systola_firmware.numerics.quantization import add_parameters
from systola_firmware.operators.family import Family, Operator
from systola_firmware.operators.reshape import reshaped
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Combine, Operation
from systola_firmware.spec.program import Placement
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["ADD"]


def _add(reader: OperatorReader) -> list[Layer]:
    first, second, target = reader.input(0), reader.input(1), reader.output()
    tables, requantization = add_parameters((first.scale, second.scale), (first.zero_point, second.zero_point), target.scale)
    before: list[Layer] = []
    operands = []
    for operand in (first, second):
        fitting, layers = _broadcast(reader, operand, target)
        operands.append(fitting)
        before += layers
    minimum, maximum = reader.clamp(target)
    layer = Add(
        reader.name,
        (operands[0], operands[1]),
        target,
        (reader.operator.index,),
        tables=tables,
        requantization=requantization,
        minimum=minimum,
        maximum=maximum,
    )
    return [*before, layer]


def _broadcast(reader: OperatorReader, operand: Tensor, target: Tensor) -> tuple[Tensor, list[Layer]]:
    """The operand in the output's shape, and the layers for that: a constant is repeated, an activation that only lacks
    axes of one element is reshaped."""
    if operand.shape == target.shape:
        return operand, []
    missing = len(target.shape) - len(operand.shape)
    aligned = (1,) * missing + operand.shape
    if missing < 0 or any(size not in (1, whole) for size, whole in zip(aligned, target.shape, strict=True)):
        raise reader.damaged(f"cannot add the shape {list(operand.shape)} into {list(target.shape)}")
    if operand.constant is not None:
        values = np.ascontiguousarray(np.broadcast_to(operand.constant, target.shape))
        name = f"{operand.name} (broadcast for {reader.operator.index})"
        return Tensor(name, target.shape, operand.scale, operand.zero_point, constant=values), []
    if operand.elements != target.elements:
        raise reader.refuse(
            f"broadcasts the activation {operand.name!r} of the shape {list(operand.shape)} to {list(target.shape)}, "
            "which is not supported: give both operands one shape"
        )
    return reshaped(reader, operand, target.shape, "shaped for")


def _sum(layer: Add, first: Placement, second: Placement, destination: Placement, config: Config) -> list[Operation]:
    """ADD of two operands through tables T0 and T1, then requantization."""
    requantization = layer.requantization
    fields = {
        "sources": 2,
        "combine": int(Combine.SUM),
        "table": 1,
        "requantize": 1,
        "rounding": int(requantization.rounding),
        "zero_point": layer.output.zero_point,
        "minimum": layer.minimum,
        "maximum": layer.maximum,
        "multiplier": int(requantization.multiplier[0]),
        "shift": int(requantization.shift[0]),
    }
    operands = [p if p.shape == destination.shape else viewed(p, destination.shape) for p in (first, second)]
    spans = pixel_spans(destination.shape, operands[0], operands[1], destination)
    return vectors((first.address, second.address, destination.address), spans, destination.shape[3], fields, config)


def _lower(layer: Add, context: Context) -> tuple[Stage, ...]:
    tables = context.tables(*layer.tables)
    body = _sum(layer, context.source(layer, 0), context.source(layer, 1), context.destination(layer), context.config)
    return context.stage(layer, body, tables=tables)


ADD = Family(
    Add,
    (Operator("ADD", _add, "one shape, or a constant that is broadcast", "DOUBLE, as TFLM; both operands widened by 2^20"),),
    runs="POST unit, by tables",
    types="int8",
    lower=_lower,
)
