"""The LSTM's multipliers and clip against TFLM's kernel, by witnesses: models in which another formula gives another
answer.

Each witness is a model of one LSTM with zero input weights: a gate's preactivation is then what its bias, or the hidden
state of the step before, makes of it. With input and forget gate saturated, the int16 cell state shows the cell gate.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from support.models.builder import ModelBuilder
from support.models.lstm_operator import LstmLayer, add_lstm
from support.oracle.tflm import Oracle

from systola_firmware.numerics.quantization import (
    QuantizationError,
    lstm_cell_clip,
    lstm_cell_exponent,
    lstm_gate_requantization,
    lstm_hidden_requantization,
    quantize_multiplier,
    requantize,
)
from systola_firmware.numerics.requantization import Requantization
from systola_sim.golden.lstm_cell import GATE_EXPONENT, sigmoid, tanh

Int64Array = npt.NDArray[np.int64]

#: A cell state of this scale shows every bit of input gate times cell gate.
FINE = -15
INPUT, FORGET, CELL, OUTPUT = range(4)
#: A scale by which a bias is the preactivation itself: UNIT² · 2^12 = 1.
UNIT = 2.0**-6
SATURATED = 1 << 20


def lstm(
    bias: Int64Array,
    *,
    recurrent: npt.NDArray[np.int8] | None = None,
    steps: int = 1,
    input_scale: float = UNIT,
    cell_gate_scale: float = UNIT,
    recurrent_scale: float = 0.01,
    hidden_scale: float = 1 / 128,
    cell_scale: float = 2.0**FINE,
    clip: float = 0.0,
) -> tuple[Int64Array, Int64Array]:
    """TFLM's hidden and cell state after ``steps`` steps of an LSTM with these biases and recurrent weights of the cell
    gate."""
    units = bias.shape[1]
    weights = np.zeros((4, units, units), dtype=np.int8)
    if recurrent is not None:
        weights[CELL] = recurrent
    layer = LstmLayer(
        np.zeros((4, units, 1), dtype=np.int8),
        weights,
        bias.astype(np.int32),
        (UNIT, UNIT, cell_gate_scale, UNIT),
        (0.01, 0.01, recurrent_scale, 0.01),
        hidden_scale,
        cell_scale=cell_scale,
        clip=clip,
    )
    model = ModelBuilder()
    x = model.activation((1, steps, 1), input_scale, 0)
    added = add_lstm(model, x, layer)
    oracle = Oracle(model.finish([x], [added.output]))
    oracle.run(np.zeros((1, steps, 1), dtype=np.int8))
    hidden, cell = (oracle.tensor(number).reshape(-1).astype(np.int64) for number in (added.hidden, added.cell))
    return hidden, cell


def single_precision(scale: float) -> float:
    return float(np.float32(scale))


def requantized(values: npt.ArrayLike, by: Requantization) -> Int64Array:
    return requantize(values, int(by.multiplier[0]), int(by.shift[0]))


def cell_after_one_step(preactivation: Int64Array) -> Int64Array:
    """The cell state of scale 2^FINE after a step from 0 with the input gate saturated."""
    gate = np.int64(sigmoid(32767)) * tanh(np.clip(preactivation, -32768, 32767), GATE_EXPONENT)
    return requantize(gate, 1 << 30, -29 - FINE)


def telling(sums: Int64Array, double: Requantization, single: Requantization) -> Int64Array:
    """Those of the sums that the two requantize to different cell states."""
    different = cell_after_one_step(requantized(sums, double)) != cell_after_one_step(requantized(sums, single))
    return sums[different]


def test_lstm_gates_keep_the_product_in_double() -> None:
    """The input part: biases of the cell gate near the ties, so that a product rounded to float32 would show."""
    generator = np.random.default_rng(1)
    compared = 0
    for _ in range(20):
        source = single_precision(10 ** generator.uniform(-3, -1))
        weight = single_precision(10 ** generator.uniform(-6.5, -5) / 4096 / source)
        double = lstm_gate_requantization(source, [weight])
        single = lstm_gate_requantization(1.0, [single_precision(source * weight)])
        ties = np.round((np.arange(-4000, 4000, 7) + 0.5) / (source * weight * 4096))
        sums = (ties[:, np.newaxis] + np.arange(-200, 201, 5)).reshape(-1).astype(np.int64)
        sums = telling(sums[np.abs(sums) < 1 << 31], double, single)[:200]
        if not sums.size:
            continue
        bias = np.zeros((4, sums.size), dtype=np.int64)
        bias[INPUT] = SATURATED
        bias[CELL] = sums
        _, cell = lstm(bias, input_scale=source, cell_gate_scale=weight)
        assert np.array_equal(cell, cell_after_one_step(requantized(sums, double)))
        compared += sums.size
    assert compared > 1000


def test_lstm_recurrent_products_are_kept_in_double() -> None:
    """The recurrent part: 64 units make hidden states of the first step, from whose sums the others' cell gates are
    chosen."""
    generator = np.random.default_rng(2)
    helpers, compared = 64, 0
    for _ in range(25):
        hidden = single_precision(1 / generator.uniform(100, 200))
        weight = single_precision(10 ** generator.uniform(-3, -2.4) / 4096 / hidden)
        double = lstm_gate_requantization(hidden, [weight])
        single = lstm_gate_requantization(1.0, [single_precision(hidden * weight)])
        candidates = telling(np.arange(-300_000, 300_000), double, single)
        if not candidates.size:
            continue
        sums = generator.permutation(candidates)[:64]
        bias = np.zeros((4, helpers + sums.size), dtype=np.int64)
        bias[[INPUT, OUTPUT]] = SATURATED
        bias[CELL, :helpers] = np.where(np.arange(helpers) % 2, SATURATED, 27)  # hidden states of at least 75, and of 1
        first, _ = lstm(bias, hidden_scale=hidden)
        assert not first[helpers:].any()
        weights = np.zeros((bias.shape[1], bias.shape[1]), dtype=np.int8)
        for row, total in enumerate(sums):
            weights[helpers + row, :helpers] = _row(int(total), first[:helpers])
        _, cell = lstm(bias, recurrent=weights, steps=2, recurrent_scale=weight, hidden_scale=hidden)
        assert np.array_equal(cell[helpers:], cell_after_one_step(requantized(sums, double)))
        compared += sums.size
    assert compared > 50


def _row(total: int, values: Int64Array) -> Int64Array:
    """Weights in int8 by which ``values``, among which some are 1, add up to ``total``."""
    weights = np.zeros(values.size, dtype=np.int64)
    for position in np.argsort(-values):
        weights[position] = max(-127, min(127, math.trunc(total / values[position])))
        total -= int(weights[position] * values[position])
    assert total == 0
    return weights


def test_lstm_hidden_scale_is_divided_in_double() -> None:
    """Products of output gate and tanh near the ties, so that a multiplier narrowed to float32 would show."""
    generator = np.random.default_rng(3)
    preactivation = np.arange(-32768, 32768)
    gates = np.asarray(sigmoid(preactivation), dtype=np.int64)
    squashed = np.asarray(tanh(cell_after_one_step(preactivation), FINE), dtype=np.int64)
    gate_from = dict(zip(gates.tolist(), preactivation.tolist(), strict=True))
    squashed_from = dict(zip(squashed.tolist(), preactivation.tolist(), strict=True))
    wide = np.array([gate for gate in gate_from if gate > 3000])
    compared = 0
    for _ in range(6):
        scale = single_precision(1 / generator.uniform(100, 400))
        double = lstm_hidden_requantization(scale)
        multiplier, shift = quantize_multiplier(single_precision(2.0**-15 / scale * 2.0**-15))
        single = Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32))
        pairs: list[tuple[int, int]] = []
        for output in range(-110, 110):
            factors = np.round((output + 0.5) * scale * 2.0**30 / wide).astype(np.int64)
            products = wide * factors
            differ = requantized(products, double) != requantized(products, single)
            pairs += [
                (int(gate), int(factor))
                for gate, factor in zip(wide[differ], factors[differ], strict=True)
                if int(factor) in squashed_from
            ]
        bias = np.zeros((4, len(pairs)), dtype=np.int64)
        bias[INPUT] = SATURATED
        bias[CELL] = [squashed_from[factor] for _, factor in pairs]
        bias[OUTPUT] = [gate_from[gate] for gate, _ in pairs]
        hidden, _ = lstm(bias[:, :200], hidden_scale=scale)
        products = np.array([gate * factor for gate, factor in pairs], dtype=np.int64)[:200]
        assert np.array_equal(hidden, requantized(products, double))
        compared += hidden.size
    assert compared > 200


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**-9, 2.0**-15])
@pytest.mark.parametrize("steps", [1000.0, 1000.49, 1000.7, 1.0, 32767.0, 32767.9, 32768.0, 1e6, math.inf, -1.0, 0.0, math.nan])
def test_clip_equals_tflm(steps: float, scale: float) -> None:
    """All gates saturated, one cell state upwards, one downwards: it grows by 1 each step, or stops at the clip."""
    clip = single_precision(steps * scale)
    bias = np.full((4, 2), SATURATED, dtype=np.int64)
    bias[CELL] = [SATURATED, -SATURATED]
    _, cell = lstm(bias, steps=80, cell_scale=scale, clip=clip)
    assert lstm_cell_exponent(scale) == math.log2(scale)
    limit = lstm_cell_clip(clip, scale)
    _, unclipped = lstm(bias, steps=80, cell_scale=scale)
    assert np.array_equal(cell, np.clip(unclipped, -limit, limit) if limit else unclipped)
    assert unclipped.tolist() == [32767, -32768]
    assert 0 <= limit <= 32767


def test_a_clip_below_one_step_is_refused() -> None:
    with pytest.raises(QuantizationError, match=r"cell clip of 0\.00012207, below one step of the cell state"):
        lstm_cell_clip(2.0**-13, 2.0**-12)


@pytest.mark.parametrize("scale", [2.0**-8, 2.0**-16, 0.0003, math.nextafter(2.0**-12, 1)])
def test_a_cell_scale_that_the_engine_does_not_take_is_refused(scale: float) -> None:
    with pytest.raises(QuantizationError, match=r"no power of two from 2\^-15 to 2\^-9"):
        lstm_cell_exponent(scale)


def test_gate_multipliers_beyond_the_engine_are_refused() -> None:
    assert lstm_gate_requantization(0.5, [63 / 2048]).shift.tolist() == [6]
    with pytest.raises(QuantizationError, match="multiplier of 64, and the engine's largest is 64"):
        lstm_gate_requantization(0.5, [0.01, 64 / 2048, 0.01, 0.01])
