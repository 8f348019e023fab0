"""The LSTM cell against a transcription of TFLM's kernel: gemmlowp's roundings by remainder, C's truncating division, no shortcut.

The two functions are compared for every argument there is, in Python's integers; the cell for millions of random units, because
the double rounding of ``f * c`` differs from a single shift in only 2 units of 100,000.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from systola_firmware.sigmoid import SIGMOID_TABLE
from systola_sim.lstm_cell import cell_step, preactivation, saturate, sigmoid, tanh

EXPONENTS = tuple(range(-15, -8))
INT16 = np.arange(-(1 << 15), 1 << 15)
INT16_CORNERS = (-32768, -32767, -16384, -1, 0, 1, 16384, 32767)

Int64Array = npt.NDArray[np.int64]


def lookup(magnitude: int, bits: int) -> int:
    index, fraction = divmod(magnitude, 1 << bits)
    if index >= 255:
        return (0x7FFF << 10) if bits == 9 else (0xFFFF << 8)
    lower, upper = SIGMOID_TABLE[index], SIGMOID_TABLE[index + 1]
    return (lower << bits) + fraction * (upper - lower)


def sigmoid_definition(x: int) -> int:
    value = lookup(abs(3 * x), 9)
    value = value + (1 << 9) if x >= 0 else (1 << (16 + 9)) - value + (1 << 9) - 1
    return value >> 10


def tanh_definition(x: int, exponent: int) -> int:
    left = 15 + exponent - 3
    scaled = x * (3 << left) if left >= 0 else (x * 3 + (1 << (-left - 1))) >> -left
    value = lookup(abs(scaled), 8)
    value = value - (1 << 23) + (1 << 7) if scaled >= 0 else -value + (1 << 23) + (1 << 7) - 1
    return value >> 8


def high_multiply(a: Int64Array, b: int) -> Int64Array:
    """gemmlowp's SaturatingRoundingDoublingHighMul: half away from zero, by truncation towards zero after a nudge."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))


def divide_by_power(x: Int64Array, exponent: int) -> Int64Array:
    """gemmlowp's RoundingDivideByPOT."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def rescale(x: Int64Array, multiplier: int, shift: int) -> Int64Array:
    """TFLM's MultiplyByQuantizedMultiplier."""
    return divide_by_power(high_multiply(x << max(shift, 0), multiplier), max(-shift, 0))


def saturated(x: Int64Array) -> Int64Array:
    return np.minimum(np.maximum(x, -32768), 32767)


#: TFLM's functions of every int16, from index 0 for -32768.
SIGMOIDS = np.array([sigmoid_definition(int(x)) for x in INT16])
TANHS = {exponent: np.array([tanh_definition(int(x), exponent) for x in INT16]) for exponent in EXPONENTS}


def step_definition(
    pre: Int64Array, c: Int64Array, *, exponent: int, clip: int, multiplier: int, shift: int, zero_point: int
) -> tuple[Int64Array, Int64Array]:
    i, f, o = (SIGMOIDS[pre[..., gate] + 32768] for gate in (0, 1, 3))
    g = TANHS[-12][pre[..., 2] + 32768]
    cell = saturated(saturated(rescale(f * c, 1 << 30, -14)) + saturated(rescale(i * g, 1 << 30, -15 - 15 - exponent + 1)))
    if clip:
        cell = np.minimum(np.maximum(cell, -clip), clip)
    hidden = rescale(o * TANHS[exponent][cell + 32768], multiplier, shift) + zero_point
    return np.minimum(np.maximum(hidden, -128), 127), cell


def test_sigmoid_of_every_argument() -> None:
    np.testing.assert_array_equal(sigmoid(INT16.astype(np.int16)), SIGMOIDS)
    assert (SIGMOIDS.min(), SIGMOIDS.max()) == (11, 32757)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_tanh_of_every_argument(exponent: int) -> None:
    np.testing.assert_array_equal(tanh(INT16.astype(np.int16), exponent), TANHS[exponent])
    assert np.abs(TANHS[exponent]).max() <= 32767


