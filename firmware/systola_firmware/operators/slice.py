"""STRIDED_SLICE of an activation. (One that only cuts a shape is folded at compile time.)"""

from __future__ import annotations

import math

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Reshape, Slice, slice_elements
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import Span, copy_elements, is_dense, vectors
from systola_firmware.operators.family import Family, Operator
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation
from systola_firmware.spec.program import Placement
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["SLICE"]

#: Most axes that TFLM's kernel slices.
_RANK_LIMIT = 4

_OPERANDS = ("begin", "end", "strides")

#: Options that TFLM's kernel ignores, so they are refused, and what they ask for.
_UNSUPPORTED = {
    "EllipsisMask": "an ellipsis",
    "NewAxisMask": "a new axis",
    "Offset": "ends counted from the begins",
}


def _strided_slice(reader: OperatorReader) -> list[Layer]:
    """A Slice, or a Reshape if all elements are taken. Begin, end and strides must be constants."""
    source, target = reader.input(0), reader.output()
    rank = len(source.shape)
    for option, request in _UNSUPPORTED.items():
        if reader.option(option):
            raise reader.refuse(f"slices with {request}, which is not supported: slice with begin, end and strides for each axis")
    if rank > _RANK_LIMIT:
        raise reader.refuse(f"slices {rank} axes: the kernels slice up to {_RANK_LIMIT}")
    operands = []
    for position, name in enumerate(_OPERANDS, start=1):
        values = reader.integers(position)
        if values is None:
            raise reader.refuse(f"computes its {name} at run time: the engine wants constants")
        if values.size != rank:
            raise reader.refuse(f"has {values.size} values of {name} where its input has {rank} axes: give one for each axis")
        operands.append([int(value) for value in values.reshape(-1)])
    limits = zip(*operands, strict=True)
    taken = [_axis(reader, axis, size, limit) for axis, (size, limit) in enumerate(zip(source.shape, limits, strict=True))]
    dropped = reader.option("ShrinkAxisMask")
    shape = tuple(len(indices) for axis, indices in enumerate(taken) if not dropped >> axis & 1)
    if shape != target.shape:
        raise reader.damaged(f"has an output of the shape {list(target.shape)} where {list(shape)} is what it takes")
    if source.elements == target.elements:
        return [Reshape(reader.name, (source,), target, (reader.operator.index,))]
    return [
        Slice(
            reader.name,
            (source,),
            target,
            (reader.operator.index,),
            begin=tuple(indices.start for indices in taken),
            size=tuple(len(indices) for indices in taken),
            step=tuple(indices.step for indices in taken),
        )
    ]


def _axis(reader: OperatorReader, axis: int, size: int, limit: tuple[int, ...]) -> range:
    """The indices taken along an axis, computed from its begin, end and stride as TFLM does: a begin mask has its
    effect also where the axis is dropped."""
    begin, end, step = limit
    if step < 0:
        raise reader.refuse(f"takes axis {axis} backwards, which is not supported: slice with positive strides")
    if step == 0:
        raise reader.damaged(f"has the stride 0 along axis {axis}")
    begin_masked, end_masked, dropped = (reader.option(mask) >> axis & 1 for mask in ("BeginMask", "EndMask", "ShrinkAxisMask"))
    if begin_masked:
        begin = 0
    elif begin < 0:
        begin += size
    if dropped:
        if not 0 <= begin < size:
            raise reader.damaged(f"takes the element {begin} of axis {axis}, which has {size}")
        return range(begin, begin + 1)
    if end_masked:
        end = size
    elif end < 0:
        end += size
    return range(max(begin, 0), min(end, size), step)


def _axis_strides(shape: tuple[int, ...], placement: Placement) -> list[int]:
    """Bytes from element to element along each axis of a tensor's own ``shape``."""
    if len(shape) == 4:
        return [placement.image_pitch, placement.row_pitch, placement.pixel_pitch, 1]
    return [*(math.prod(shape[axis + 1 : -1]) * placement.pixel_pitch for axis in range(len(shape) - 1)), 1]


def _copy(layer: Slice, source: Placement, destination: Placement, config: Config) -> list[Operation]:
    """Copy the elements of a slice: a loop for each axis if the output has no border, else run by run."""
    if not is_dense(destination):
        taken = (source.pixel_offsets().ravel() + source.start)[slice_elements(layer)]
        return copy_elements(taken, destination.pixel_offsets().ravel() + destination.start, {"sources": 1}, config)
    strides = _axis_strides(layer.inputs[0].shape, source)
    first = source.address + int(np.dot(layer.begin, strides))
    along = [stride * step for stride, step in zip(strides, layer.step, strict=True)]
    spans = [
        Span(size, (step, 0, math.prod(layer.size[axis + 1 :])))
        for axis, (size, step) in enumerate(zip(layer.size, along, strict=True))
    ]
    return vectors((first, 0, destination.address), spans, 1, {"sources": 1}, config)


def _lower(layer: Slice, context: Context) -> tuple[Stage, ...]:
    if context.is_there_already(layer):
        return ()
    return context.stage(layer, _copy(layer, context.source(layer), context.destination(layer), context.config))


SLICE = Family(
    Slice,
    (Operator("STRIDED_SLICE", _strided_slice, "constant begin, end and strides; up to four axes; no ellipsis", "none"),),
    runs="nothing for consecutive elements, else POST unit copies",
    types="int8",
    lower=_lower,
)
