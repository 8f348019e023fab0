"""Depthwise convolutions as MATMUL and POST: diagonal tiles, or dense tiles with few weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.layers import Convolution, DepthwiseConvolution
from systola_firmware.lowering.blocks import Work, cut_positions
from systola_firmware.lowering.matmul import (
    ChannelGroups,
    Reduction,
    emit_pair,
    kernel_rows_together,
    layer_parameters,
    lower_convolution,
    window_axes,
    window_start,
)
from systola_firmware.lowering.weights import WeightImage, dense_tiles, diagonal_tiles
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement


def dense_passes(layer: DepthwiseConvolution, source: Placement, config: Config) -> int:
    """Tiles of one group if a depthwise layer is computed as a dense convolution. The layer must have no dilation along
    the columns."""
    height, width = int(layer.weights.shape[0]), int(layer.weights.shape[1])
    run, down = width * source.shape[3], layer.dilation[0] * source.row_pitch
    together = kernel_rows_together(height, run, down, config)
    return -(-height // together) * -(-((together - 1) * down + run) // config.rows)


def as_convolution(layer: DepthwiseConvolution, channels: int) -> Convolution:
    """The same arithmetic with dense weights ``[out, kernel_height, kernel_width, in]``, mostly zeros."""
    height, width, outputs = layer.weights.shape
    weights = np.zeros((outputs, height, width, channels), np.int8)
    o = np.arange(outputs)
    weights[o, :, :, o // (outputs // channels)] = layer.weights.transpose(2, 0, 1)
    return Convolution(
        layer.name,
        layer.inputs,
        layer.output,
        layer.operators,
        weights=weights,
        bias=layer.bias,
        requantization=layer.requantization,
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        minimum=layer.minimum,
        maximum=layer.maximum,
    )


def lower_depthwise(
    layer: DepthwiseConvolution, source: Placement, destination: Placement, image: WeightImage, config: Config
) -> list[Operation]:
    """MATMUL/POST pairs of a depthwise convolution.

    There are three ways. If there are so few channels that a chunk holds several taps, the layer is computed as a dense
    convolution. With multiplier 1, it is computed with diagonal tiles. Otherwise it is computed with dense tiles of one
    tap each, in which ``columns`` output channels read the few input channels that they need. The first of these input
    channels is an affine function of the group only if ``m / gcd(m, columns)`` groups are stepped over at a time, so
    there are that many pairs.
    """
    height, width, outputs = layer.weights.shape
    channels = source.shape[3]
    multiplier = outputs // channels
    if (layer.dilation[1] == 1 or width == 1) and dense_passes(layer, source, config) < height * width:
        return lower_convolution(as_convolution(layer, channels), source, destination, image, config)
    reduction = Reduction((width, layer.dilation[1] * channels), (height, layer.dilation[0] * source.row_pitch), (1, 0))
    taps = layer.weights.reshape(height * width, outputs)
    sums = taps.sum(axis=0, dtype=np.int64)
    columns = config.columns
    total = -(-outputs // columns)
    period = multiplier // math.gcd(multiplier, columns)
    pairs = []
    for first in range(min(period, total)):
        groups = range(first, total, period)
        members = [np.arange(g * columns, min((g + 1) * columns, outputs)) for g in groups]
        chosen = np.concatenate(members)
        if multiplier == 1:
            spread = np.zeros((height * width, total * columns), np.int8)
            spread[:, :outputs] = taps
            tiles = diagonal_tiles(spread.reshape(-1, total, columns).transpose(1, 0, 2), config)
        else:
            dense = np.zeros((len(groups), height * width, config.rows, columns), np.int8)
            for index, own in enumerate(members):
                dense[index, :, own // multiplier - own[0] // multiplier, own - own[0]] = taps[:, own].T
            tiles = dense_tiles(dense)
        subset = replace(
            layer,
            bias=layer.bias[chosen],
            requantization=_select(layer.requantization, chosen),
        )
        pairs.append(
            (
                subset,
                ChannelGroups(
                    weights=image.add(tiles),
                    parameters=image.add(layer_parameters(subset, sums[chosen], config)),
                    source=window_start(layer, source) + first * columns // multiplier,
                    destination=destination.address + first * columns,
                    source_step=columns // math.gcd(multiplier, columns),
                    destination_step=columns * period,
                    channels=chosen.size,
                    diagonal=multiplier == 1,
                ),
            )
        )
    work = Work(reduction.passes, -(-total // period))
    tilings = cut_positions(window_axes(layer, source, destination), work, config)
    return [op for tiling in tilings for subset, groups in pairs for op in emit_pair(subset, tiling, reduction, groups, config)]


def _select(requantization: Requantization, channels: npt.NDArray[np.int64]) -> Requantization:
    if not requantization.per_channel:
        return requantization
    return replace(requantization, multiplier=requantization.multiplier[channels], shift=requantization.shift[channels])