def random_units(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Preactivations ``(count, 4)`` and cells ``(count,)``: uniform, small (where the functions are steep), and corners."""
    uniform = rng.integers(-32768, 32768, (count, 5))
    small = np.clip(rng.normal(0, 6000, (count, 5)), -32768, 32767).astype(np.int64)
    values = np.where(rng.random((count, 1)) < 0.5, uniform, small)
    values = np.where(rng.random((count, 5)) < 0.02, rng.choice(INT16_CORNERS, (count, 5)), values).astype(np.int16)
    return values[:, :4], values[:, 4]


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize(("clip", "multiplier", "shift", "zero_point"), [(0, 1518500250, -21, 3), (9000, 1 << 30, -22, -128)])
def test_step_of_millions_of_units(exponent: int, clip: int, multiplier: int, shift: int, zero_point: int) -> None:
    rng = np.random.default_rng([-exponent, clip])
    pre, c = random_units(rng, 300_000)
    numbers = {"exponent": exponent, "clip": clip, "multiplier": multiplier, "shift": shift, "zero_point": zero_point}
    h, cell = cell_step(pre, c, **numbers)
    expected_h, expected_cell = step_definition(pre.astype(np.int64), c.astype(np.int64), **numbers)
    assert h.dtype == np.int8
    assert cell.dtype == np.int16
    np.testing.assert_array_equal(cell, expected_cell)
    np.testing.assert_array_equal(h, expected_h)
    assert (np.abs(cell.astype(int)) >= (clip or 32767)).any(), "nothing was clipped or saturated"


def test_millions_are_enough_to_see_the_double_rounding() -> None:
    # What the test above is for: it must hold units in which the forgetting half rounds otherwise than a shift by 15 would.
    pre, c = random_units(np.random.default_rng(15), 300_000)
    product = SIGMOIDS[pre[:, 1].astype(int) + 32768] * c.astype(np.int64)
    assert (rescale(product, 1 << 30, -14) != (product + (1 << 14)) >> 15).any()
    assert (rescale(product, 1 << 30, -14) != divide_by_power(product, 15)).any()


def test_preactivation_saturates_twice() -> None:
    # Without the inner saturation the second element would be 32767 - 5, without the outer one the first would wrap.
    part = np.array([32767, -5, -32768, 7], dtype=np.int16)
    sums = np.array([100_000, 100_000, -100_000, 11], dtype=np.int32)
    np.testing.assert_array_equal(preactivation(part, sums, 1 << 30, 1), [32767, 32762, -32768, 18])
    # One multiplier a gate.
    gates = preactivation(np.zeros((2, 4), np.int16), np.full((2, 4), 1000, np.int32), [1 << 30, 3 << 29, 0, 1 << 30], [0, 0, 0, 1])
    np.testing.assert_array_equal(gates, [[500, 750, 0, 1000]] * 2)


def test_saturate() -> None:
    np.testing.assert_array_equal(saturate(np.array([-40000, -32768, 0, 32767, 32768])), [-32768, -32768, 0, 32767, 32767])


def test_shapes_are_kept() -> None:
    h, cell = cell_step(
        np.zeros((2, 3, 5, 4), np.int16), np.zeros((2, 3, 5)), exponent=-11, clip=0, multiplier=0, shift=0, zero_point=9
    )
    assert h.shape == cell.shape == (2, 3, 5)
    assert (h == 9).all()


def test_rejects_other_exponents_and_gates() -> None:
    with pytest.raises(ValueError, match="exponent must be from -15 to -9, not -8"):
        cell_step(np.zeros((1, 4), np.int16), [0], exponent=-8, clip=0, multiplier=0, shift=0, zero_point=0)
    with pytest.raises(ValueError, match="4 gates along its last axis, not 3"):
        cell_step(np.zeros((1, 3), np.int16), [0], exponent=-9, clip=0, multiplier=0, shift=0, zero_point=0)
