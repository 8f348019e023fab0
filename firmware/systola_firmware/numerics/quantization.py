"""From scales to integers: the host-side preparation that TFLM's kernels do, in the same C arithmetic.

Scales are float32 values; products and quotients are doubles unless a function says otherwise, because the order and
the width of the operations decide the last bit of a multiplier.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from systola_firmware.numerics.arrays import Int32Array
from systola_firmware.numerics.fixed_point import doubling_high_multiply, rounding_divide_by_power_of_two
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.isa import (
    CELL_EXPONENT_MAXIMUM,
    CELL_EXPONENT_MINIMUM,
    SHIFT_MAXIMUM,
    SHIFT_MINIMUM,
    Rounding,
)

INT8_MIN, INT8_MAX = -128, 127

#: TFLM's ADD widens its operands by this many bits before it rescales them.
_ADD_LEFT_SHIFT = 20

#: A gate's preactivation is Q3.12; the sigmoid or tanh of it is Q0.15.
_GATE_FRACTION_BITS, _GATE_OUTPUT_FRACTION_BITS = 12, 15

_INT16_MAX = (1 << 15) - 1

#: log2 of the scales that an LSTM's cell state may have.
CELL_EXPONENTS = range(CELL_EXPONENT_MINIMUM, CELL_EXPONENT_MAXIMUM + 1)

#: Every int8 value in the order of a table: entry ``x & 0xFF`` belongs to ``x``.
TABLE_DOMAIN: npt.NDArray[np.int64] = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)


class Quantized(Protocol):
    """What has a scale and a zero point: ``real = scale * (q - zero_point)``."""

    @property
    def scale(self) -> float: ...

    @property
    def zero_point(self) -> int: ...


class QuantizationError(ValueError):
    """Scales or zero points that the kernels or the engine cannot take; the message continues a sentence about an
    operator."""


class Activation(enum.Enum):
    """Fused activation functions; the value is the schema's name."""

    NONE = "NONE"
    RELU = "RELU"
    RELU_N1_TO_1 = "RELU_N1_TO_1"
    RELU6 = "RELU6"

    @property
    def real_range(self) -> tuple[float, float]:
        """Bounds of the real value, infinite where there is none."""
        return {
            Activation.NONE: (-math.inf, math.inf),
            Activation.RELU: (0.0, math.inf),
            Activation.RELU_N1_TO_1: (-1.0, 1.0),
            Activation.RELU6: (0.0, 6.0),
        }[self]


def round_half_away(value: float) -> int:
    """C's ``round``: to the nearest integer, ties away from zero. Exact below 2^52."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``real ≈ q · 2^(s - 31)`` with ``q`` in [2^30, 2^31), or (0, 0) for a real multiplier too small for ``s >= -31``.

    Raises :class:`QuantizationError` for one that is negative, infinite or not a number.
    """
    if not (math.isfinite(real) and real >= 0):
        raise QuantizationError(f"has scales that make the multiplier {real}: convert the model again")
    if real == 0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    multiplier = round_half_away(mantissa * (1 << 31))
    if multiplier == 1 << 31:
        multiplier //= 2
        shift += 1
    if shift < SHIFT_MINIMUM:
        return 0, 0
    return multiplier, shift


def _requantization(reals: Sequence[float]) -> Requantization:
    pairs = [quantize_multiplier(real) for real in reals]
    largest = max(shift for _, shift in pairs)
    if largest > SHIFT_MAXIMUM:
        raise QuantizationError(
            f"has scales that ask for a multiplier of {max(reals):.6g}, and the engine's largest is {1 << SHIFT_MAXIMUM}: "
            "quantize the model with a representative data set"
        )
    return Requantization(
        multiplier=np.array([multiplier for multiplier, _ in pairs], dtype=np.int32),
        shift=np.array([shift for _, shift in pairs], dtype=np.int32),
        rounding=Rounding.DOUBLE,
    )


def convolution_requantization(input_scale: float, weight_scales: Sequence[float], output_scale: float) -> Requantization:
    """CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: ``double(s_in) · double(s_w) / double(s_out)`` for each channel, or
    for all.

    The product is not rounded to float32, not even in a per-tensor FULLY_CONNECTED, where other builds of these kernels
    do so: ``tests/firmware/numerics/test_convolution_multipliers.py`` has the witnesses.
    """
    return _requantization([input_scale * weight_scale / output_scale for weight_scale in weight_scales])


def lstm_gate_requantization(activation_scale: float, weight_scales: Sequence[float]) -> Requantization:
    """Requantization of a gate's products, with the input or with the hidden state, to Q3.12.

    Its factor is ``double(s) · double(s_w) · 2^12`` for each gate.

    The product is not rounded to float32 (``test_lstm_gates_keep_the_product_in_double``).
    """
    return _requantization([activation_scale * weight_scale * (1 << _GATE_FRACTION_BITS) for weight_scale in weight_scales])


