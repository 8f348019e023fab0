"""Which tensors share memory.

A RESHAPE of a tensor without border is free, and so is a STRIDED_SLICE that takes consecutive elements. ADD and table
operations work in place where they can.

The output of an LSTM is where the recurrence reads the hidden state of the step before, so initial hidden states must
stand where steps before the first would: in front of the output, and for several sequences one after the other, where
the sequence before has its last step (which is written much later). Hence the *lead* of such a tensor,
:func:`lead_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.graph import Graph, Layer, Lstm, Reshape, Slice
from systola_firmware.memory.layout import TensorLayout


def sequences_interleave(layer: Lstm) -> bool:
    """Whether the rows of all sequences for one time step follow each other, rather than all rows of one sequence."""
    return layer.time_major or layer.steps == 1


def lead_rows(layer: Lstm) -> int:
    """Rows of hidden state in front of an LSTM's output: those of the step before the first that no other sequence
    holds."""
    return layer.batch if sequences_interleave(layer) else 1


def slice_offset(layer: Slice) -> int | None:
    """Elements from the start of the input to the slice, if it takes consecutive elements, else None."""
    offsets = slice_elements(layer)
    first = int(offsets[0])
    return first if int(offsets[-1]) - first == offsets.size - 1 else None


def slice_elements(layer: Slice) -> npt.NDArray[np.int64]:
    """Row-major position in the input of every element of the slice, in order: they grow."""
    shape = layer.inputs[0].shape
    offsets = np.zeros(1, np.int64)
    for axis, (begin, size, step) in enumerate(zip(layer.begin, layer.size, layer.step, strict=True)):
        along = (begin + step * np.arange(size, dtype=np.int64)) * math.prod(shape[axis + 1 :])
        offsets = (offsets[:, np.newaxis] + along).reshape(-1)
    return offsets


@dataclass(frozen=True)
class Share:
    """A tensor's memory: ``offset`` bytes into the buffer ``buffer``, which has the name of one of its tensors."""

    buffer: str
    offset: int = 0


def share_buffers(graph: Graph, layouts: Mapping[str, TensorLayout], *, in_place: bool) -> dict[str, Share]:
    """Which tensors share memory, by name of the tensor.

    A RESHAPE between two tensors without border shares, and so does a SLICE of consecutive elements. With ``in_place``
    the output of an ADD or of a table operation takes over an operand of the same layout that is not read later; the
    ISA allows a VECTOR to work exactly in place.
    """
    shares = {name: Share(name) for name in layouts}
    for layer in graph.layers:
        name = layer.output.name
        if isinstance(layer, Lstm):
            shares[name] = Share(name, lead_rows(layer) * layer.hidden)
        elif isinstance(layer, Reshape | Slice) and not layouts[layer.inputs[0].name].border and not layouts[name].border:
            offset = slice_offset(layer) if isinstance(layer, Slice) else 0
            if offset is not None:
                parent = shares[layer.inputs[0].name]
                shares[name] = Share(parent.buffer, parent.offset + offset)
    if in_place:
        _work_in_place(graph, layouts, shares)
    return shares


def _work_in_place(graph: Graph, layouts: Mapping[str, TensorLayout], shares: dict[str, Share]) -> None:
    """Let outputs take over the memory of operands that die."""
    kept = {shares[tensor.name].buffer for tensor in graph.outputs if tensor.name in shares}
    last_read: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        for tensor in layer.inputs:
            last_read[shares[tensor.name].buffer] = index
            if tensor.constant is not None:  # written once for all runs
                kept.add(shares[tensor.name].buffer)
    for index, layer in enumerate(graph.layers):
        if not _works_in_place(layer):
            continue
        output = layer.output.name
        for tensor in layer.inputs:
            own, taken = shares[output], shares[tensor.name]
            same = (layouts[tensor.name].shape, layouts[tensor.name].border) == (layouts[output].shape, layouts[output].border)
            # Another operand in the same memory is the same elements, or it would be overwritten before it is read.
            alone = all(shares[other.name].buffer != taken.buffer or shares[other.name] == taken for other in layer.inputs)
            if taken.buffer not in kept and last_read[taken.buffer] == index and same and alone:
                last_read[taken.buffer] = last_read.get(own.buffer, index)
                if own.buffer in kept:
                    kept.add(taken.buffer)
                for name, other in shares.items():
                    if other.buffer == own.buffer:
                        shares[name] = Share(taken.buffer, taken.offset + other.offset - own.offset)
                break


def _works_in_place(layer: Layer) -> bool:
    return layer.operator == "Add" or hasattr(layer, "table")
