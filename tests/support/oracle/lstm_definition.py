"""TFLM's LSTM cell transcribed: gemmlowp's roundings by nudge and remainder, the two functions in Python's integers.

It shares only the table with the packages' own models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.sigmoid import SIGMOID_TABLE

Int64Array = npt.NDArray[np.int64]

#: log2 of the scales that a cell state may have.
EXPONENTS = tuple(range(-15, -8))
#: Every value of 16 bits.
INT16 = np.arange(-(1 << 15), 1 << 15)


def _lookup(magnitude: int, bits: int) -> int:
    index, fraction = divmod(magnitude, 1 << bits)
    if index >= 255:
        return (0x7FFF << 10) if bits == 9 else (0xFFFF << 8)
    lower, upper = SIGMOID_TABLE[index], SIGMOID_TABLE[index + 1]
    return (lower << bits) + fraction * (upper - lower)


def sigmoid_definition(x: int) -> int:
    """Q3.12 to Q0.15."""
    value = _lookup(abs(3 * x), 9)
    value = value + (1 << 9) if x >= 0 else (1 << (16 + 9)) - value + (1 << 9) - 1
    return value >> 10


def tanh_definition(x: int, exponent: int) -> int:
    """From the scale ``2^exponent`` to Q0.15."""
    left = 15 + exponent - 3
    scaled = x * (3 << left) if left >= 0 else (x * 3 + (1 << (-left - 1))) >> -left
    value = _lookup(abs(scaled), 8)
    value = value - (1 << 23) + (1 << 7) if scaled >= 0 else -value + (1 << 23) + (1 << 7) - 1
    return value >> 8


#: The functions of :data:`INT16`: index 0 belongs to -32768.
SIGMOIDS = np.array([sigmoid_definition(int(x)) for x in INT16])
TANHS = {exponent: np.array([tanh_definition(int(x), exponent) for x in INT16]) for exponent in EXPONENTS}


def _high_multiply(a: Int64Array, b: Int64Array | int) -> Int64Array:
    """gemmlowp's SaturatingRoundingDoublingHighMul: truncated towards zero after a nudge."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))


def divide_by_power(x: Int64Array, exponent: Int64Array | int) -> Int64Array:
    """gemmlowp's RoundingDivideByPOT."""
    mask = (np.int64(1) << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def rescale(x: Int64Array, multiplier: Int64Array | int, shift: Int64Array | int) -> Int64Array:
    """TFLM's MultiplyByQuantizedMultiplier."""
    return divide_by_power(_high_multiply(x << np.maximum(shift, 0), multiplier), np.maximum(-np.asarray(shift), 0))


def saturated(x: Int64Array) -> Int64Array:
    """To int16."""
    return np.minimum(np.maximum(x, -32768), 32767)


def step_definition(
    pre: Int64Array, c: Int64Array, *, exponent: int, clip: int, multiplier: int, shift: int, zero_point: int
) -> tuple[Int64Array, Int64Array]:
    """Hidden state and cell state from preactivations ``(..., 4)`` and the cell state before."""
    i, f, o = (SIGMOIDS[pre[..., gate] + 32768] for gate in (0, 1, 3))
    g = TANHS[-12][pre[..., 2] + 32768]
    cell = saturated(saturated(rescale(f * c, 1 << 30, -14)) + saturated(rescale(i * g, 1 << 30, -15 - 15 - exponent + 1)))
    if clip:
        cell = np.minimum(np.maximum(cell, -clip), clip)
    hidden = rescale(o * TANHS[exponent][cell + 32768], multiplier, shift) + zero_point
    return np.minimum(np.maximum(hidden, -128), 127), cell
