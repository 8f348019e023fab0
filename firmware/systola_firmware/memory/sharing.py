"""Which tensors share memory.

A RESHAPE of a tensor without border is free, and so is a STRIDED_SLICE that takes consecutive elements. ADD and table
operations work in place where they can.

The output of an LSTM is where the recurrence reads the hidden state of the step before, so initial hidden states must
stand where steps before the first would: in front of the output, and for several sequences one after the other, where
the sequence before has its last step (which is written much later). Hence the *lead* of such a tensor,
:func:`~systola_firmware.ir.layers.lead_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from systola_firmware.ir.graph import Graph
from systola_firmware.memory.layout import TensorLayout


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
        lead, offset = layer.traits.memory.lead(layer), layer.traits.memory.view(layer)
        if lead:
            shares[name] = Share(name, lead)
        elif offset is not None and not layouts[layer.inputs[0].name].border and not layouts[name].border:
            parent = shares[layer.inputs[0].name]
            shares[name] = Share(parent.buffer, parent.offset + offset)
    if in_place:
        _work_in_place(graph, layouts, shares)
    return shares


def _work_in_place(graph: Graph, layouts: Mapping[str, TensorLayout], shares: dict[str, Share]) -> None:
    """Let outputs take over the memory of operands that are not read later."""
    kept = {shares[tensor.name].buffer for tensor in graph.outputs if tensor.name in shares}
    last_read: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        for tensor in layer.inputs:
            last_read[shares[tensor.name].buffer] = index
            if tensor.constant is not None:  # is written once for all runs, so it must stay
                kept.add(shares[tensor.name].buffer)
    for index, layer in enumerate(graph.layers):
        if not layer.traits.memory.in_place:
            continue
        output = layer.output.name
        for tensor in layer.inputs:
            own, taken = shares[output], shares[tensor.name]
            same = (layouts[tensor.name].shape, layouts[tensor.name].border) == (layouts[output].shape, layouts[output].border)
            # Another operand in the same buffer must have the same elements, or it would be overwritten before it is
            # read.
            alone = all(shares[other.name].buffer != taken.buffer or shares[other.name] == taken for other in layer.inputs)
            if taken.buffer not in kept and last_read[taken.buffer] == index and same and alone:
                last_read[taken.buffer] = last_read.get(own.buffer, index)
                if own.buffer in kept:
                    kept.add(taken.buffer)
                for name, other in shares.items():
                    if other.buffer == own.buffer:
                        shares[name] = Share(taken.buffer, taken.offset + other.offset - own.offset)
                break
