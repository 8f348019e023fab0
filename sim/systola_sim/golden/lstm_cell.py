"""One step of an LSTM's hidden units, as TFLM's int8 kernel computes it: int16 gates and cell state, int8 hidden state.

Everything works element by element on arrays of any shape, and every rescaling is
:func:`systola_sim.golden.requantize.requantize`. Numbers are in Q notation: Q0.15 is ``value / 2^15`` in 16 bits, Q3.12
is ``value / 2^12``. ``docs/numerics.md`` has the formulas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.isa import CELL_EXPONENT_MAXIMUM, CELL_EXPONENT_MINIMUM, GATES
from systola_firmware.spec.sigmoid import SIGMOID_TABLE
from systola_sim.golden.requantize import clamp, requantize

__all__ = [
    "GATE_EXPONENT",
    "cell_step",
    "preactivation",
    "saturate",
    "sigmoid",
    "tanh",
]

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]

#: log2 of the scale of a preactivation (Q3.12).
GATE_EXPONENT = -12

#: Multiplier of REQ that is exactly one half, so REQ by it and shift s is a factor of 2^(s-1), rounded twice.
_HALF = 1 << 30

_TABLE = np.array(SIGMOID_TABLE, dtype=np.int32)
_SLOPE = np.diff(_TABLE)
#: Segments between entries of the table; from the last entry on the functions are constant.
_SEGMENTS = _SLOPE.size


def saturate(values: Int32Array) -> Int32Array:
    """Clamp to the range of int16."""
    return np.clip(values, -(1 << 15), (1 << 15) - 1)


def _interpolate(magnitude: Int32Array, fraction_bits: int, end: int) -> Int32Array:
    """The table at ``magnitude / 2^fraction_bits`` with ``fraction_bits`` bits more than its entries; ``end`` beyond
    its last."""
    segment = magnitude >> fraction_bits
    inside = np.minimum(segment, _SEGMENTS - 1)
    fraction = magnitude & ((1 << fraction_bits) - 1)
    between = (_TABLE[inside] << fraction_bits) + fraction * _SLOPE[inside]
    return np.where(segment >= _SEGMENTS, np.int32(end), between)


def sigmoid(x: npt.ArrayLike) -> Int32Array:
    """The logistic function of a Q3.12 ``x`` (int16 range), Q0.15: 11 to 32757."""
    scaled = np.asarray(x, dtype=np.int32) * 3  # the table has 24 entries a unit, and 3 · 2^12 = 24 · 2^9
    value = _interpolate(np.abs(scaled), 9, 0x7FFF << 10)
    return np.where(scaled >= 0, value + 512, (1 << 25) + 511 - value) >> 10


def tanh(x: npt.ArrayLike, exponent: int) -> Int32Array:
    """The hyperbolic tangent of ``x * 2^exponent`` (``x`` in int16 range, ``exponent`` -15 to -9), Q0.15: -32767 to
    32767."""
    values = np.asarray(x, dtype=np.int32) * 3
    left = exponent - GATE_EXPONENT
    scaled = values << left if left >= 0 else (values + (1 << (-left - 1))) >> -left
    value = _interpolate(np.abs(scaled), 8, 0xFFFF << 8) - (1 << 23)  # tanh(x) = 2 · sigmoid(2x) - 1
    return np.where(scaled >= 0, value + 128, 127 - value) >> 8


def preactivation(input_part: npt.ArrayLike, sums: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Int32Array:
    """The argument of a gate's function: ``saturate(input_part + saturate(REQ(sums)))``, Q3.12.

    Parameters
    ----------
    input_part:
        int16 values: the products with the step's input, requantized and saturated.
    sums:
        int32 values: the products with the hidden state of the step before.
    multiplier, shift:
        REQ's, which broadcast against ``sums``.
    """
    return saturate(np.asarray(input_part, dtype=np.int32) + saturate(requantize(sums, multiplier, shift)))


def cell_step(
    pre: npt.NDArray[np.signedinteger],
    c: npt.ArrayLike,
    *,
    exponent: int,
    clip: int,
    multiplier: int,
    shift: int,
    zero_point: int,
) -> tuple[Int8Array, Int16Array]:
    """New hidden and cell state of units.

    Parameters
    ----------
    pre:
        Preactivations ``(..., 4)``, Q3.12 in int16 range, along the last axis in the order of :data:`GATES`.
    c:
        Cell state ``(...)`` of the step before, in int16 range.
    exponent:
        log2 of the cell state's scale, -15 to -9.
    clip:
        The cell state is clamped to ``±clip``; 0 for no clamp.
    multiplier, shift, zero_point:
        Of the hidden state: REQ's factor, from the scale 2^-30, and the zero point.

    Returns
    -------
    Hidden state int8 and cell state int16, both ``(...)``.

    Raises
    ------
    ValueError
        If ``exponent`` is outside its range or ``pre`` does not have four gates.
    """
    if not CELL_EXPONENT_MINIMUM <= exponent <= CELL_EXPONENT_MAXIMUM:
        raise ValueError(f"exponent must be from {CELL_EXPONENT_MINIMUM} to {CELL_EXPONENT_MAXIMUM}, not {exponent}")
    if pre.shape[-1] != len(GATES):
        raise ValueError(f"pre must have {len(GATES)} gates along its last axis, not {pre.shape[-1]}")
    input_gate, forget_gate, output_gate = np.moveaxis(sigmoid(pre[..., (0, 1, 3)]), -1, 0)
    candidate = tanh(pre[..., 2], GATE_EXPONENT)
    kept = requantize(forget_gate * np.asarray(c, dtype=np.int32), _HALF, -14)  # 2^-15: the gate's scale
    added = requantize(input_gate * candidate, _HALF, -29 - exponent)  # from 2^-30 to the cell state's scale
    cell = saturate(kept + added)  # TFLM saturates each of them too, but a factor of at most 2^-15 has kept both within int16
    if clip:
        cell = np.clip(cell, -clip, clip)
    hidden = requantize(output_gate * tanh(cell, exponent), multiplier, shift)
    return clamp(hidden, zero_point, -128, 127), cell.astype(np.int16)
