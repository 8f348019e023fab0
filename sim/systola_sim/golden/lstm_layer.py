"""The kernel of the integer graph's LSTM: TFLM's UNIDIRECTIONAL_SEQUENCE_LSTM, which also returns the state after every
step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.layers import Lstm
from systola_firmware.numerics.requantization import Requantization
from systola_sim.golden.lstm_cell import cell_step, preactivation, saturate
from systola_sim.golden.requantize import requantize, wrap32

__all__ = ["LstmStates", "run_lstm"]

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LstmStates:
    """Hidden state (int8) and cell state (int16) after every step, ``(steps, batch, hidden)``."""

    hidden: Int8Array
    cell: Int16Array


def _gate_sums(values: Int8Array, zero_point: int, weights: Int8Array) -> npt.NDArray[np.int64]:
    """``(..., inputs)`` times ``[4, hidden, inputs]``: ``(..., hidden, 4)``, exact in float64."""
    products = np.tensordot(values.astype(np.float64) - zero_point, weights.astype(np.float64), axes=(-1, 2))
    return np.moveaxis(products, -2, -1).astype(np.int64)


def _factor(requantization: Requantization) -> tuple[Int32Array, Int32Array]:
    return requantization.multiplier, requantization.shift


def run_lstm(layer: Lstm, x: Int8Array, before: LstmStates | None = None) -> LstmStates:
    """Run all steps.

    Parameters
    ----------
    layer:
        The layer.
    x:
        int8, as many elements as the layer's input.
    before:
        The sequences continue from the last step of these; without them they begin as the model says.
    """
    x = x.reshape(layer.inputs[0].shape)
    x = x if layer.time_major else x.swapaxes(0, 1)
    zero_point = layer.output.zero_point
    shape = layer.steps, layer.batch, layer.hidden
    states = LstmStates(np.empty(shape, np.int8), np.empty(shape, np.int16))
    h, c = np.full(shape[1:], zero_point, np.int8), np.zeros(shape[1:], np.int16)
    if before is not None:
        h, c = before.hidden[-1], before.cell[-1]

    sums = wrap32(_gate_sums(x, layer.inputs[0].zero_point, layer.input_weights) + layer.bias.T)
    input_parts = saturate(requantize(sums, *_factor(layer.input_requantization)))
    for step, input_part in enumerate(input_parts):
        recurrent = wrap32(_gate_sums(h, zero_point, layer.recurrent_weights))
        h, c = cell_step(
            preactivation(input_part, recurrent, *_factor(layer.recurrent_requantization)),
            c,
            exponent=layer.cell_exponent,
            clip=layer.clip,
            multiplier=int(layer.hidden_requantization.multiplier[0]),
            shift=int(layer.hidden_requantization.shift[0]),
            zero_point=zero_point,
        )
        states.hidden[step], states.cell[step] = h, c
    return states
