"""Requantization with a chosen multiplier, for tests that compare formulas which differ in their last bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.numerics.quantization import quantize_multiplier, requantize
from systola_firmware.numerics.requantization import Requantization

Int64Array = npt.NDArray[np.int64]


def single(value: float) -> float:
    """``value`` rounded to float32."""
    return float(np.float32(value))


def rescaled(sums: npt.ArrayLike, real: float) -> Int64Array:
    """Sums requantized by a real multiplier and clamped to int8."""
    return np.clip(requantize(sums, *quantize_multiplier(real)), -128, 127)


def rescaled_by(sums: npt.ArrayLike, by: Requantization) -> Int64Array:
    """Sums requantized as a layer does it, clamped to int8: one multiplier for all, or one for each index of the last
    axis."""
    pairs = list(zip(by.multiplier.tolist(), by.shift.tolist(), strict=True))
    if len(pairs) == 1:
        return np.clip(requantize(sums, *pairs[0]), -128, 127)
    columns = np.moveaxis(np.asarray(sums), -1, 0)
    scaled = [requantize(column, *pair) for column, pair in zip(columns, pairs, strict=True)]
    return np.clip(np.stack(scaled, axis=-1), -128, 127)
