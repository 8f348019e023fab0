"""SOFTMAX int8 → int8 as TFLM's reference kernel computes it: fixed-point exponential and reciprocal, bit for bit.

The driver runs it on the device's answer when a model ends in one, so this needs nothing but numpy. The output's scale
is 1/256 and its zero point −128, which are the only ones that the kernel knows.

TFLM aborts in a row whose exponentials add up to 512 times the largest or more (only beyond 512 classes), as a shift
exceeds 31. Here the same formula goes on with that shift: such classes are all nearly 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from systola_firmware.numerics.fixed_point import (
    INT32_MAX,
    doubling_high_multiply,
    exp_on_negative_values,
    one_over_one_plus,
    rounding_divide_by_power_of_two,
)
from systola_firmware.numerics.quantization import quantize_multiplier

__all__ = ["OUTPUT_SCALE", "OUTPUT_ZERO_POINT", "softmax"]

OUTPUT_SCALE = 1 / 256
OUTPUT_ZERO_POINT = -128

#: Integer bits of the exponential's argument: differences to the maximum of a row reach 2^5.
_DIFFERENCE_BITS = 5
#: Integer bits of the sum of exponentials: it holds 4096 classes.
_SUM_BITS = 12


def _difference_factor(beta: float, input_scale: float) -> tuple[int, int]:
    """Multiplier and left shift that bring an int8 difference to :data:`_DIFFERENCE_BITS` integer bits."""
    real = min(beta * float(np.float32(input_scale)) * (1 << (31 - _DIFFERENCE_BITS)), float(INT32_MAX))
    return quantize_multiplier(real)


def softmax(values: npt.NDArray[np.int8], input_scale: float, beta: float = 1.0) -> npt.NDArray[np.int8]:
    """Softmax over the last axis.

    Parameters
    ----------
    values:
        int8 of any shape, last axis up to 4096. The input's zero point does not matter: only differences to the row's
        maximum do.
    input_scale:
        Scale of ``values``, rounded to float32 as in a model file.
    beta:
        Factor on the real input values, positive.

    Returns
    -------
    int8 of the same shape, real value ``(q + 128) / 256``.

    Raises
    ------
    ValueError
        If ``beta * input_scale`` is so small that TFLM's own preparation of the kernel fails (below 2^-26).
    """
    multiplier, shift = _difference_factor(float(np.float32(beta)), input_scale)
    if shift < 0 or multiplier == 0:
        raise ValueError(f"softmax of beta * input_scale = {beta * input_scale:g} is not defined: it must be at least 2^-26")
    # A difference below this has an exponential of 0; the kernel leaves it out.
    lowest = -math.floor(((1 << _DIFFERENCE_BITS) - 1) * (1 << (31 - _DIFFERENCE_BITS)) / (1 << shift))

    difference = values.astype(np.int64) - values.max(axis=-1, keepdims=True)
    counts = difference >= lowest
    scaled = doubling_high_multiply(np.where(counts, difference, 0) << shift, multiplier)
    exponential = np.where(counts, exp_on_negative_values(scaled, _DIFFERENCE_BITS), 0)
    total = rounding_divide_by_power_of_two(exponential, _SUM_BITS).sum(axis=-1, keepdims=True)

    # total = (1 + fraction) * 2^(31 - headroom); at least one class is the maximum, so it is at least 2^19.
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    fraction = (total << headroom) - (1 << 31)
    reciprocal = one_over_one_plus(np.where(headroom > 0, fraction, 0))
    result = rounding_divide_by_power_of_two(doubling_high_multiply(reciprocal, exponential), _SUM_BITS - headroom + 31 - 8)
    clipped = np.clip(result + OUTPUT_ZERO_POINT, -128, 127).astype(np.int8)
    return np.where(counts, clipped, np.int8(OUTPUT_ZERO_POINT))
