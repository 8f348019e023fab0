"""Write ``.tflite`` files without TensorFlow, through the object API of the schema that TFLM's wheel carries.

model = ModelBuilder()
x = model.activation((1, 8, 8, 3), scale=0.05, zero_point=3)
y = model.activation((1, 8, 8, 3), scale=0.05, zero_point=3)
model.operator("RELU6", [x], [y])
data = model.finish([x], [y])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

#: The options table of each operator that has one.
OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
}

_TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
}

_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH")


def activation_code(name: str) -> int:
    """The schema's number of a fused activation, e.g. ``"RELU6"``. Raises ``ValueError`` for an unknown name."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(_ACTIVATIONS)}")
    return int(getattr(schema.ActivationFunctionType, name))


def padding_code(name: str) -> int:
    """The schema's number of SAME or VALID."""
    return int(getattr(schema.Padding, name))


class ModelBuilder:
    """One subgraph, built tensor by tensor and operator by operator.

    ``model`` and ``graph`` are the schema's objects: a test that wants a strange model changes them before
    :meth:`finish`.
    """

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.name = "main"
        self.graph.tensors = []
        self.graph.operators = []
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "test model"
        self.model.subgraphs = [self.graph]
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]  # buffer 0 is empty by convention

    def tensor(
        self,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        scale: Any = None,
        zero_point: Any = 0,
        axis: int = 0,
        data: npt.ArrayLike | None = None,
        variable: bool = False,
        name: str | None = None,
    ) -> int:
        """Add a tensor and return its number.

        ``scale`` is one number or one for each index of ``axis``; ``zero_point`` likewise (one number is repeated).
        ``data`` makes it a constant, ``variable`` one that lives from one inference to the next.
        """
        tensor = schema.TensorT()
        tensor.shape = [int(size) for size in shape]
        tensor.type = _TYPES[np.dtype(dtype)]
        tensor.name = name or f"tensor_{len(self.graph.tensors)}"
        tensor.buffer = 0
        tensor.isVariable = variable
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype=dtype).tobytes(), dtype=np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, dtype=np.float32))
            quantization = schema.QuantizationParametersT()
            quantization.scale = [float(value) for value in scales]
            quantization.zeroPoint = [int(value) for value in np.broadcast_to(np.asarray(zero_point), scales.shape)]
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def activation(self, shape: Sequence[int], scale: float, zero_point: int, *, name: str | None = None) -> int:
        """Add an int8 tensor that is computed."""
        return self.tensor(shape, np.int8, scale=scale, zero_point=zero_point, name=name)

    def constant(
        self, data: npt.NDArray[Any], *, scale: Any = None, zero_point: Any = 0, axis: int = 0, name: str | None = None
    ) -> int:
        """Add a constant of ``data``'s shape and type."""
        return self.tensor(data.shape, data.dtype, scale=scale, zero_point=zero_point, axis=axis, data=data, name=name)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 3,
        intermediates: Sequence[int] = (),
        **options: Any,
    ) -> None:
        """Add an operator. ``options`` are fields of its options table by their schema names, e.g. ``strideW=2``."""
        code = int(getattr(schema.BuiltinOperator, name))
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = code
        operator_code.deprecatedBuiltinCode = min(code, 127)
        operator_code.version = version
        self.model.operatorCodes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = list(inputs)
        operator.outputs = list(outputs)
        operator.intermediates = list(intermediates)
        if name in OPTIONS:
            table = getattr(schema, OPTIONS[name] + "T")()
            for field, value in options.items():
                if not hasattr(table, field):
                    raise ValueError(f"{OPTIONS[name]} has no field {field!r}")
                setattr(table, field, value)
            operator.builtinOptions = table
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[name])
        elif options:
            raise ValueError(f"{name} has no options table here")
        self.graph.operators.append(operator)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file's bytes."""
        self.graph.inputs = list(inputs)
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
