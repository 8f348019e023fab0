"""What a user hands over as input, checked and cut into single inferences; and real values against quantized ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola.errors import InputError
from systola_firmware.spec.program import Binding

__all__ = ["Batch", "FloatArray", "Int8Array", "dequantize", "quantize", "split_batch"]

Int8Array = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Inputs of N inferences: ``items[n][i]`` is input ``i`` of inference ``n``; ``stacked`` if they came on a leading
    axis."""

    items: list[list[Int8Array]]
    stacked: bool


def quantize(values: npt.ArrayLike, scale: float, zero_point: int) -> Int8Array:
    """``clamp(round(values / scale) + zero_point)`` to int8, ties away from zero as TensorFlow Lite's QUANTIZE does, in
    float32."""
    scaled = np.asarray(values, dtype=np.float32) / np.float32(scale)
    # In float64, where adding a half to any float32 is exact.
    rounded = np.trunc(scaled.astype(np.float64) + np.copysign(0.5, scaled))
    # A quotient beyond 2^31 saturates all the same: clip before the conversion, which would wrap.
    quantized: Int8Array = np.clip(rounded + zero_point, -128, 127).astype(np.int8)
    return quantized


def dequantize(values: Int8Array, scale: float, zero_point: int) -> FloatArray:
    """``scale * (values - zero_point)`` in float32."""
    return np.float32(scale) * (values.astype(np.int32) - zero_point).astype(np.float32)


def split_batch(
    x: npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]], inputs: Sequence[Binding], *, float_io: bool = False
) -> Batch:
    """Check ``x`` against the model's ``inputs`` and cut it up; real values are quantized if ``float_io``.

    Raises :class:`~systola.errors.InputError`, one sentence, for an unknown or missing name, a wrong shape or type,
    NaN, or unequal N.
    """
    named = _by_name(x, inputs)
    columns = []
    for binding in inputs:
        values = _typed(np.asarray(named[binding.name]), binding, float_io)
        if values.shape == binding.shape:
            columns.append((False, values[np.newaxis]))
        elif values.shape[1:] == binding.shape and values.ndim == len(binding.shape) + 1:
            columns.append((True, values))
        else:
            several = ["N", *binding.shape]
            raise InputError(
                f"input {binding.name!r} has the shape {_shape(binding.shape)}, or {_shape(several)} for several inferences, "
                f"but {_shape(values.shape)} was given"
            )
    if len({(stacked, len(column)) for stacked, column in columns}) > 1:
        raise InputError(
            f"the inputs are for different numbers of inferences: {', '.join(str(len(column)) for _, column in columns)}"
        )
    stacked, first = columns[0]
    if not len(first):
        raise InputError("the leading axis of the input is empty: there is nothing to run")
    return Batch([[column[n] for _, column in columns] for n in range(len(first))], stacked)


def _shape(sizes: Sequence[object]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _by_name(
    x: npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]], inputs: Sequence[Binding]
) -> Mapping[str, npt.NDArray[np.generic]]:
    names = [binding.name for binding in inputs]
    if not isinstance(x, Mapping):
        if len(inputs) != 1:
            raise InputError(f"the model has {len(inputs)} inputs: give an array for each of {', '.join(names)}")
        return {names[0]: x}
    if set(x) != set(names):
        raise InputError(f"the model's inputs are {', '.join(names)}, but {', '.join(sorted(x)) or 'none'} was given")
    return x


def _typed(values: npt.NDArray[np.generic], binding: Binding, float_io: bool) -> Int8Array:
    if not float_io:
        if values.dtype != np.int8:
            raise InputError(
                f"input {binding.name!r} is int8, but {values.dtype} was given: "
                "convert it, or use float mode (--float, float_io) for real values"
            )
        return values.astype(np.int8, copy=False)
    if not (np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)):
        raise InputError(f"input {binding.name!r} takes real numbers, but {values.dtype} was given")
    real = values.astype(np.float32)
    if np.isnan(real).any():
        raise InputError(f"input {binding.name!r} contains NaN")
    return quantize(real, binding.scale, binding.zero_point)
