"""Operators of a ``.tflite`` file as layers of the integer graph; :data:`IMPORTERS` is the list of all that are
supported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Add, Lookup, Pad, Pool, PoolKind, Reshape, Softmax
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.numerics import lookup_tables
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import add_parameters
from systola_firmware.tflite.convolutions import convolution, depthwise_convolution, fully_connected, reshaped
from systola_firmware.tflite.lstm import unidirectional_sequence_lstm
from systola_firmware.tflite.operator import OperatorReader
from systola_firmware.tflite.slice import strided_slice

#: How far TFLM lets the scales of a pooling layer's input and output differ.
_POOL_SCALE_TOLERANCE = 1e-6

_SOFTMAX_SCALE, _SOFTMAX_TOLERANCE, _SOFTMAX_ZERO_POINT = 1 / 256, 0.001 / 256, -128


def _add(reader: OperatorReader) -> list[Layer]:
    first, second, target = reader.input(0), reader.input(1), reader.output()
    tables, requantization = add_parameters((first.scale, second.scale), (first.zero_point, second.zero_point), target.scale)
    before: list[Layer] = []
    operands = []
    for operand in (first, second):
        fitting, layers = _broadcast(reader, operand, target)
        operands.append(fitting)
        before += layers
    minimum, maximum = reader.clamp(target)
    layer = Add(
        reader.name,
        (operands[0], operands[1]),
        target,
        (reader.operator.index,),
        tables=tables,
        requantization=requantization,
        minimum=minimum,
        maximum=maximum,
    )
    return [*before, layer]


def _broadcast(reader: OperatorReader, operand: Tensor, target: Tensor) -> tuple[Tensor, list[Layer]]:
    """The operand in the output's shape: repeated if it is a constant, under another shape if only axes of 1 are
    missing."""
    if operand.shape == target.shape:
        return operand, []
    missing = len(target.shape) - len(operand.shape)
    aligned = (1,) * missing + operand.shape
    if missing < 0 or any(size not in (1, whole) for size, whole in zip(aligned, target.shape, strict=True)):
        raise reader.damaged(f"cannot add the shape {list(operand.shape)} into {list(target.shape)}")
    if operand.constant is not None:
        values = np.ascontiguousarray(np.broadcast_to(operand.constant, target.shape))
        name = f"{operand.name} (broadcast for {reader.operator.index})"
        return Tensor(name, target.shape, operand.scale, operand.zero_point, constant=values), []
    if operand.elements != target.elements:
        raise reader.refuse(
            f"broadcasts the activation {operand.name!r} of the shape {list(operand.shape)} to {list(target.shape)}, "
            "which is not supported: give both operands one shape"
        )
    return reshaped(reader, operand, target.shape, "shaped for")


def _pool(kind: PoolKind) -> Callable[[OperatorReader], list[Layer]]:
    def pool(reader: OperatorReader) -> list[Layer]:
        source, target = reader.input(0), reader.output()
        window = reader.option("FilterHeight"), reader.option("FilterWidth")
        if min(window) < 1:
            raise reader.damaged(f"has the window {window[0]}×{window[1]}")
        stride = reader.pair("Stride")
        padding = reader.window(window, stride)
        if source.shape[3] != target.shape[3]:
            raise reader.damaged(f"makes {target.shape[3]} channels of {source.shape[3]}")
        if abs(source.scale - target.scale) > _POOL_SCALE_TOLERANCE or source.zero_point != target.zero_point:
            raise reader.refuse(
                "has an input and an output of different quantization, which the kernels do not take: convert the model again"
            )
        minimum, maximum = reader.clamp(target)
        return [
            Pool(
                reader.name,
                (source,),
                target,
                (reader.operator.index,),
                kind=kind,
                window=window,
                stride=stride,
                padding=padding,
                minimum=minimum,
                maximum=maximum,
            )
        ]

    return pool


def _pad(reader: OperatorReader) -> list[Layer]:
    """PAD and PADV2 over rows, columns and channels; fewer than four axes are padded as the last ones of four."""
    source, target = reader.input(0), reader.output()
    amounts = reader.integers(1)
    if amounts is None:
        raise reader.refuse("computes its paddings at run time: the engine wants constants")
    rank = len(source.shape)
    if rank > 4 or len(target.shape) != rank:
        raise reader.refuse(f"pads the shape {list(source.shape)} to {list(target.shape)}: the engine pads up to four axes")
    amounts = amounts.reshape(-1, 2)
    expected = tuple(size + int(before) + int(after) for size, (before, after) in zip(source.shape, amounts, strict=False))
    if len(amounts) != rank or expected != target.shape or amounts.min(initial=0) < 0:
        raise reader.damaged(f"has the paddings {amounts.tolist()} from {list(source.shape)} to {list(target.shape)}")
    value = target.zero_point
    if reader.has_input(2):
        filling = reader.input(2)
        if filling.constant is None or filling.elements != 1:
            raise reader.refuse("computes its pad value at run time: the engine wants a constant")
        if (filling.scale, filling.zero_point) != (target.scale, target.zero_point):
            raise reader.refuse("has a pad value in another quantization than its output, which the kernels do not take")
        value = int(filling.constant.reshape(-1)[0])
    full = [(0, 0)] * (4 - rank) + [(int(before), int(after)) for before, after in amounts]
    if any(full[0]):
        raise reader.refuse("pads the batch axis, which is not supported: pad rows, columns or channels")
    padding = Padding(*full[1], *full[2])
    reader.check_size(source, padding)
    image, before_layers = reshaped(reader, source, (1,) * (4 - rank) + source.shape, "as image for")
    wide = target
    after_layers: list[Layer] = []
    if (1,) * (4 - rank) + target.shape != target.nhwc:
        wide = Tensor(
            f"{target.name} (image of {reader.operator.index})", (1,) * (4 - rank) + target.shape, target.scale, target.zero_point
        )
        after_layers = [Reshape(f"{reader.name}_shape", (wide,), target, (reader.operator.index,))]
    layer = Pad(reader.name, (image,), wide, (reader.operator.index,), padding=padding, value=value, channels=full[3])
    return [*before_layers, layer, *after_layers]


def _reshape(reader: OperatorReader) -> list[Layer]:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the output's shape is in the file; a shape operand that is known must agree with
    it."""
    source, target = reader.input(0), reader.output()
    if source.elements != target.elements:
        raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
    shape = reader.integers(1) if reader.operator.name == "RESHAPE" else None
    if shape is not None and not _agrees(shape.reshape(-1).tolist(), target.shape):
        raise reader.damaged(f"has the shape operand {shape.tolist()} and an output of {list(target.shape)}")
    return [Reshape(reader.name, (source,), target, (reader.operator.index,))]


