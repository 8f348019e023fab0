"""Tables of 256 int8 for the operators that map one element to one element; entry ``x & 0xFF`` is the value for ``x``.

The arithmetic is that of TFLM's kernels, verified against them for every input value. RELU_N1_TO_1 has no kernel of its
own in TFLM: it follows LiteRT's reference kernel. Every function raises
:class:`~systola_firmware.numerics.quantization.QuantizationError` for scales that the kernel cannot take.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from systola_firmware.numerics import fixed_point
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import (
    INT8_MAX,
    INT8_MIN,
    TABLE_DOMAIN,
    Activation,
    QuantizationError,
    Quantized,
    activation_range,
    quantize_multiplier,
    quantized_bound,
    requantize,
    round_half_away,
)

#: Integer bits of the fixed-point argument of TFLM's int8 LOGISTIC and TANH: real values up to ±16.
_INTEGER_BITS = 4

#: Largest exponent of a ratio of scales: 255 << shift must stay below 2^31.
_LARGEST_RATIO_EXPONENT = 22


def _rescaled(values: npt.NDArray[np.int64], ratio: float) -> npt.NDArray[np.int64]:
    """``values``, at most 255 away from 0, times a ratio of scales."""
    multiplier, shift = quantize_multiplier(ratio)
    if shift > _LARGEST_RATIO_EXPONENT:
        raise QuantizationError(
            f"has an input scale {ratio:.6g} times its output scale: quantize the model with a representative data set"
        )
    return requantize(values, multiplier, shift)


def _requantized(source: Quantized, target: Quantized, ratio: float, minimum: int, maximum: int) -> Int8Array:
    values = _rescaled(TABLE_DOMAIN - source.zero_point, ratio) + target.zero_point
    return np.clip(values, minimum, maximum).astype(np.int8)


def quantize_table(source: Quantized, target: Quantized) -> Int8Array:
    """QUANTIZE from int8 to int8: the ratio of the scales is a double."""
    return _requantized(source, target, source.scale / target.scale, INT8_MIN, INT8_MAX)


def abs_table(source: Quantized, target: Quantized) -> Int8Array:
    """ABS: the distance from the input's zero point; rescaled by a double ratio unless both scales are the same."""
    distance: npt.NDArray[np.int64] = np.abs(TABLE_DOMAIN - source.zero_point)
    if source.scale != target.scale:
        distance = _rescaled(distance, source.scale / target.scale)
    return np.clip(distance + target.zero_point, INT8_MIN, INT8_MAX).astype(np.int8)


def neg_table(source: Quantized, target: Quantized) -> Int8Array:
    """NEG: TFLM has no int8 kernel, and LiteRT's reference kernel negates the bytes as they are, so that −128 stays.

    That is a negation only where both sides have one scale and the zero point 0; other quantizations are refused.
    """
    if source.scale != target.scale or source.zero_point or target.zero_point:
        raise QuantizationError(
            "has quantizations other than one scale and the zero point 0, of which LiteRT's kernel takes no notice: "
            "convert the model with symmetric activations around it"
        )
    return (-TABLE_DOMAIN).astype(np.int8)


def relu_table(source: Quantized, target: Quantized) -> Int8Array:
    """RELU as an operator of its own: the ratio of the scales is a double."""
    minimum, maximum = activation_range(Activation.RELU, target.scale, target.zero_point)
    return _requantized(source, target, source.scale / target.scale, minimum, maximum)


def relu_n1_to_1_table(source: Quantized, target: Quantized) -> Int8Array:
    """RELU_N1_TO_1 as an operator of its own: the ratio of the scales is rounded to float32."""
    ratio = float(np.float32(source.scale) / np.float32(target.scale))
    minimum, maximum = activation_range(Activation.RELU_N1_TO_1, target.scale, target.zero_point)
    return _requantized(source, target, ratio, minimum, maximum)


def relu6_table(source: Quantized, _target: Quantized) -> Int8Array:
    """RELU6 as an operator of its own: TFLM clamps in the *input's* quantization and never requantizes."""
    six = quantized_bound(6.0, source.scale, source.zero_point)
    return np.clip(TABLE_DOMAIN, source.zero_point, min(INT8_MAX, six)).astype(np.int8)


def _sigmoidal(
    source: Quantized, function: Callable[[np.ndarray, int], np.ndarray], fractional_bits: int, offset: int
) -> Int8Array:
    """LOGISTIC and TANH: rescale to 4 integer bits, ``function`` in fixed point, round to ``fractional_bits``."""
    mantissa, shift = math.frexp(source.scale * (1 << (31 - _INTEGER_BITS)))
    if shift < 0:
        raise QuantizationError(
            f"has an input scale of {source.scale:.6g}, below 2^-28: quantize the model with a representative data set"
        )
    multiplier = round_half_away(mantissa * (1 << 31))
    # Inputs at least this far from zero are saturated. A scale of 8 or more makes it 0: TFLM then answers the minimum
    # for zero.
    radius = ((1 << _INTEGER_BITS) - 1 << (31 - _INTEGER_BITS)) >> shift
    centred = TABLE_DOMAIN - source.zero_point
    inside = np.abs(centred) < radius
    argument = requantize(np.where(inside, centred, 0), multiplier, shift)
    values = fixed_point.rounding_divide_by_power_of_two(function(argument, _INTEGER_BITS), 31 - fractional_bits) + offset
    saturated = np.where(centred <= -radius, INT8_MIN, INT8_MAX)
    return np.where(inside, np.clip(values, INT8_MIN, INT8_MAX), saturated).astype(np.int8)


def logistic_table(source: Quantized, target: Quantized) -> Int8Array:
    """LOGISTIC: 8 fractional bits; TFLM demands the output zero point -128."""
    if target.zero_point != INT8_MIN:
        raise QuantizationError(f"has the output zero point {target.zero_point} where TFLM demands -128: convert the model again")
    return _sigmoidal(source, fixed_point.logistic, 8, INT8_MIN)


def tanh_table(source: Quantized, _target: Quantized) -> Int8Array:
    """TANH: 7 fractional bits, output zero point 0 whatever the file says."""
    return _sigmoidal(source, fixed_point.tanh, 7, 0)
