"""REQ against a transcription of its definition in Python's integers, which have no width and so no overflow to
hide."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from systola_firmware.spec.isa import Rounding
from systola_sim.golden.requantize import clamp, requantize, wrap32

INT32_MINIMUM, INT32_MAXIMUM = -(1 << 31), (1 << 31) - 1


def low32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def half_to_even(value: Fraction, bits: int) -> Fraction:
    """``value`` rounded to ``bits`` significant binary digits; Python's ``round`` of a Fraction is half to even."""
    if value == 0:
        return value
    exponent = 0
    while abs(value) >= 1 << bits:
        value, exponent = value / 2, exponent + 1
    while abs(value) < 1 << (bits - 1):
        value, exponent = value * 2, exponent - 1
    return Fraction(round(value)) * Fraction(2) ** exponent


def definition(accumulator: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    if rounding is Rounding.SINGLE:
        return low32((accumulator * multiplier + (1 << (30 - shift))) >> (31 - shift))
    if rounding is Rounding.FP32:
        scale = half_to_even(Fraction(multiplier) * Fraction(2) ** (shift - 31), 24)
        return low32(round(half_to_even(half_to_even(Fraction(accumulator), 24) * scale, 24)))
    product = (low32(accumulator << max(shift, 0)) * multiplier + (1 << 30)) >> 31
    right = max(-shift, 0)
    if right == 0:
        return low32(product)
    away = product < 0 if rounding is Rounding.DOUBLE else False
    return low32((product + (1 << (right - 1)) - away) >> right)


def corner_cases() -> list[tuple[int, int, int]]:
    accumulators = {INT32_MINIMUM, INT32_MINIMUM + 1, INT32_MAXIMUM, INT32_MAXIMUM - 1, 0, 1 << 30, -(1 << 30)}
    accumulators |= {
        sign * ((1 << power) + delta) for power in (0, 1, 7, 8, 24, 25, 26) for delta in (-1, 0, 1) for sign in (-1, 1)
    }
    multipliers = (0, 1 << 30, (1 << 30) + 1, 3 << 29, (1 << 31) - 1)
    cases = [(a, q, s) for a in sorted(accumulators) for q in multipliers for s in range(-31, 7)]
    # Ties of the second rounding: with q = 2^30 the first one halves exactly.
    cases += [(sign * (odd << (right + 1 - 1)), 1 << 30, -right) for right in range(1, 26) for odd in (1, 3, 5) for sign in (-1, 1)]
    return cases


def random_cases(seed: int, count: int) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    magnitude = 1 << rng.integers(1, 32, count)
    accumulators = rng.integers(-magnitude, magnitude)
    return list(
        zip(
            accumulators.tolist(), rng.integers(1 << 30, 1 << 31, count).tolist(), rng.integers(-31, 7, count).tolist(), strict=True
        )
    )


@pytest.mark.parametrize("rounding", list(Rounding))
def test_equals_the_definition(rounding: Rounding) -> None:
    cases = corner_cases() + random_cases(20, 3000)
    accumulators, multipliers, shifts = (np.array(column) for column in zip(*cases, strict=True))
    actual = requantize(accumulators, multipliers, shifts, rounding)
    assert actual.dtype == np.int32
    expected = [definition(*case, rounding) for case in cases]
    wrong = [(case, got, want) for case, got, want in zip(cases, actual.tolist(), expected, strict=True) if got != want]
    assert not wrong, f"{len(wrong)} of {len(cases)}, first {wrong[0]}"


def test_modes_differ_where_they_should() -> None:
    """−2.5 and −1.5: half away, half up, half to even; so no mode can stand in for another unseen."""
    values = [-5, -3, 3, 5]
    by_mode = {mode: requantize(values, 1 << 30, 0, mode).tolist() for mode in (Rounding.SINGLE, Rounding.FP32)}
    assert by_mode == {Rounding.SINGLE: [-2, -1, 2, 3], Rounding.FP32: [-2, -2, 2, 2]}
    assert requantize([-10, -6, 6, 10], 1 << 30, -1, Rounding.DOUBLE).tolist() == [-3, -2, 2, 3]
    assert requantize([-10, -6, 6, 10], 1 << 30, -1, Rounding.UP).tolist() == [-2, -1, 2, 3]


def test_a_multiplier_for_each_channel_broadcasts() -> None:
    accumulators = np.arange(-30, 30, dtype=np.int32).reshape(5, 4, 3)
    multiplier, shift = np.array([1 << 30, 0, (1 << 31) - 1]), np.array([-2, 0, 3])
    result = requantize(accumulators, multiplier, shift)
    for index in np.ndindex(accumulators.shape):
        channel = index[-1]
        expected = definition(int(accumulators[index]), int(multiplier[channel]), int(shift[channel]), Rounding.DOUBLE)
        assert result[index] == expected


@pytest.mark.parametrize("shift", [-32, 7])
def test_a_shift_outside_the_range_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match=r"shift must be from -31 to 6, not .*" + str(shift)):
        requantize([1, 2], 1 << 30, [0, shift])


def test_clamp_adds_the_zero_point_without_wrapping() -> None:
    values = np.array([INT32_MAXIMUM, INT32_MINIMUM, 0, 100, -100], dtype=np.int32)
    assert clamp(values, 100, -90, 110).tolist() == [110, -90, 100, 110, 0]
    assert clamp(values, -100, -90, 110).tolist() == [110, -90, -90, 0, -90]


def test_wrap32_keeps_the_low_bits() -> None:
    assert wrap32([1 << 31, -(1 << 31) - 1, (5 << 32) + 7]).tolist() == [INT32_MINIMUM, INT32_MAXIMUM, 7]
