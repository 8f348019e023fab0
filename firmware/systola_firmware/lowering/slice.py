"""STRIDED_SLICE as VECTOR copies, where the slice is not a part of its input's memory."""

from __future__ import annotations

import math

import numpy as np

from systola_firmware.ir.layers import Slice, slice_elements
from systola_firmware.lowering.vector import Span, copy_elements, is_dense, vectors
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement


def axis_strides(shape: tuple[int, ...], placement: Placement) -> list[int]:
    """Bytes from element to element along each axis of a tensor's own ``shape``."""
    if len(shape) == 4:
        return [placement.image_pitch, placement.row_pitch, placement.pixel_pitch, 1]
    return [*(math.prod(shape[axis + 1 : -1]) * placement.pixel_pitch for axis in range(len(shape) - 1)), 1]


def lower_slice(layer: Slice, source: Placement, destination: Placement, config: Config) -> list[Operation]:
    """Copy the elements of a slice: a loop for each axis if the output has no border, else run by run."""
    if not is_dense(destination):
        taken = (source.pixel_offsets().ravel() + source.start)[slice_elements(layer)]
        return copy_elements(taken, destination.pixel_offsets().ravel() + destination.start, {"sources": 1}, config)
    strides = axis_strides(layer.inputs[0].shape, source)
    first = source.address + int(np.dot(layer.begin, strides))
    along = [stride * step for stride, step in zip(strides, layer.step, strict=True)]
    spans = [
        Span(size, (step, 0, math.prod(layer.size[axis + 1 :])))
        for axis, (size, step) in enumerate(zip(layer.size, along, strict=True))
    ]
    return vectors((first, 0, destination.address), spans, 1, {"sources": 1}, config)
