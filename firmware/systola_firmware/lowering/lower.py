"""From one layer of the graph to its instructions, before order, tokens and marks (which are ``schedule.py``'s).

All layers but an LSTM become one stage at most: fills of the output's border, one load of tables, and a body that
computes.
"""

from __future__ import annotations

import numpy as np

from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Add, Convolution, DepthwiseConvolution, Lookup, Lstm, Pad, Pool, Reshape, Slice, Softmax
from systola_firmware.lowering.depthwise import lower_depthwise
from systola_firmware.lowering.fill import border_fills, lower_pad
from systola_firmware.lowering.lstm import lower_lstm
from systola_firmware.lowering.matmul import lower_convolution
from systola_firmware.lowering.pool import lower_pool
from systola_firmware.lowering.slice import lower_slice
from systola_firmware.lowering.stage import Lowered, Stage
from systola_firmware.lowering.vector import lower_add, lower_copy, lower_lookup
from systola_firmware.lowering.weights import WeightImage, table_entries
from systola_firmware.memory.plan import Plan
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import IsaError, Opcode, Operation


def _fills(layer: Layer, plan: Plan, config: Config) -> tuple[Operation, ...]:
    name = layer.output.name
    layout = plan.layouts[name]
    for tensor in layer.inputs:
        if plan.buffers[tensor.name] == plan.buffers[name] and plan.layouts[tensor.name] == layout:
            return ()  # works in place: the operand's border is there already, with the same value
    return tuple(border_fills(plan.placements[name], layout, config))


def _tables(image: WeightImage, *tables: np.ndarray) -> Operation:
    return Operation(Opcode.TABLE, {"source": image.add(table_entries(*tables)), "tables": len(tables)})


def lower(layer: Layer, plan: Plan, image: WeightImage, config: Config) -> Lowered:
    """Lower one layer, adding its weights, parameters and tables to ``image``.

    Raises :class:`CompileError` for a layer that the instructions cannot describe.
    """
    stages = _stages(layer, plan, image, config)
    for operation in (operation for stage in stages for operation in (*stage.fills, *stage.body)):
        try:
            operation.encode()
        except IsaError as error:
            raise CompileError(f"{layer.name} is too large for one instruction ({error})") from error
    return Lowered(layer, stages)


def _stages(layer: Layer, plan: Plan, image: WeightImage, config: Config) -> tuple[Stage, ...]:
    if isinstance(layer, Softmax):
        return ()
    if isinstance(layer, Lstm):
        return lower_lstm(layer, plan, image, config)
    name = layer.output.name
    sources = [plan.placements[tensor.name] for tensor in layer.inputs]
    destination = plan.placements[name]
    fills = _fills(layer, plan, config)
    tables = None
    match layer:
        case Convolution():
            body = lower_convolution(layer, sources[0], destination, image, config)
        case DepthwiseConvolution():
            body = lower_depthwise(layer, sources[0], destination, image, config)
        case Add():
            tables = _tables(image, *layer.tables)
            body = lower_add(layer, sources[0], sources[1], destination, config)
        case Lookup():
            tables = _tables(image, layer.table)
            body = lower_lookup(layer, sources[0], destination, config)
        case Pool():
            body = lower_pool(layer, sources[0], destination, config)
        case Pad():
            pads, body = lower_pad(layer, sources[0], destination, config)
            fills += tuple(pads)
        case Reshape() | Slice():
            if plan.buffers[layer.inputs[0].name] == plan.buffers[name]:
                return ()
            if isinstance(layer, Slice):
                body = lower_slice(layer, sources[0], destination, config)
            else:
                body = lower_copy(sources[0], destination, config)
        case _:
            raise CompileError(f"{layer.name}: the compiler has no lowering for {layer.operator}")
    reads = (plan.buffers[layer.inputs[0].name],) if body[0].opcode is Opcode.MATMUL else ()
    return (Stage(tuple(body), fills, tables, reads, (plan.buffers[name],)),)
