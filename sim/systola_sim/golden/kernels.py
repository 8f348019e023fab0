"""Bit-exact numpy kernels of every layer of the integer graph, each as its TensorFlow Lite Micro operator defines it.

They know nothing of the engine: no tiles, no borders in memory, no bias that a zero point was folded into. Arrays are
int8 NHWC of rank 4 (the stored shape of :class:`~systola_firmware.ir.graph.Tensor`); accumulators are summed in
float64, which is exact below 2^53, and wrap at 32 bits where the engine's and TFLM's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.graph import Layer, kinds
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
from systola_firmware.ir.tensor import Padding
from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.numerics.softmax import softmax
from systola_sim.golden.lstm_layer import LstmStates, run_lstm
from systola_sim.golden.requantize import clamp, requantize, wrap32

__all__ = ["lstm_output", "run_layer"]

Array = npt.NDArray[Any]


def _padded(x: Array, padding: Padding, value: int, channels: tuple[int, int] = (0, 0)) -> Array:
    widths = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), channels)
    return np.pad(x, widths, constant_values=value)


def _taps(
    x: Array, window: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int]
) -> list[tuple[int, int, Array]]:
    """For each tap of the window, its row, its column and the pixels ``(n, *size, c)`` of ``x`` (border included) that
    it reads."""
    last = [(count - 1) * step + 1 for count, step in zip(size, stride, strict=True)]
    result = []
    for row in range(window[0]):
        for column in range(window[1]):
            top, left = row * dilation[0], column * dilation[1]
            result.append((row, column, x[:, top : top + last[0] : stride[0], left : left + last[1] : stride[1]]))
    return result


def _finish(sums: Int32Array, requantization: Requantization, zero_point: int, minimum: int, maximum: int) -> Int8Array:
    values = requantize(sums, requantization.multiplier, requantization.shift, requantization.rounding)
    return clamp(values, zero_point, minimum, maximum)


def _convolution_sums(layer: Convolution | DepthwiseConvolution, x: Int8Array) -> Int32Array:
    """Accumulators int32 ``(n, h, w, out)``, bias included; outside of the input is its zero point."""
    _, height, width, channels = layer.output.nhwc
    zero_point = layer.inputs[0].zero_point
    depthwise = isinstance(layer, DepthwiseConvolution)
    window = layer.weights.shape[:2] if depthwise else layer.weights.shape[1:3]
    centred = _padded(x.astype(np.float64) - zero_point, layer.padding, 0)
    if depthwise:
        centred = np.repeat(centred, channels // x.shape[3], axis=3)
    weights = layer.weights.astype(np.float64)
    sums = np.zeros((len(x), height, width, channels))
    for row, column, pixels in _taps(centred, (window[0], window[1]), layer.stride, layer.dilation, (height, width)):
        sums += pixels * weights[row, column] if depthwise else pixels @ weights[:, row, column].T
    return wrap32(sums.astype(np.int64) + layer.bias)


def convolution(layer: Convolution, x: Int8Array) -> Int8Array:
    """CONV_2D and FULLY_CONNECTED. Of the input of FULLY_CONNECTED only the order of the elements matters, not the
    shape."""
    if layer.fully_connected:
        x = x.reshape(*layer.output.nhwc[:3], layer.weights.shape[3])
    return _finish(_convolution_sums(layer, x), layer.requantization, layer.output.zero_point, layer.minimum, layer.maximum)


def depthwise_convolution(layer: DepthwiseConvolution, x: Int8Array) -> Int8Array:
    """DEPTHWISE_CONV_2D."""
    return _finish(_convolution_sums(layer, x), layer.requantization, layer.output.zero_point, layer.minimum, layer.maximum)


def add(layer: Add, x0: Int8Array, x1: Int8Array) -> Int8Array:
    """ADD; the rescaled inputs come from the layer's tables."""
    operands = [table[x.view(np.uint8)].astype(np.int64) for table, x in zip(layer.tables, (x0, x1), strict=True)]
    return _finish(wrap32(operands[0] + operands[1]), layer.requantization, layer.output.zero_point, layer.minimum, layer.maximum)


