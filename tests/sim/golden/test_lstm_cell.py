"""The LSTM cell against the transcription of TFLM's kernel in ``support.oracle.lstm_definition``.

The two functions are compared for every argument there is, in Python's integers; the cell for millions of random units,
because the double rounding of ``f * c`` differs from a single shift in only one to nine of 100,000.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support.oracle.lstm_definition import EXPONENTS, INT16, SIGMOIDS, TANHS, divide_by_power, rescale, step_definition

from systola_sim.golden.lstm_cell import cell_step, preactivation, saturate, sigmoid, tanh

INT16_CORNERS = (-32768, -32767, -16384, -1, 0, 1, 16384, 32767)


def test_sigmoid_of_every_argument() -> None:
    np.testing.assert_array_equal(sigmoid(INT16.astype(np.int16)), SIGMOIDS)
    assert (SIGMOIDS.min(), SIGMOIDS.max()) == (11, 32757)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_tanh_of_every_argument(exponent: int) -> None:
    np.testing.assert_array_equal(tanh(INT16.astype(np.int16), exponent), TANHS[exponent])
    assert np.abs(TANHS[exponent]).max() <= 32767


def random_units(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Preactivations ``(count, 4)`` and cells ``(count,)``: uniform, small (where the functions are steep), and
    corners."""
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
    # What the test above is for: it must hold units in which the forgetting half rounds otherwise than a shift by 15
    # would.
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
