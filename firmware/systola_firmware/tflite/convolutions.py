"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED of a ``.tflite`` file as layers of the integer graph."""

from __future__ import annotations

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Convolution, DepthwiseConvolution, Reshape
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import convolution_requantization
from systola_firmware.tflite.operator import ELEMENT_LIMIT, OperatorReader

_DEFAULT_WEIGHTS_FORMAT = 0


def reshaped(reader: OperatorReader, source: Tensor, shape: tuple[int, ...], note: str) -> tuple[Tensor, list[Layer]]:
    """``source`` under another shape, and the layers that make it: none if it is stored the same way."""
    target = Tensor(f"{source.name} ({note} {reader.operator.index})", shape, source.scale, source.zero_point)
    if target.nhwc == source.nhwc:
        return source, []
    return target, [Reshape(f"{reader.name}_reshape", (source,), target, (reader.operator.index,))]


def convolution(reader: OperatorReader) -> list[Layer]:
    """CONV_2D; a grouped one becomes a dense one whose other weights are zero."""
    source, target = reader.input(0), reader.output()
    weights = reader.weights(1, rank=4, channel_axis=0)
    channels, height, width, depth = weights.values.shape
    stride, dilation = reader.pair("Stride"), reader.pair("Dilation", "Factor")
    padding = reader.window((height, width), stride, dilation)
    if source.shape[3] % depth or channels % (source.shape[3] // depth) or target.shape[3] != channels:
        raise reader.damaged(f"has weights of the shape {list(weights.values.shape)} for {source.shape[3]} channels")
    minimum, maximum = reader.clamp(target)
    return [
        Convolution(
            reader.name,
            (source,),
            target,
            (reader.operator.index,),
            weights=_dense(reader, weights.values, source.shape[3]),
            bias=reader.bias(2, channels),
            requantization=convolution_requantization(source.scale, weights.scales, target.scale),
            stride=stride,
            dilation=dilation,
            padding=padding,
            minimum=minimum,
            maximum=maximum,
        )
    ]


def _dense(reader: OperatorReader, weights: Int8Array, input_channels: int) -> Int8Array:
    """Weights ``[out, height, width, in/groups]`` as ``[out, height, width, in]``."""
    channels, height, width, depth = weights.shape
    groups = input_channels // depth
    if groups == 1:
        return weights
    if weights.size * groups > ELEMENT_LIMIT:
        raise reader.refuse(f"has {groups} groups, too many to run as a dense convolution: use DEPTHWISE_CONV_2D")
    dense = np.zeros((channels, height, width, input_channels), dtype=np.int8)
    for group in range(groups):
        outputs = slice(group * channels // groups, (group + 1) * channels // groups)
        dense[outputs, :, :, group * depth : (group + 1) * depth] = weights[outputs]
    return dense


def depthwise_convolution(reader: OperatorReader) -> list[Layer]:
    """DEPTHWISE_CONV_2D with any multiplier."""
    source, target = reader.input(0), reader.output()
    weights = reader.weights(1, rank=4, channel_axis=3)
    one, height, width, channels = weights.values.shape
    stride, dilation = reader.pair("Stride"), reader.pair("Dilation", "Factor")
    padding = reader.window((height, width), stride, dilation)
    if one != 1 or channels != source.shape[3] * reader.option("DepthMultiplier") or target.shape[3] != channels:
        raise reader.damaged(f"has weights of the shape {list(weights.values.shape)} for {source.shape[3]} channels")
    minimum, maximum = reader.clamp(target)
    return [
        DepthwiseConvolution(
            reader.name,
            (source,),
            target,
            (reader.operator.index,),
            weights=weights.values[0],
            bias=reader.bias(2, channels),
            requantization=convolution_requantization(source.scale, weights.scales, target.scale),
            stride=stride,
            dilation=dilation,
            padding=padding,
            minimum=minimum,
            maximum=maximum,
        )
    ]


def fully_connected(reader: OperatorReader) -> list[Layer]:
    """FULLY_CONNECTED as a 1×1 convolution over rows of features; the shapes around it change as far as they must."""
    source, target = reader.input(0), reader.output()
    weights = reader.weights(1, rank=2, channel_axis=0)
    channels, features = weights.values.shape
    if reader.option("WeightsFormat") != _DEFAULT_WEIGHTS_FORMAT:
        raise reader.refuse("has shuffled weights: convert the model with the default weights format")
    rows = source.elements // features
    if rows * features != source.elements or rows * channels != target.elements:
        raise reader.damaged(
            f"has weights of the shape {list(weights.values.shape)} for an input of the shape {list(source.shape)}"
        )
    requantization = convolution_requantization(source.scale, weights.scales, target.scale)
    before: list[Layer] = []
    after: list[Layer] = []
    inner = target
    if (*source.nhwc[:3], channels) != target.nhwc or source.nhwc[3] != features:
        source, before = reshaped(reader, source, (rows, features), "as rows for")
        if target.nhwc != (1, 1, rows, channels):
            inner = Tensor(f"{target.name} (as rows of {reader.operator.index})", (rows, channels), target.scale, target.zero_point)
            after = [Reshape(f"{reader.name}_shape", (inner,), target, (reader.operator.index,))]
    minimum, maximum = reader.clamp(target)
    layer = Convolution(
        reader.name,
        (source,),
        inner,
        (reader.operator.index,),
        weights=weights.values[:, None, None, :],
        bias=reader.bias(2, channels),
        requantization=requantization,
        fully_connected=inner.nhwc[:2] == (1, 1),  # over an image it is a plain 1×1 convolution
        minimum=minimum,
        maximum=maximum,
    )
    return [*before, layer, *after]
