"""UNIDIRECTIONAL_SEQUENCE_LSTM for the model builder: its 24 inputs from plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from support.models.builder import ModelBuilder, activation_code

#: Positions among the operator's 24 inputs; weights and biases are four in a row: input, forget, cell, output gate.
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLE, BIAS, PROJECTION, HIDDEN, CELL, LAYER_NORM = 1, 5, 9, 12, 16, 18, 19, 20
INPUTS = 24


@dataclass(frozen=True)
class LstmLayer:
    """The constants of one LSTM. Gates are in the order input, forget, cell, output; scales are float32.

    ``input_weights`` is int8 ``[4, hidden, features]``, ``recurrent_weights`` int8 ``[4, hidden, hidden]``, ``bias``
    int32 ``[4, hidden]``. ``clip`` is the cell clip as a real number, 0 for none.
    """

    input_weights: npt.NDArray[np.int8]
    recurrent_weights: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    input_scales: tuple[float, float, float, float]
    recurrent_scales: tuple[float, float, float, float]
    hidden_scale: float
    hidden_zero_point: int = 0
    cell_scale: float = 2.0**-12
    clip: float = 0.0
    time_major: bool = False


@dataclass(frozen=True)
class AddedLstm:
    """Tensor numbers: the operator's output, the two state tensors, and the 24 inputs."""

    output: int
    hidden: int
    cell: int
    inputs: tuple[int, ...]


def add_lstm(model: ModelBuilder, source: int, layer: LstmLayer) -> AddedLstm:
    """Add the operator to ``model``, reading the activation ``source`` of three axes."""
    tensor = model.graph.tensors[source]
    units = layer.recurrent_weights.shape[1]
    first, second, _ = (int(size) for size in tensor.shape)
    batch = second if layer.time_major else first
    inputs = [-1] * INPUTS
    inputs[0] = source
    for gate in range(4):
        weights, recurrent = layer.input_weights[gate], layer.recurrent_weights[gate]
        inputs[INPUT_WEIGHTS + gate] = model.constant(weights, scale=layer.input_scales[gate])
        inputs[RECURRENT_WEIGHTS + gate] = model.constant(recurrent, scale=layer.recurrent_scales[gate])
        scale = np.float32(layer.input_scales[gate]) * np.float32(tensor.quantization.scale[0])
        inputs[BIAS + gate] = model.constant(layer.bias[gate], scale=scale)
    quantization: dict[str, Any] = {"scale": layer.hidden_scale, "zero_point": layer.hidden_zero_point}
    inputs[HIDDEN] = model.tensor((batch, units), np.int8, variable=True, name=f"hidden_{source}", **quantization)
    inputs[CELL] = model.tensor((batch, units), np.int16, variable=True, name=f"cell_{source}", scale=layer.cell_scale)
    output = model.activation((first, second, units), layer.hidden_scale, layer.hidden_zero_point)
    # TFLM reads none of the five intermediates, but converters write them and other interpreters want them.
    intermediates = [model.tensor((0,), np.int8, scale=1.0) for _ in range(4)]
    intermediates.append(model.tensor((0,), np.int8, **quantization))
    model.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        inputs,
        [output],
        intermediates=intermediates,
        fusedActivationFunction=activation_code("TANH"),
        cellClip=layer.clip,
        timeMajor=layer.time_major,
    )
    return AddedLstm(output, inputs[HIDDEN], inputs[CELL], tuple(inputs))
