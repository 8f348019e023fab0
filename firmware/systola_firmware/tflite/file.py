"""A ``.tflite`` file as plain, checked Python values.

This is the only module that touches the generated flatbuffer accessors. They trust their input: on a damaged file they
raise anything, or return nonsense. So everything the compiler wants is read here, once, under one guard, with every
index and count checked; a damaged file gives :class:`~systola_firmware.errors.ModelFileError` and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from systola_firmware.errors import ModelFileError, UnsupportedModel

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

#: Most tensors, operators or buffers of a file: far above any model for this engine, and quickly read.
_COUNT_LIMIT = 1 << 14
_RANK_LIMIT = 8
_NAME_LIMIT = 2048

#: What the generated accessors and numpy raise when offsets and lengths are nonsense.
_DAMAGE = (struct.error, ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, UnicodeError, MemoryError)

Options = Mapping[str, Any]

_CONVOLUTION = ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", "FusedActivationFunction")
_POOL = ("Padding", "StrideW", "StrideH", "FilterWidth", "FilterHeight", "FusedActivationFunction")

#: For each operator with options that the compiler reads: its options table and the fields wanted.
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", _POOL),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": ("Conv2DOptions", _CONVOLUTION),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_CONVOLUTION, "DepthMultiplier")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "MAX_POOL_2D": ("Pool2DOptions", _POOL),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "PACK": ("PackOptions", ("ValuesCount", "Axis")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "STRIDED_SLICE": ("StridedSliceOptions", ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset")),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "UnidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "CellClip", "ProjClip", "TimeMajor", "DiagonalRecurrentTensors"),
    ),
}


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_OPERATOR_NAMES = _names(tflite.BuiltinOperator)
_TYPE_NAMES = {code: name.lower() for code, name in _names(tflite.TensorType).items()}
_OPTIONS_NAMES = _names(tflite.BuiltinOptions)


@dataclass(frozen=True)
class FileTensor:
    """A tensor as the file states it. ``dtype`` is the schema's name in lower case; ``data`` is None for a computed
    tensor."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[np.uint8] | None = field(repr=False, compare=False)
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int  #: the quantized dimension
    sparse: bool
    variable: bool

    @property
    def elements(self) -> int:
        """Product of the shape, 1 for a scalar."""
        return math.prod(self.shape)

    def array(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The constant's values in its shape. Raises :class:`ModelFileError` if their number does not fit the shape."""
        wanted = self.elements * np.dtype(dtype).itemsize
        data = np.zeros(0, dtype=np.uint8) if self.data is None else self.data
        if data.size != wanted:
            raise ModelFileError(
                f"tensor {self.name!r} (number {self.index}) holds {data.size} bytes where its shape {list(self.shape)} "
                f"needs {wanted}: the file is damaged, get it again"
            )
        return np.frombuffer(data.tobytes(), dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(self.shape)


@dataclass(frozen=True)
class FileOperator:
    """An operator: ``name`` as in the schema, tensor numbers (an input that is left out is -1), options by their schema
    names."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options


@dataclass(frozen=True)
class ModelFile:
    """The one subgraph of a model."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(data: bytes) -> ModelFile:
    """Parse a file's bytes.

    Raises :class:`ModelFileError` for something that is not a ``.tflite`` file or is damaged, and
    :class:`UnsupportedModel` for several subgraphs or weights stored outside the flatbuffer.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelFileError("this is not a .tflite file: its identifier is not TFL3")
    try:
        return _read(tflite.Model.GetRootAs(data, 0))
    except _DAMAGE as error:
        raise ModelFileError(f"the .tflite file is damaged or cut off ({error}): get it again") from error


def _count(length: int, what: str) -> int:
    if not 0 <= length <= _COUNT_LIMIT:
        raise ValueError(f"it claims {length} {what}")
    return length


def _each(length: int, get: Callable[[int], Any], what: str) -> Iterator[Any]:
    return (get(position) for position in range(_count(length, what)))


def _vector(values: Any, limit: int, what: str) -> list[Any]:
    """A numpy view, or 0 for a vector that is absent, as a list."""
    if isinstance(values, int):
        return []
    if len(values) > limit:
        raise ValueError(f"it claims {len(values)} {what}")
    return list(values.tolist())


def _text(raw: bytes | None) -> str:
    if len(raw or b"") > _NAME_LIMIT:
        raise ValueError("a name does not end")
    return (raw or b"").decode("utf-8", errors="replace").replace("\n", " ")


def _read(model: Any) -> ModelFile:
    if model.Version() != SCHEMA_VERSION:
        raise ValueError(f"schema version {model.Version()}, not {SCHEMA_VERSION}")
    buffers = list(_each(model.BuffersLength(), model.Buffers, "buffers"))
    codes = [_operator_name(code) for code in _each(model.OperatorCodesLength(), model.OperatorCodes, "operator codes")]
    subgraphs = _count(model.SubgraphsLength(), "subgraphs")
    if subgraphs != 1:
        raise UnsupportedModel(
            f"the model has {subgraphs} subgraphs: convert it without control flow, into one "
            "(a recurrent layer of Keras 3 becomes a loop, that of tf_keras one operator)"
        )
    graph = model.Subgraphs(0)
    tensors = _with_unique_names(
        _tensor(index, tensor, buffers) for index, tensor in enumerate(_each(graph.TensorsLength(), graph.Tensors, "tensors"))
    )
    operators = tuple(
        _operator(index, operator, codes, len(tensors))
        for index, operator in enumerate(_each(graph.OperatorsLength(), graph.Operators, "operators"))
    )
    return ModelFile(
        tensors,
        operators,
        _indices(graph.InputsAsNumpy(), len(tensors), "inputs"),
        _indices(graph.OutputsAsNumpy(), len(tensors), "outputs"),
    )


def _with_unique_names(tensors: Iterator[FileTensor]) -> tuple[FileTensor, ...]:
    """The compiler knows tensors by name, and a file may use one twice: the later ones get their number appended."""
    result: list[FileTensor] = []
    taken: set[str] = set()
    for tensor in tensors:
        name = tensor.name if tensor.name not in taken else f"{tensor.name} #{tensor.index}"
        taken.add(name)
        result.append(dataclasses.replace(tensor, name=name))
    return tuple(result)


def _indices(values: Any, tensors: int, what: str, *, optional: bool = False) -> tuple[int, ...]:
    indices = tuple(_vector(values, _COUNT_LIMIT, what))
    for index in indices:
        if not (0 <= index < tensors or (optional and index == -1)):
            raise ValueError(f"tensor number {index} among the {what} where there are {tensors}")
    return indices


def _operator_name(code: Any) -> str:
    # Codes above 127 came later: the byte field holds 127 for them, the int field 0 in files older than it.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == tflite.BuiltinOperator.CUSTOM:
        return f"CUSTOM {_text(code.CustomCode())}"
    return _OPERATOR_NAMES.get(number, f"number {number}")


def _operator(index: int, operator: Any, codes: list[str], tensors: int) -> FileOperator:
    name = codes[operator.OpcodeIndex()]
    return FileOperator(
        index,
        name,
        _indices(operator.InputsAsNumpy(), tensors, f"inputs of operator {index}", optional=True),
        _indices(operator.OutputsAsNumpy(), tensors, f"outputs of operator {index}"),
        _options(operator, name),
    )


def _options(operator: Any, name: str) -> Options:
    """The wanted fields; none at all if the operator carries no options table."""
    stored = _OPTIONS_NAMES.get(operator.BuiltinOptionsType(), "an unknown type")
    if name not in _OPTIONS or stored == "NONE":
        return {}
    expected, fields = _OPTIONS[name]
    if stored != expected:
        raise ValueError(f"{name} with options of {stored}")
    union = operator.BuiltinOptions()
    table = getattr(tflite, expected)()
    table.Init(union.Bytes, union.Pos)
    return {field: getattr(table, field)() for field in fields}


def _tensor(index: int, tensor: Any, buffers: list[Any]) -> FileTensor:
    name = _text(tensor.Name()) or f"tensor {index}"
    buffer = buffers[tensor.Buffer()]
    if buffer.Offset() > 1:  # 0 and 1 mean: in the flatbuffer
        raise UnsupportedModel(f"tensor {name!r} keeps its data outside the flatbuffer: convert the model into a file below 2 GB")
    data = buffer.DataAsNumpy()
    quantization = tensor.Quantization()
    scales, zero_points, axis = [], [], 0
    if quantization is not None:
        scales = _vector(quantization.ScaleAsNumpy(), 1 << 20, "scales")
        zero_points = _vector(quantization.ZeroPointAsNumpy(), 1 << 20, "zero points")
        axis = quantization.QuantizedDimension()
    return FileTensor(
        index,
        name,
        tuple(_vector(tensor.ShapeAsNumpy(), _RANK_LIMIT, "dimensions")),
        _TYPE_NAMES.get(tensor.Type(), f"type {tensor.Type()}"),
        None if isinstance(data, int) or not len(data) else data,
        tuple(scales),
        tuple(zero_points),
        axis,
        tensor.Sparsity() is not None,
        bool(tensor.IsVariable()),
    )
