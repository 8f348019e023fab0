"""REQ: an int32 accumulator times a real factor below 64, to an integer, in each of the engine's rounding modes.

The factor is ``multiplier * 2**(shift - 31)``; ``multiplier`` is 0 or in ``[2**30, 2**31)`` and ``shift`` in −31…6.
Everything is computed in int64, in which no intermediate value can overflow: |accumulator · multiplier| ≤ 2^62 and
every rounding term ≤ 2^61.

The modes are those of :class:`systola_firmware.spec.isa.Rounding`; each one names the library whose arithmetic it
repeats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.isa import SHIFT_MAXIMUM, SHIFT_MINIMUM, Rounding

__all__ = ["clamp", "requantize", "wrap32"]

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def wrap32(values: npt.ArrayLike) -> Int32Array:
    """The low 32 bits of integers, read as two's complement."""
    return np.asarray(values, dtype=np.int64).astype(np.int32)


#: The number 1 with a type: NumPy's stubs would give a bare Python integer the narrowest width.
_ONE = np.int64(1)


def _high_multiply(values: Int64Array, multiplier: Int64Array, shift: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """``(values << max(shift, 0)) * multiplier / 2**31``, half up; then the right shift that remains, and half its
    unit."""
    shifted = wrap32(values << np.maximum(shift, 0)).astype(np.int64)
    right = np.maximum(-shift, 0)
    return (shifted * multiplier + (_ONE << 30)) >> 31, right, (_ONE << right) >> 1


def _double(values: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """gemmlowp, and so TFLM and LiteRT's reference kernels: a second rounding, half away from zero."""
    product, right, half = _high_multiply(values, multiplier, shift)
    result: Int64Array = np.right_shift(product + half - ((product < 0) & (right > 0)), right)
    return result


def _up(values: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """ruy, and so LiteRT's optimised kernels: a second rounding, half up."""
    product, right, half = _high_multiply(values, multiplier, shift)
    result: Int64Array = np.right_shift(product + half, right)
    return result


def _single(values: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """TFLITE_SINGLE_ROUNDING: the whole product is rounded once, half up."""
    right = 31 - shift
    result: Int64Array = np.right_shift(values * multiplier + (_ONE << (right - 1)), right)
    return result


def _float32(values: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """XNNPACK and onnxruntime: accumulator, scale and product each a float32, then to an integer, all half to even."""
    scale = np.ldexp(multiplier.astype(np.float64), (shift - 31).astype(np.int32)).astype(np.float32)
    result: Int64Array = np.rint(values.astype(np.float32) * scale).astype(np.int64)
    return result


_MODES = {Rounding.DOUBLE: _double, Rounding.SINGLE: _single, Rounding.UP: _up, Rounding.FP32: _float32}


def requantize(
    accumulators: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike, rounding: Rounding = Rounding.DOUBLE
) -> Int32Array:
    """REQ of ``accumulators``.

    Parameters
    ----------
    accumulators:
        int32 values of any shape.
    multiplier, shift:
        Integers that broadcast against ``accumulators``: scalars, or one for each element of the last axis.
    rounding:
        Mode. DOUBLE and UP wrap ``accumulator << max(shift, 0)`` at 32 bits, as the C code on every machine does.

    Returns
    -------
    int32 array of the broadcast shape: the low 32 bits of the result (only a positive shift can exceed them).

    Raises
    ------
    ValueError
        If a shift is outside −31…6.
    """
    exponent = np.asarray(shift, dtype=np.int64)
    if exponent.size and not (exponent.min() >= SHIFT_MINIMUM and exponent.max() <= SHIFT_MAXIMUM):
        raise ValueError(f"shift must be from {SHIFT_MINIMUM} to {SHIFT_MAXIMUM}, not {exponent.min()}..{exponent.max()}")
    values = np.asarray(accumulators, dtype=np.int64)
    return wrap32(_MODES[rounding](values, np.asarray(multiplier, dtype=np.int64), exponent))


def clamp(values: Int32Array, zero_point: int, minimum: int, maximum: int) -> Int8Array:
    """``clamp(values + zero_point, minimum, maximum)`` as int8; the sum is not wrapped."""
    return np.clip(values.astype(np.int64) + zero_point, minimum, maximum).astype(np.int8)
