"""Fold the integer operators with which a converter computes shapes: SHAPE → STRIDED_SLICE → PACK → RESHAPE and the
like.

All shapes of a compiled model are known, so these have one answer. Values are int64 arrays of at most
:data:`LIMIT` elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from systola_firmware.tflite.file import FileTensor, ModelFile
from systola_firmware.tflite.operator import OperatorReader

Int64Array = npt.NDArray[np.int64]

INTEGER_TYPES = {"int32": np.int32, "int64": np.int64}

#: Most elements of a folded tensor: shapes are short, and anything long is not a shape.
LIMIT = 4096


def integer_constants(model: ModelFile) -> dict[int, Int64Array]:
    """The short integer constants of a model by tensor number. Raises ``ModelFileError`` for a wrong number of
    bytes."""
    return {
        tensor.index: tensor.array(INTEGER_TYPES[tensor.dtype]).astype(np.int64)
        for tensor in model.tensors
        if tensor.data is not None and tensor.dtype in INTEGER_TYPES and 0 < tensor.elements <= LIMIT
    }


def is_integer(tensor: FileTensor) -> bool:
    """Whether a tensor takes part in shape arithmetic rather than in the network."""
    return tensor.dtype in INTEGER_TYPES


def fold(reader: OperatorReader, model: ModelFile) -> Int64Array:
    """The value of an integer operator's only output.

    Raises ``UnsupportedOperator`` for an operator that is not known here or that depends on run-time values, and
    ``ModelFileError`` for one that contradicts itself.
    """
    operator = reader.operator
    if operator.name == "SHAPE":
        return np.array(model.tensors[operator.inputs[0]].shape, dtype=np.int64)
    if operator.name not in _FOLDERS:
        raise reader.refuse("computes integers, which is only supported for shape arithmetic: remove it from the model")
    values = [reader.integers(position) for position in range(len(operator.inputs))]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        raise reader.refuse("computes with integers that are only known at run time: convert the model with fixed sizes")
    if sum(value.size for value in known) > LIMIT:
        raise reader.refuse("computes with long integer tensors, which is only supported for shapes: remove it from the model")
    try:
        result = _FOLDERS[operator.name](reader, known)
    except (IndexError, ValueError, OverflowError) as error:
        raise reader.damaged(f"cannot be computed ({error})") from error
    if result.size > LIMIT:
        raise reader.refuse("makes a long integer tensor, which is only supported for shapes: remove it from the model")
    return result


def _strided_slice(reader: OperatorReader, values: list[Int64Array]) -> Int64Array:
    source, begin, end, step = values
    if source.ndim != 1 or reader.option("EllipsisMask") or reader.option("NewAxisMask") or reader.option("Offset"):
        raise reader.refuse("slices more than a vector of sizes, which is not supported")
    start, stop, stride = (int(value.reshape(-1)[0]) for value in (begin, end, step))
    if reader.option("ShrinkAxisMask") & 1:
        return np.asarray(source[start])
    return source[None if reader.option("BeginMask") & 1 else start : None if reader.option("EndMask") & 1 else stop : stride]


def _pack(reader: OperatorReader, values: list[Int64Array]) -> Int64Array:
    return np.stack(values, axis=reader.option("Axis"))


def _concatenation(reader: OperatorReader, values: list[Int64Array]) -> Int64Array:
    return np.concatenate(values, axis=reader.option("Axis"))


def _gather(reader: OperatorReader, values: list[Int64Array]) -> Int64Array:
    if reader.option("BatchDims"):
        raise reader.refuse("gathers in batches, which is not supported for shapes")
    result: Int64Array = np.take(values[0], values[1], axis=reader.option("Axis"))
    return result


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[OperatorReader, list[Int64Array]], Int64Array]:
    def fold_binary(_reader: OperatorReader, values: list[Int64Array]) -> Int64Array:
        first, second = values
        # A shape's arithmetic is int32 in the model: it wraps there, so it may here.
        return np.asarray(function(first, second)).astype(np.int32).astype(np.int64)

    return fold_binary


_FOLDERS: Mapping[str, Callable[[OperatorReader, list[Int64Array]], Int64Array]] = {
    "ADD": _binary(np.add),
    "CONCATENATION": _concatenation,
    "GATHER": _gather,
    "MUL": _binary(np.multiply),
    "PACK": _pack,
    "STRIDED_SLICE": _strided_slice,
}

#: Operators that are folded.
OPERATORS = ("SHAPE", *_FOLDERS)
