"""Compute at compile time what depends on constants only, and turn ADD of one repeated constant into a table."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Add, Lookup, Pad, Reshape, Slice
from systola_firmware.ir.passes.rewriting import output_names, with_layers
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import TABLE_DOMAIN, requantize


def fold_constants(graph: Graph) -> Graph:
    """Layers of constants become constants (Reshape, Slice, Lookup, Pad, Add); Add of one value becomes a Lookup.

    A layer whose output is one of the model's is not folded, because the device has to leave that in memory.
    """
    kept = output_names(graph)
    constants: dict[str, Tensor] = {}
    layers: list[Layer] = []
    for original in graph.layers:
        layer = dataclasses.replace(original, inputs=tuple(constants.get(tensor.name, tensor) for tensor in original.inputs))
        value = _value(layer)
        if value is not None and layer.output.name not in kept:
            constants[layer.output.name] = dataclasses.replace(layer.output, constant=value.reshape(layer.output.shape))
        else:
            layers.append(_add_as_lookup(layer) if isinstance(layer, Add) else layer)
    return with_layers(graph, layers)


def _value(layer: Layer) -> Int8Array | None:
    """The output of a layer whose inputs are constants, None for other layers."""
    constants = [tensor.constant for tensor in layer.inputs if tensor.constant is not None]
    if len(constants) < len(layer.inputs):
        return None
    if isinstance(layer, Reshape):
        return constants[0]
    if isinstance(layer, Slice):
        axes = zip(layer.begin, layer.size, layer.step, strict=True)
        taken: Int8Array = constants[0][tuple(slice(begin, begin + size * step, step) for begin, size, step in axes)]
        return taken
    if isinstance(layer, Lookup):
        return layer.table[constants[0].view(np.uint8)]
    if isinstance(layer, Pad):
        border = layer.padding
        sides = ((0, 0), (border.top, border.bottom), (border.left, border.right), layer.channels)
        padded: Int8Array = np.pad(constants[0].reshape(layer.inputs[0].nhwc), sides, constant_values=layer.value)
        return padded
    if isinstance(layer, Add):
        first, second = (
            table[constant.view(np.uint8)].astype(np.int64) for table, constant in zip(layer.tables, constants, strict=True)
        )
        return _finish_add(layer, first + second)
    return None


def _finish_add(layer: Add, total: npt.NDArray[np.int64]) -> Int8Array:
    scaled = requantize(total, int(layer.requantization.multiplier[0]), int(layer.requantization.shift[0]))
    return np.clip(scaled + layer.output.zero_point, layer.minimum, layer.maximum).astype(np.int8)


def _add_as_lookup(layer: Add) -> Layer:
    """A Lookup for an Add of an activation and a constant of one repeated value; any other Add unchanged."""
    for position, tensor in enumerate(layer.inputs):
        if tensor.constant is None or np.any(tensor.constant != tensor.constant.flat[0]):
            continue
        other = 1 - position
        if layer.inputs[other].constant is not None:
            continue
        term = int(layer.tables[position][int(tensor.constant.flat[0]) & 0xFF])
        table = _finish_add(layer, layer.tables[other][TABLE_DOMAIN & 0xFF].astype(np.int64) + term)
        return Lookup(layer.name, (layer.inputs[other],), layer.output, layer.operators, table=table, function="Add")
    return layer
