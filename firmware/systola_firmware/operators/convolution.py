"""CONV_2D, FULLY_CONNECTED and DEPTHWISE_CONV_2D: products with constant weights, requantized for each channel."""

from __future__ import annotations

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Convolution, DepthwiseConvolution, Reshape
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.depthwise import lower_depthwise
from systola_firmware.lowering.matmul import lower_convolution
from systola_firmware.lowering.stage import Stage
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import convolution_requantization
from systola_firmware.operators.family import Family, Operator
from systola_firmware.operators.reshape import reshaped
from systola_firmware.tflite.operator import ELEMENT_LIMIT, OperatorReader

__all__ = ["CONVOLUTION", "DEPTHWISE"]

_DEFAULT_WEIGHTS_FORMAT = 0


def _convolution(reader: OperatorReader) -> list[Layer]:
    """CONV_2D; a grouped convolution becomes a dense one, with zero weights between groups."""
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


def _depthwise_convolution(reader: OperatorReader) -> list[Layer]:
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


def _fully_connected(reader: OperatorReader) -> list[Layer]:
    """FULLY_CONNECTED as a 1×1 convolution over rows of features, with reshapes before and after it where they are
    needed."""
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


def _lower_convolution(layer: Convolution, context: Context) -> tuple[Stage, ...]:
    source, destination = context.source(layer), context.destination(layer)
    return context.stage(layer, lower_convolution(layer, source, destination, context.image, context.config))


def _lower_depthwise(layer: DepthwiseConvolution, context: Context) -> tuple[Stage, ...]:
    source, destination = context.source(layer), context.destination(layer)
    return context.stage(layer, lower_depthwise(layer, source, destination, context.image, context.config))


_ROUNDING = "DOUBLE, as TFLM; int32 sums wrap"
_TYPES = "int8, symmetric int8 weights per tensor or channel, int32 bias"
CONVOLUTION = Family(
    Convolution,
    (
        Operator("CONV_2D", _convolution, "constant weights; any stride, dilation, padding, groups", _ROUNDING),
        Operator("FULLY_CONNECTED", _fully_connected, "constant weights in the default format", _ROUNDING),
    ),
    runs="array and POST unit",
    types=_TYPES,
    lower=_lower_convolution,
)
DEPTHWISE = Family(
    DepthwiseConvolution,
    (Operator("DEPTHWISE_CONV_2D", _depthwise_convolution, "constant weights; any stride, dilation, multiplier", _ROUNDING),),
    runs="array and POST unit",
    types=_TYPES,
    lower=_lower_depthwise,
)