def pool(layer: Pool, x: Int8Array) -> Int8Array:
    """AVERAGE_POOL_2D and MAX_POOL_2D over the taps that lie inside the input."""
    _, height, width, _ = layer.output.nhwc
    average = layer.kind is PoolKind.AVERAGE
    bordered = _padded(x.astype(np.int64), layer.padding, 0 if average else -128)
    pixels = np.stack([tap for _, _, tap in _taps(bordered, layer.window, layer.stride, (1, 1), (height, width))])
    if not average:
        return clamp(pixels.max(axis=0).astype(np.int32), 0, layer.minimum, layer.maximum)
    inside = _padded(np.ones_like(x[..., :1], dtype=np.int64), layer.padding, 0)
    count = np.stack([tap for _, _, tap in _taps(inside, layer.window, layer.stride, (1, 1), (height, width))]).sum(axis=0)
    sums = pixels.sum(axis=0)
    magnitude = (np.abs(sums) + count // 2) // count  # half away from zero
    return clamp(np.where(sums < 0, -magnitude, magnitude).astype(np.int32), 0, layer.minimum, layer.maximum)


def lookup(layer: Lookup, x: Int8Array) -> Int8Array:
    """Any unary operator."""
    return layer.table[x.view(np.uint8)]


def pad(layer: Pad, x: Int8Array) -> Int8Array:
    """PAD."""
    return _padded(x, layer.padding, layer.value, layer.channels)


def reshape(layer: Reshape, x: Int8Array) -> Int8Array:
    """RESHAPE."""
    return x.reshape(layer.output.nhwc)


def slice_(layer: Slice, x: Int8Array) -> Int8Array:
    """STRIDED_SLICE."""
    taken = [slice(begin, begin + size * step, step) for begin, size, step in zip(layer.begin, layer.size, layer.step, strict=True)]
    return x.reshape(layer.inputs[0].shape)[tuple(taken)].reshape(layer.output.nhwc)


def lstm(layer: Lstm, x: Int8Array) -> Int8Array:
    """UNIDIRECTIONAL_SEQUENCE_LSTM from its initial state."""
    return lstm_output(layer, run_lstm(layer, x))


def lstm_output(layer: Lstm, states: LstmStates) -> Int8Array:
    """The layer's output in its stored shape: the hidden states of all steps."""
    return (states.hidden if layer.time_major else states.hidden.swapaxes(0, 1)).reshape(layer.output.nhwc)


def driver_softmax(layer: Softmax, x: Int8Array) -> Int8Array:
    """SOFTMAX over the last axis."""
    return softmax(x, layer.inputs[0].scale, layer.beta)


_KERNELS: dict[type[Layer], Callable[..., Int8Array]] = {
    Convolution: convolution,
    DepthwiseConvolution: depthwise_convolution,
    Add: add,
    Pool: pool,
    Lookup: lookup,
    Pad: pad,
    Reshape: reshape,
    Slice: slice_,
    Lstm: lstm,
    Softmax: driver_softmax,
}

if _MISSING := [layer.__name__ for layer in kinds(Layer) if layer not in _KERNELS]:
    raise TypeError(f"there is no kernel for the layers {', '.join(_MISSING)}: add one to {__name__}")


def run_layer(layer: Layer, inputs: Sequence[Int8Array]) -> Int8Array:
    """The layer's output, int8 of its stored shape.

    Parameters
    ----------
    layer:
        Any layer of :mod:`systola_firmware.ir.graph`.
    inputs:
        int8 arrays of the stored shapes of ``layer.inputs``.

    Raises
    ------
    TypeError
        For a class of layer without a kernel.
    ValueError
        If the result does not have the shape that the layer promises.
    """
    try:
        kernel = _KERNELS[type(layer)]
    except KeyError:
        raise TypeError(f"layer {layer.name!r}: there is no kernel for {type(layer).__name__}") from None
    result = kernel(layer, *inputs)
    if result.shape != layer.output.nhwc:
        raise ValueError(f"layer {layer.name!r} makes the shape {result.shape}, not {layer.output.nhwc}")
    return np.ascontiguousarray(result)
