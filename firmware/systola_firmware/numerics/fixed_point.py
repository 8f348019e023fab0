"""32-bit fixed-point exponential, logistic and hyperbolic tangent: the arithmetic of gemmlowp's ``fixedpoint.h``.

TFLM builds LOGISTIC, TANH and SOFTMAX on it, so bit-exact answers need the same operations in the same order. Numbers
are raw int32 values held in int64 arrays; a number with ``i`` integer bits has ``31 - i`` fractional bits. Nothing here
can overflow for arguments in the stated ranges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

INT32_MAX = (1 << 31) - 1
INT32_MIN = -(1 << 31)

#: exp(-1/8) and 1/3, no integer bits.
_EXP_MINUS_ONE_EIGHTH = 1895147668
_ONE_THIRD = 715827883

#: (exponent e, exp(-2^e) without integer bits): the factors of the exponential's barrel shifter.
_EXP_FACTORS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)

#: 48/17 and -32/17, two integer bits: start of the Newton-Raphson division.
_DIVISION_START = 1515870810
_DIVISION_SLOPE = -1010580540
_ONE_2 = 1 << 29  #: 1 with two integer bits


def doubling_high_multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """``round(a * b / 2^31)``, half up: gemmlowp's SaturatingRoundingDoublingHighMul, which saturates (-2^31)²."""
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    result: Int64Array = np.minimum((product + (1 << 30)) >> 31, INT32_MAX)
    return result


def rounding_divide_by_power_of_two(value: npt.ArrayLike, exponent: npt.ArrayLike) -> Int64Array:
    """``value / 2^exponent`` rounded half away from zero, ``exponent`` 0 to 31."""
    value, exponent = np.asarray(value, dtype=np.int64), np.asarray(exponent, dtype=np.int64)
    half = (np.int64(1) << exponent) >> 1
    # Half away from zero is half up, except that a negative tie must not be lifted; there is no tie without a shift.
    result: Int64Array = (value + half - ((value < 0) & (exponent > 0))) >> exponent
    return result


def _saturating_shift_left(value: Int64Array, bits: int) -> Int64Array:
    result: Int64Array = np.clip(value << bits, INT32_MIN, INT32_MAX)
    return result


def _exp_small(a: Int64Array) -> Int64Array:
    """exp of ``a`` in [-1/4, 0), without integer bits: Taylor around -1/8 to the fourth power."""
    x = a + (1 << 28)
    x2 = doubling_high_multiply(x, x)
    x3 = doubling_high_multiply(x2, x)
    x4 = doubling_high_multiply(x2, x2)
    cubic = doubling_high_multiply(rounding_divide_by_power_of_two(x4, 2) + x3, _ONE_THIRD)
    tail = rounding_divide_by_power_of_two(cubic + x2, 1)
    return _EXP_MINUS_ONE_EIGHTH + doubling_high_multiply(_EXP_MINUS_ONE_EIGHTH, x + tail)


def exp_on_negative_values(a: npt.ArrayLike, integer_bits: int) -> Int64Array:
    """exp(a) without integer bits for ``a <= 0`` with ``integer_bits`` integer bits (0 to 5); exp(0) is 2^31 - 1, the
    largest."""
    a = np.asarray(a, dtype=np.int64)
    fractional_bits = 31 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    modulo = (a & (quarter - 1)) - quarter
    result = _exp_small(_saturating_shift_left(modulo, integer_bits))
    remainder = modulo - a
    for exponent, factor in _EXP_FACTORS:
        if integer_bits > exponent:
            bit = 1 << (fractional_bits + exponent)
            result = np.where(remainder & bit, doubling_high_multiply(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _reciprocal(a: Int64Array) -> Int64Array:
    """``2 / (1 + a)`` with two integer bits, ``a`` in [0, 1] without integer bits: three steps of Newton-Raphson."""
    half_denominator = (a + INT32_MAX + 1) >> 1  # both positive: half away from zero is half up
    x = _DIVISION_START + doubling_high_multiply(half_denominator, _DIVISION_SLOPE)
    for _ in range(3):
        error = _ONE_2 - doubling_high_multiply(half_denominator, x)
        x = x + _saturating_shift_left(doubling_high_multiply(x, error), 2)
    return x


def one_over_one_plus(a: npt.ArrayLike) -> Int64Array:
    """``1 / (1 + a)``, argument in [0, 1] and result without integer bits."""
    return _saturating_shift_left(_reciprocal(np.asarray(a, dtype=np.int64)), 1)


def logistic(a: npt.ArrayLike, integer_bits: int) -> Int64Array:
    """``1 / (1 + exp(-a))`` without integer bits, ``a`` with ``integer_bits`` integer bits."""
    a = np.asarray(a, dtype=np.int64)
    positive = one_over_one_plus(exp_on_negative_values(-np.abs(a), integer_bits))
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, INT32_MAX - positive))


def tanh(a: npt.ArrayLike, integer_bits: int) -> Int64Array:
    """``tanh(a)`` without integer bits, ``a`` with ``integer_bits`` (0 to 4) integer bits."""
    a = np.asarray(a, dtype=np.int64)
    # exp(-2|a|): the doubled argument is the same raw value with one integer bit more.
    exponential = exp_on_negative_values(-np.abs(a), integer_bits + 1)
    magnitude: Any = _saturating_shift_left(_reciprocal(exponential) - _ONE_2, 2)
    return np.where(a == 0, 0, np.where(a < 0, -magnitude, magnitude))
