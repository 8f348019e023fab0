"""Operators that map one element to one element: a table of 256 entries, made by the compiler."""

from __future__ import annotations

from collections.abc import Callable

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Lookup
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import lower_copy
from systola_firmware.numerics import lookup_tables
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.operators.family import Family, Importer, Operator
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["LOOKUP"]

#: Takes the input and the output of the operator; returns the 256 entries.
Table = Callable[[Tensor, Tensor], Int8Array]


def _lookup(function: str, table: Table) -> Importer:
    def lookup(reader: OperatorReader) -> list[Layer]:
        source, target = reader.input(0), reader.output()
        if source.shape != target.shape:
            raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
        return [Lookup(reader.name, (source,), target, (reader.operator.index,), table=table(source, target), function=function)]

    return lookup


def _lower(layer: Lookup, context: Context) -> tuple[Stage, ...]:
    tables = context.tables(layer.table)
    return context.stage(
        layer, lower_copy(context.source(layer), context.destination(layer), context.config, table=1), tables=tables
    )


def _operator(name: str, function: str, table: Table, rounding: str, limits: str = "") -> Operator:
    return Operator(name, _lookup(function, table), limits, rounding)


_RESCALED = "DOUBLE, as TFLM"
_FIXED_POINT = "gemmlowp's fixed point, as TFLM"
LOOKUP = Family(
    Lookup,
    (
        _operator("ABS", "Abs", lookup_tables.abs_table, _RESCALED),
        _operator("LOGISTIC", "Logistic", lookup_tables.logistic_table, _FIXED_POINT, "output zero point -128"),
        _operator("NEG", "Neg", lookup_tables.neg_table, "none, as LiteRT: TFLM has no kernel", "one scale, zero points 0"),
        _operator("QUANTIZE", "Quantize", lookup_tables.quantize_table, _RESCALED, "int8 to int8"),
        _operator("RELU", "Relu", lookup_tables.relu_table, _RESCALED),
        _operator("RELU6", "Relu6", lookup_tables.relu6_table, "none: TFLM clamps in the input's quantization"),
        _operator("RELU_N1_TO_1", "ReluN1To1", lookup_tables.relu_n1_to_1_table, "DOUBLE, as LiteRT: TFLM has no kernel"),
        _operator("TANH", "Tanh", lookup_tables.tanh_table, _FIXED_POINT),
    ),
    runs="POST unit, by a table; the clamp of the layer before where that is the same",
    types="int8",
    lower=_lower,
)