def lstm_hidden_requantization(hidden_scale: float) -> Requantization:
    """Requantization of the output gate times tanh of the cell state, both Q0.15, to the hidden state.

    Its factor is ``2^-30 / double(s_h)``.
    """
    return _requantization([2.0 ** (-2 * _GATE_OUTPUT_FRACTION_BITS) / hidden_scale])


def lstm_cell_exponent(cell_scale: float) -> int:
    """log2 of the cell state's scale.

    Raises :class:`QuantizationError` for one that is not a power of two from 2^-15 to 2^-9. TFLM would round the
    logarithm, for its tanh only; its converters write powers of two.
    """
    mantissa, exponent = math.frexp(cell_scale)
    if mantissa != 0.5 or exponent - 1 not in CELL_EXPONENTS:
        raise QuantizationError(
            f"has a cell state of scale {cell_scale:.6g}, which is no power of two from 2^{CELL_EXPONENTS.start} to "
            f"2^{CELL_EXPONENTS.stop - 1}: quantize the model with a representative data set"
        )
    return exponent - 1


def lstm_cell_clip(clip: float, cell_scale: float) -> int:
    """The cell clip in units of the cell state: the truncated quotient, at most 32767; 0 for no clip, which is what a
    model's clip of 0 or less means.

    Raises :class:`QuantizationError` for one below a unit, which would hold the cell state at zero.
    """
    if not clip > 0:
        return 0
    quantized = math.trunc(min(clip / cell_scale, float(_INT16_MAX)))
    if not quantized:
        raise QuantizationError(
            f"has a cell clip of {clip:.6g}, below one step of the cell state ({cell_scale:.6g}): remove it or make it larger"
        )
    return quantized


def quantized_bound(bound: float, scale: float, zero_point: int) -> int:
    """An activation's bound as an integer, not yet clamped to int8: a float32 quotient, rounded half away from zero."""
    quotient = bound / scale
    if not abs(quotient) < 1 << 30:
        raise QuantizationError(
            f"has a scale of {scale:.6g}, too small for an activation bounded by {bound:g}: convert the model again"
        )
    # A double quotient rounded to float32 equals the float32 quotient (53 bits are more than 2·24 + 1).
    return zero_point + round_half_away(float(np.float32(quotient)))


def activation_range(activation: Activation, scale: float, zero_point: int) -> tuple[int, int]:
    """Clamp of a kernel's int8 output, for a fused activation."""
    lower, upper = activation.real_range
    minimum = INT8_MIN if math.isinf(lower) else quantized_bound(lower, scale, zero_point)
    maximum = INT8_MAX if math.isinf(upper) else quantized_bound(upper, scale, zero_point)
    return max(INT8_MIN, minimum), min(INT8_MAX, maximum)


def requantize(values: npt.ArrayLike, multiplier: int, shift: int) -> npt.NDArray[np.int64]:
    """REQ of ``docs/numerics.md`` in mode DOUBLE, for tables made on the host. ``values << max(shift, 0)`` must fit
    int32."""
    shifted = np.asarray(values, dtype=np.int64) << max(shift, 0)
    return rounding_divide_by_power_of_two(doubling_high_multiply(shifted, multiplier), max(-shift, 0))


def add_parameters(
    scales: tuple[float, float], zero_points: tuple[int, int], output_scale: float
) -> tuple[tuple[Int32Array, Int32Array], Requantization]:
    """ADD as two int32[256] tables and the requantization of the sum of two entries.

    Operand ``i`` contributes ``REQ((x - z_i) << 20)`` with multiplier ``s_i / (2·max(s_0, s_1))``; the sum has the
    multiplier ``2·max(s_0, s_1) / (2^20 · s_out)``, which TFLM demands to be below 1.
    """
    twice_maximum = 2 * max(scales)
    output_multiplier = twice_maximum / ((1 << _ADD_LEFT_SHIFT) * output_scale)
    output = _requantization([output_multiplier])
    if output.shift[0] > 0:
        raise QuantizationError(
            f"has an output scale of {output_scale:.6g}, too small for its inputs' scales {scales[0]:.6g} and {scales[1]:.6g}: "
            "quantize the model with a representative data set"
        )
    tables = [
        requantize((TABLE_DOMAIN - zero_point) << _ADD_LEFT_SHIFT, *quantize_multiplier(scale / twice_maximum)).astype(np.int32)
        for scale, zero_point in zip(scales, zero_points, strict=True)
    ]
    return (tables[0], tables[1]), output
