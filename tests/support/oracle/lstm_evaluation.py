"""A naive LSTM, from the definition in ``docs/numerics.md`` step by step: nothing shared with the packages' own
models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.layers import Lstm
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.sigmoid import SIGMOID_TABLE

Array = npt.NDArray[Any]

_TABLE = np.array(SIGMOID_TABLE, dtype=np.int64)
_HALF = 1 << 30


@dataclass(frozen=True)
class LstmRun:
    """What an LSTM computed.

    ``output`` has the layer's output shape. The others are time-major: ``hidden`` and ``cell`` are the states after
    each step, ``[time, batch, hidden]``, ``gates`` the gates' Q0.15 values, ``[4, time, batch, hidden]``.
    """

    output: Array
    hidden: Array
    cell: Array
    gates: Array


def _rescale(values: Array, multiplier: int, shift: int) -> Array:
    """REQ in mode DOUBLE; the shift to the left wraps as int32 does."""
    wide = (values << max(shift, 0)).astype(np.int32).astype(np.int64)
    high = (wide * multiplier + (1 << 30)) >> 31
    right = max(-shift, 0)
    if not right:
        return high
    magnitude = (np.abs(high) + (1 << (right - 1))) >> right
    return np.asarray(np.sign(high) * magnitude)


def _saturate(values: Array) -> Array:
    return np.clip(values, -32768, 32767)


def _lookup(position: Array, bits: int, limit: int) -> Array:
    """The table at ``position / 2^bits``, interpolated, times ``2^bits``; ``limit`` from its last entry on."""
    entry = np.minimum(position >> bits, 254)
    low, high = _TABLE[entry], _TABLE[entry + 1]
    between = low * (1 << bits) + (position - (entry << bits)) * (high - low)
    return np.where(position >> bits >= 255, limit, between)


def _sigmoid(x: Array) -> Array:
    value = _lookup(np.abs(3 * x), 9, 0x7FFF << 10)
    return np.where(x >= 0, (value + 512) >> 10, ((1 << 25) - value + 511) >> 10)


def _tanh(x: Array, exponent: int) -> Array:
    left = exponent + 12
    scaled = 3 * x << left if left >= 0 else (3 * x + (1 << (-left - 1))) >> -left
    value = _lookup(np.abs(scaled), 8, 0xFFFF << 8) - (1 << 23)
    return np.where(scaled >= 0, (value + 128) >> 8, (-value + 127) >> 8)


def _gate(values: Array, requantization: Requantization, gate: int) -> Array:
    return _saturate(_rescale(values, int(requantization.multiplier[gate]), int(requantization.shift[gate])))


def run_lstm(layer: Lstm, x: Array, hidden: Array | None = None, cell: Array | None = None) -> LstmRun:
    """Run a layer over ``x``, int8 values of the layer's input shape.

    ``hidden`` and ``cell``, ``[batch, hidden]``, are the states to start from; by default the zero point and 0.
    """
    sequence = x.astype(np.int64) if layer.time_major else x.astype(np.int64).swapaxes(0, 1)
    source_zero, zero = layer.inputs[0].zero_point, layer.output.zero_point
    shape = (layer.batch, layer.hidden)
    h = np.full(shape, zero, np.int64) if hidden is None else hidden.astype(np.int64)
    c = np.zeros(shape, np.int64) if cell is None else cell.astype(np.int64)
    weights, recurrent = layer.input_weights.astype(np.int64), layer.recurrent_weights.astype(np.int64)
    final = layer.hidden_requantization
    hiddens, cells, gates = [], [], []
    for step in sequence:
        preactivations = [
            _saturate(
                _gate(layer.bias[gate] + (step - source_zero) @ weights[gate].T, layer.input_requantization, gate)
                + _gate((h - zero) @ recurrent[gate].T, layer.recurrent_requantization, gate)
            )
            for gate in range(4)
        ]
        i, f, o = (_sigmoid(preactivations[gate]) for gate in (0, 1, 3))
        g = _tanh(preactivations[2], -12)
        kept = _saturate(_rescale(f * c, _HALF, -14))
        added = _saturate(_rescale(i * g, _HALF, -29 - layer.cell_exponent))
        c = _saturate(kept + added)
        if layer.clip:
            c = np.clip(c, -layer.clip, layer.clip)
        product = o * _tanh(c, layer.cell_exponent)
        h = np.clip(_rescale(product, int(final.multiplier[0]), int(final.shift[0])) + zero, -128, 127)
        hiddens.append(h)
        cells.append(c)
        gates.append([i, f, g, o])
    states = np.array(hiddens)
    output = states if layer.time_major else states.swapaxes(0, 1)
    return LstmRun(output, states, np.array(cells), np.array(gates).swapaxes(0, 1))
