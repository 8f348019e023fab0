"""A naive evaluation of the integer graph: loops and Python integers, nothing shared with the packages' own models.

It is slow and obvious on purpose: the second witness, beside TFLM, of what importer and passes mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from support.oracle.lstm_evaluation import run_lstm
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import (
    Add,
    Convolution,
    DepthwiseConvolution,
    Lookup,
    Lstm,
    Pad,
    Pool,
    PoolKind,
    Reshape,
    Slice,
    Softmax,
)
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.numerics.requantization import Requantization

Array = npt.NDArray[Any]


def tensor_key(tensor: Tensor) -> Any:
    """What identifies a tensor in a graph: its number in the file, or its name if a pass made it."""
    return tensor.index if tensor.index >= 0 else tensor.name


def evaluate(graph: Graph, *inputs: Array) -> dict[Any, Array]:
    """Every activation of the graph by :func:`tensor_key`, in its own shape, int8. A SOFTMAX is left out."""
    values = {tensor_key(tensor): value for tensor, value in zip(graph.inputs, inputs, strict=True)}
    for layer in graph.layers:
        if isinstance(layer, Softmax):
            continue
        operands = [
            (tensor.constant if tensor.constant is not None else values[tensor_key(tensor)]).reshape(tensor.nhwc).astype(np.int64)
            for tensor in layer.inputs
        ]
        result = np.asarray(_run(layer, operands))
        assert result.min() >= -128, layer.name
        assert result.max() <= 127, layer.name
        values[tensor_key(layer.output)] = result.astype(np.int8).reshape(layer.output.shape)
    return values


def _requantize(accumulator: Array, requantization: Requantization) -> Array:
    multiplier, shift = requantization.multiplier.astype(np.int64), requantization.shift.astype(np.int64)
    wrapped = accumulator.astype(np.int32).astype(np.int64)
    high = ((wrapped << np.maximum(shift, 0)) * multiplier + (1 << 30)) >> 31
    right = np.maximum(-shift, 0)
    quotient, remainder = high >> right, high & ((1 << right) - 1)
    threshold = (((1 << right) - 1) >> 1) + (high < 0)
    return np.asarray(quotient + (remainder > threshold))


def _taps(image: Array, layer: Any, kernel: tuple[int, int], border: int, output: Tensor) -> Any:
    """(row tap, column tap, the input pixels under it for every output pixel)."""
    padding: Padding = layer.padding
    sides = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0))
    padded = np.pad(image, sides, constant_values=border)
    dilation = getattr(layer, "dilation", (1, 1))
    _, height, width, _ = output.nhwc
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            y, x = row * dilation[0], column * dilation[1]
            rows = slice(y, y + (height - 1) * layer.stride[0] + 1, layer.stride[0])
            columns = slice(x, x + (width - 1) * layer.stride[1] + 1, layer.stride[1])
            yield row, column, padded[:, rows, columns]


@singledispatch
def _run(layer: Layer, _operands: Sequence[Array]) -> Array:
    raise NotImplementedError(type(layer).__name__)


@_run.register
def _(layer: Convolution, operands: Sequence[Array]) -> Array:
    zero_point = layer.inputs[0].zero_point
    total = layer.bias.astype(np.int64)
    for row, column, pixels in _taps(operands[0], layer, layer.weights.shape[1:3], zero_point, layer.output):
        total = total + (pixels - zero_point) @ layer.weights[:, row, column].astype(np.int64).T
    return np.asarray(np.clip(_requantize(total, layer.requantization) + layer.output.zero_point, layer.minimum, layer.maximum))


@_run.register
def _(layer: DepthwiseConvolution, operands: Sequence[Array]) -> Array:
    zero_point = layer.inputs[0].zero_point
    multiplier = layer.weights.shape[2] // operands[0].shape[3]
    total = layer.bias.astype(np.int64)
    for row, column, pixels in _taps(operands[0], layer, layer.weights.shape[:2], zero_point, layer.output):
        total = total + np.repeat(pixels - zero_point, multiplier, axis=3) * layer.weights[row, column].astype(np.int64)
    return np.asarray(np.clip(_requantize(total, layer.requantization) + layer.output.zero_point, layer.minimum, layer.maximum))


@_run.register
def _(layer: Add, operands: Sequence[Array]) -> Array:
    total = sum(table.astype(np.int64)[values & 0xFF] for table, values in zip(layer.tables, operands, strict=True))
    return np.asarray(
        np.clip(_requantize(np.asarray(total), layer.requantization) + layer.output.zero_point, layer.minimum, layer.maximum)
    )


@_run.register
def _(layer: Pool, operands: Sequence[Array]) -> Array:
    if layer.kind is PoolKind.MAXIMUM:
        best = np.max([pixels for _, _, pixels in _taps(operands[0], layer, layer.window, -128, layer.output)], axis=0)
        return np.asarray(np.clip(best, layer.minimum, layer.maximum))
    total = sum(pixels for _, _, pixels in _taps(operands[0], layer, layer.window, 0, layer.output))
    count = sum(pixels for _, _, pixels in _taps(np.ones_like(operands[0]), layer, layer.window, 0, layer.output))
    rounded = np.where(total > 0, (total + count // 2) // count, -((-total + count // 2) // count))
    return np.asarray(np.clip(rounded, layer.minimum, layer.maximum))


@_run.register
def _(layer: Lookup, operands: Sequence[Array]) -> Array:
    return np.asarray(layer.table[operands[0] & 0xFF])


@_run.register
def _(layer: Pad, operands: Sequence[Array]) -> Array:
    sides = ((0, 0), (layer.padding.top, layer.padding.bottom), (layer.padding.left, layer.padding.right), layer.channels)
    return np.pad(operands[0], sides, constant_values=layer.value)


@_run.register
def _(layer: Reshape, operands: Sequence[Array]) -> Array:
    return operands[0].reshape(layer.output.nhwc)


@_run.register
def _(layer: Slice, operands: Sequence[Array]) -> Array:
    values = operands[0].reshape(layer.inputs[0].shape)
    indices = [
        [begin + position * step for position in range(size)]
        for begin, size, step in zip(layer.begin, layer.size, layer.step, strict=True)
    ]
    return np.asarray(values[np.ix_(*indices)])


@_run.register
def _(layer: Lstm, operands: Sequence[Array]) -> Array:
    return run_lstm(layer, operands[0].reshape(layer.inputs[0].shape)).output
