"""Convolutions as MATMUL and POST.

NHWC is dense, so the taps of one kernel row are one *run* of ``kernel_width · channels`` contiguous bytes, cut into
chunks of ``rows`` bytes: almost no lane is left unused, however few the channels are. Several kernel rows share a chunk
if they fit. With a dilation a run is one tap. If a kernel row is as wide as the stored row, the whole kernel is one
run. Rows of a tile beyond the end of a run have zero weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from systola_firmware.errors import CompileError
from systola_firmware.ir.layers import Convolution, DepthwiseConvolution
from systola_firmware.lowering.blocks import Axis, Tiling, Work, cut_positions
from systola_firmware.lowering.weights import (
    WeightImage,
    channel_parameters,
    dense_tiles,
    fold_zero_point,
    is_per_channel,
)
from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_LIMIT, Opcode, Operation
from systola_firmware.spec.program import Placement


@dataclass(frozen=True)
class Reduction:
    """The reduction loops of a MATMUL: ``(count, step)`` of k0, k1 and k2."""

    k0: tuple[int, int]
    k1: tuple[int, int]
    k2: tuple[int, int]

    @property
    def passes(self) -> int:
        """Tiles of one group."""
        return self.k0[0] * self.k1[0] * self.k2[0]


@dataclass(frozen=True)
class ChannelGroups:
    """Consecutive groups of ``columns`` output channels of one MATMUL/POST pair, and where they are.

    ``source_step`` and ``destination_step`` are bytes from group to group; ``channels`` lists the output channels in
    order. With ``wide`` the outputs are int16, not clamped to the layer's range.
    """

    weights: int
    parameters: int
    source: int
    destination: int
    source_step: int
    destination_step: int
    channels: int
    diagonal: bool = False
    wide: bool = False


def loop_fields(name: str, count: int, step: int) -> dict[str, int]:
    """Fields of a loop; a loop of one iteration has no step."""
    return {f"{name}_count": count, f"{name}_step": step if count > 1 else 0}


def emit_pair(
    layer: Convolution | DepthwiseConvolution, tiling: Tiling, reduction: Reduction, groups: ChannelGroups, config: Config
) -> list[Operation]:
    """MATMUL and POST for one tiling and up to 4095 groups."""
    requantization = layer.requantization
    per_channel = is_per_channel(requantization)
    parameter_words = config.channel_parameter_words if per_channel else config.bias_words
    tile_words = reduction.passes * config.tile_words
    operations = []
    total = -(-groups.channels // config.columns)
    for first in range(0, total, COUNT_LIMIT):
        count = min(COUNT_LIMIT, total - first)
        if first and groups.diagonal:
            raise CompileError(f"{layer.name} has too many channels for one depthwise instruction")
        last_columns = groups.channels - config.columns * (total - 1) if first + count == total else config.columns
        operations.append(
            Operation(
                Opcode.MATMUL,
                {
                    "source": tiling.source + groups.source + first * groups.source_step,
                    "diagonal": int(groups.diagonal),
                    **loop_fields("x", tiling.x.count, tiling.x.source),
                    **loop_fields("y", tiling.y.count, tiling.y.source),
                    **loop_fields("k0", *reduction.k0),
                    **loop_fields("k1", *reduction.k1),
                    **loop_fields("k2", *reduction.k2),
                    **loop_fields("group", count, groups.source_step),
                    **loop_fields("block", tiling.block.count, tiling.block.source),
                    "weights": groups.weights + first * tile_words,
                },
            )
        )
        operations.append(
            Operation(
                Opcode.POST,
                {
                    "destination": tiling.destination + groups.destination + first * groups.destination_step,
                    "last_columns": last_columns,
                    "per_channel": int(per_channel),
                    "rounding": int(requantization.rounding),
                    "wide": int(groups.wide),
                    **loop_fields("x", tiling.x.count, tiling.x.destination),
                    **loop_fields("y", tiling.y.count, tiling.y.destination),
                    **loop_fields("group", count, groups.destination_step),
                    **loop_fields("block", tiling.block.count, tiling.block.destination),
                    "parameters": groups.parameters + first * parameter_words,
                    "zero_point": 0 if groups.wide else layer.output.zero_point,
                    "minimum": 0 if groups.wide else layer.minimum,
                    "maximum": 0 if groups.wide else layer.maximum,
                    "shift": 0 if per_channel else int(requantization.shift[0]),
                    "multiplier": 0 if per_channel else int(requantization.multiplier[0]),
                },
            )
        )
    return operations


def split_chunks(count: int) -> tuple[int, int, int]:
    """Cover ``count`` chunks by two loops: ``(k0_count, k1_count, chunks from one k1 to the next)``.

    When more than 4095 are needed the iterations of k1 may overlap, so that none reaches past the end; the repeated
    chunks have zero weights.
    """
    if count <= COUNT_LIMIT:
        return count, 1, 0
    outer = -(-count // COUNT_LIMIT)
    while True:
        for inner in range(-(-count // outer), COUNT_LIMIT + 1):
            if (count - inner) % (outer - 1) == 0:
                return inner, outer, (count - inner) // (outer - 1)
        outer += 1


def kernel_rows_together(height: int, run: int, down: int, config: Config) -> int:
    """How many kernel rows of ``run`` bytes, ``down`` bytes apart, are read as one run.

    All of them if they follow each other without a gap, so that the kernel is as wide as the stored row; otherwise as
    many as one chunk holds.
    """
    if height == 1 or run == down:
        return height
    return min(height, (config.rows - run) // down + 1) if run <= config.rows else 1


def dense_reduction(layer: Convolution, source: Placement, config: Config) -> tuple[Reduction, Int8Array]:
    """Loops and tiles of a dense convolution; the tiles have shape ``[groups, passes, rows, columns]``."""
    outputs, height, width, channels = layer.weights.shape
    down = layer.dilation[0] * source.row_pitch
    if layer.dilation[1] == 1 or width == 1:
        run = width * channels
        runs = layer.weights.reshape(outputs, height, 1, run)
        together = kernel_rows_together(height, run, down, config)
        if together > 1:
            # Bytes between the kernel rows have zero weights, and so have kernel rows past the last.
            packed = np.zeros((outputs, -(-height // together), 1, (together - 1) * down + run), np.int8)
            for row in range(height):
                first = row % together * down
                packed[:, row // together, 0, first : first + run] = runs[:, row, 0]
            runs = packed
            down *= together
    else:
        runs = layer.weights
    _, k2, k1, run = runs.shape
    chunks = -(-run // config.rows)
    padded = np.zeros((outputs, k2, k1, chunks * config.rows), np.int8)
    padded[..., :run] = runs
    chunked: Int8Array = padded.reshape(outputs, k2, k1, chunks, config.rows)
    inner, repeats, apart = split_chunks(chunks)
    k1_step = layer.dilation[1] * channels
    if repeats > 1:
        if k1 > 1:
            raise CompileError(f"{layer.name} reads {run} channels through a dilated kernel, more than its loops can count")
        overlapped = np.zeros((outputs, k2, repeats, inner, config.rows), np.int8)
        for repeat in range(repeats):
            fresh = 0 if repeat == 0 else inner - apart  # chunks before this one were done by the previous iteration
            overlapped[:, :, repeat, fresh:] = chunked[:, :, 0, repeat * apart + fresh : repeat * apart + inner]
        chunked, k1, k1_step = overlapped, repeats, apart * config.rows
    reduction = Reduction((inner, config.rows), (k1, k1_step), (k2, down))
    groups = -(-outputs // config.columns)
    tiles = np.zeros((groups * config.columns, reduction.passes, config.rows), np.int8)
    tiles[:outputs] = chunked.reshape(outputs, reduction.passes, config.rows)
    return reduction, tiles.reshape(groups, config.columns, reduction.passes, config.rows).transpose(0, 2, 3, 1)


def window_axes(layer: Convolution | DepthwiseConvolution, source: Placement, destination: Placement) -> list[Axis]:
    """Output positions of a convolution, outermost first, with their steps in the input."""
    n, h, w, _ = destination.shape
    return [
        Axis(n, source.image_pitch, destination.image_pitch),
        Axis(h, layer.stride[0] * source.row_pitch, destination.row_pitch),
        Axis(w, layer.stride[1] * source.pixel_pitch, destination.pixel_pitch),
    ]


def window_start(layer: Convolution | DepthwiseConvolution, source: Placement) -> int:
    """Address of the first window, which begins in the border, as many pixels before pixel (0, 0) as the padding
    has."""
    return source.address - layer.padding.top * source.row_pitch - layer.padding.left * source.pixel_pitch


def _is_dense(placement: Placement) -> bool:
    _, h, w, c = placement.shape
    return placement.row_pitch == w * c and placement.image_pitch == h * w * c and placement.pixel_pitch == c


def _fully_connected_view(layer: Convolution, source: Placement, destination: Placement) -> tuple[Convolution, list[Axis]]:
    """FULLY_CONNECTED as a convolution over its input as it is stored, and its positions: those of the output."""
    outputs, _, _, features = layer.weights.shape
    n, h, w, _ = destination.shape
    out_pitches = (destination.image_pitch, destination.row_pitch, destination.pixel_pitch)
    images, height, width, channels = source.shape
    if _is_dense(source):
        pitches = (h * w * features, w * features, features)
    elif channels == features and _is_dense(destination):
        # Each pixel is a row of features; the output is dense, so its positions can have the shape of the input.
        n, h, w = images, height, width
        pitches = (source.image_pitch, source.row_pitch, source.pixel_pitch)
        out_pitches = (h * w * outputs, w * outputs, outputs)
    elif channels == features and (n, h, w) == (images, height, width):
        pitches = (source.image_pitch, source.row_pitch, source.pixel_pitch)
    elif n * h * w == images and height * width * channels == features:
        # Each image is one window.
        layer = replace(layer, weights=layer.weights.reshape(outputs, height, width, channels))
        pitches = (h * w * source.image_pitch, w * source.image_pitch, source.image_pitch)
    else:
        raise CompileError(
            f"{layer.name} reads a tensor of shape {source.shape} that is stored with a border, as rows of {features}"
        )
    return layer, [Axis(*axis) for axis in zip((n, h, w), pitches, out_pitches, strict=True)]


def lower_convolution(
    layer: Convolution, source: Placement, destination: Placement, image: WeightImage, config: Config
) -> list[Operation]:
    """MATMUL/POST pairs of a dense convolution. Raises :class:`CompileError` for what the loops cannot describe."""
    if layer.fully_connected:
        layer, axes = _fully_connected_view(layer, source, destination)
    elif layer.weights.shape[3] != source.shape[3]:
        raise CompileError(f"{layer.name} has {source.shape[3]} input channels in groups: grouped convolution is not supported")
    else:
        axes = window_axes(layer, source, destination)
    reduction, tiles = dense_reduction(layer, source, config)
    outputs = layer.weights.shape[0]
    groups = ChannelGroups(
        weights=image.add(dense_tiles(tiles)),
        parameters=image.add(layer_parameters(layer, layer.weights.sum(axis=(1, 2, 3), dtype=np.int64), config)),
        source=window_start(layer, source),
        destination=destination.address,
        source_step=0,
        destination_step=config.columns,
        channels=outputs,
    )
    work = Work(reduction.passes, -(-outputs // config.columns))
    tilings = cut_positions(axes, work, config)
    return [operation for tiling in tilings for operation in emit_pair(layer, tiling, reduction, groups, config)]


def layer_parameters(layer: Convolution | DepthwiseConvolution, sums: npt.NDArray[np.int64], config: Config) -> bytes:
    """POST's parameters, the zero point folded in; ``sums`` are the sums of each channel's weights."""
    bias: Int32Array = fold_zero_point(layer.bias, sums, layer.inputs[0].zero_point)
    return channel_parameters(bias, layer.requantization, config)