def _agrees(wanted: list[int], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(size in (-1, actual) for size, actual in zip(wanted, shape, strict=True))


def _softmax(reader: OperatorReader) -> list[Layer]:
    source, target = reader.input(0), reader.output()
    if source.shape != target.shape:
        raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
    if abs(target.scale - _SOFTMAX_SCALE) > _SOFTMAX_TOLERANCE or target.zero_point != _SOFTMAX_ZERO_POINT:
        raise reader.refuse("has an output quantization that is not scale 1/256 and zero point -128: convert the model again")
    return [Softmax(reader.name, (source,), target, (reader.operator.index,), beta=float(reader.option("Beta")))]


def _lookup(function: str, table: Callable[[Tensor, Tensor], Int8Array]) -> Callable[[OperatorReader], list[Layer]]:
    def lookup(reader: OperatorReader) -> list[Layer]:
        source, target = reader.input(0), reader.output()
        if source.shape != target.shape:
            raise reader.damaged(f"makes the shape {list(target.shape)} of {list(source.shape)}")
        return [Lookup(reader.name, (source,), target, (reader.operator.index,), table=table(source, target), function=function)]

    return lookup


#: Importers of activation operators by schema name. They raise ``CompileError`` or ``QuantizationError``.
IMPORTERS: Mapping[str, Callable[[OperatorReader], list[Layer]]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool(PoolKind.AVERAGE),
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise_convolution,
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": fully_connected,
    "LOGISTIC": _lookup("Logistic", lookup_tables.logistic_table),
    "MAX_POOL_2D": _pool(PoolKind.MAXIMUM),
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _lookup("Quantize", lookup_tables.quantize_table),
    "RELU": _lookup("Relu", lookup_tables.relu_table),
    "RELU6": _lookup("Relu6", lookup_tables.relu6_table),
    "RELU_N1_TO_1": _lookup("ReluN1To1", lookup_tables.relu_n1_to_1_table),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": strided_slice,
    "TANH": _lookup("Tanh", lookup_tables.tanh_table),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": unidirectional_sequence_lstm,
}
