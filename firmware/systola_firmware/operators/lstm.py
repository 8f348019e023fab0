"""UNIDIRECTIONAL_SEQUENCE_LSTM: one matrix product for the input part, then the recurrence.

The variant is the one that TFLM's integer kernel computes and converters write for a Keras LSTM: int8 activations and
weights, int16 cell state, tanh, no peephole, projection or layer normalisation. Anything else is refused by name.
"""

from __future__ import annotations

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Lstm
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.lstm import lower_lstm
from systola_firmware.lowering.stage import Stage
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import (
    lstm_cell_clip,
    lstm_cell_exponent,
    lstm_gate_requantization,
    lstm_hidden_requantization,
)
from systola_firmware.operators.family import Family, Operator
from systola_firmware.spec.isa import GATES
from systola_firmware.tflite.operator import INT8_ADVICE, OperatorReader, Weights

__all__ = ["LSTM"]

#: Positions of the operator's inputs. From each on, four inputs belong to the gates input, forget, cell and output.
_INPUT_WEIGHTS, _RECURRENT_WEIGHTS, _BIAS = 1, 5, 12
_HIDDEN_STATE, _CELL_STATE = 18, 19

#: Inputs whose presence makes the operator another kind of LSTM, and what that kind has.
_VARIANTS = (
    (range(9, 12), "peephole connections"),
    (range(16, 18), "a projection"),
    (range(20, 24), "layer normalisation"),
)
_STANDARD = "use a standard LSTM, as Keras makes it"


def _unidirectional_sequence_lstm(reader: OperatorReader) -> list[Layer]:
    """One Lstm, for any batch and number of time steps, and either order of these two axes."""
    _check_variant(reader)
    source, target = reader.input(0), reader.output()
    if len(source.shape) != 3 or len(target.shape) != 3 or source.shape[:2] != target.shape[:2]:
        raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
    time_major = bool(reader.option("TimeMajor"))
    batch = source.shape[1 if time_major else 0]
    features, units = source.shape[2], target.shape[2]
    hidden = reader.state(_HIDDEN_STATE, "int8", batch * units)
    cell = reader.state(_CELL_STATE, "int16", batch * units)
    if (hidden.scales[0], hidden.zero_points or (0,)) != (target.scale, (target.zero_point,)):
        raise reader.refuse(
            "has a hidden state and an output of different quantization, which is not supported: convert the model again"
        )
    input_weights, input_scales = _gates(reader, _INPUT_WEIGHTS, (units, features))
    recurrent_weights, recurrent_scales = _gates(reader, _RECURRENT_WEIGHTS, (units, units))
    return [
        Lstm(
            reader.name,
            (source,),
            target,
            (reader.operator.index,),
            input_weights=input_weights,
            recurrent_weights=recurrent_weights,
            bias=np.stack([reader.bias(_BIAS + gate, units) for gate in range(len(GATES))]),
            input_requantization=lstm_gate_requantization(source.scale, input_scales),
            recurrent_requantization=lstm_gate_requantization(target.scale, recurrent_scales),
            hidden_requantization=lstm_hidden_requantization(target.scale),
            cell_exponent=lstm_cell_exponent(cell.scales[0]),
            clip=lstm_cell_clip(reader.option("CellClip"), cell.scales[0]),
            time_major=time_major,
            hidden_index=hidden.index,
            cell_index=cell.index,
        )
    ]


def _check_variant(reader: OperatorReader) -> None:
    for positions, name in _VARIANTS:
        if any(reader.has_input(position) for position in positions):
            raise reader.refuse(f"has {name}, which is not supported: {_STANDARD}")
    if not reader.has_input(_INPUT_WEIGHTS):
        raise reader.refuse(f"couples its input gate to the forget gate (CIFG), which is not supported: {_STANDARD}")
    if reader.option("ProjClip") > 0:
        raise reader.refuse(f"clips a projection that it does not have (proj_clip), which is not supported: {_STANDARD}")
    if reader.option("DiagonalRecurrentTensors"):
        raise reader.refuse(f"has diagonal recurrent weights, which is not supported: {_STANDARD}")
    if reader.activation_name() != "TANH":
        raise reader.refuse(f"has the fused activation {reader.activation_name()} where the kernels have TANH: {_STANDARD}")
    for gate, name in enumerate(GATES):
        if not reader.has_input(_BIAS + gate):
            raise reader.refuse(f"has no bias of the {name} gate, which the kernels demand: {_STANDARD}")


def _gates(reader: OperatorReader, position: int, shape: tuple[int, int]) -> tuple[Int8Array, list[float]]:
    """Weights int8 ``[4, *shape]`` of the four gates from input ``position`` on, and the scale of each gate."""
    gates: list[Weights] = []
    for gate in range(len(GATES)):
        weights = reader.weights(position + gate, rank=2, channel_axis=0)
        if weights.values.shape != shape:
            raise reader.damaged(f"has weights of the shape {list(weights.values.shape)} where {list(shape)} belongs")
        if len(weights.scales) != 1:
            raise reader.refuse(
                f"has {len(weights.scales)} scales of the {GATES[gate]} gate's weights where the kernels take one: {INT8_ADVICE}"
            )
        gates.append(weights)
    return np.stack([weights.values for weights in gates]), [weights.scales[0] for weights in gates]


def _lower(layer: Lstm, context: Context) -> tuple[Stage, ...]:
    return lower_lstm(layer, context.plan, context.image, context.config)


LSTM = Family(
    Lstm,
    (
        Operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            _unidirectional_sequence_lstm,
            "no peephole, projection, layer normalisation or CIFG; tanh; any batch, batch or time first",
            "DOUBLE and fixed point, as TFLM",
        ),
    ),
    runs="array, POST unit and LSTM cell",
    types="int8, symmetric int8 weights, int32 bias, int16 cell state",
    lower=_lower,
)
