"""A standalone activation becomes the clamp of the layer before it, where the results are exactly the same."""

from __future__ import annotations

import dataclasses

import numpy as np

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Add, Convolution, DepthwiseConvolution, Lookup, Pool
from systola_firmware.ir.passes.rewriting import producers, readers, with_layers


def fuse_activation(graph: Graph) -> Graph:
    """Merge a Lookup that only clamps into the layer before it, if nothing else reads that layer's output.

    The table decides, not the operator's name: it must be ``clamp(x, low, high)`` over all int8 that the layer can
    produce, and both tensors must have the same zero point, because the layer adds the zero point of its output. The
    fused layer writes the Lookup's output.
    """
    count = readers(graph)
    makers = producers(graph)
    position = {layer.output.name: index for index, layer in enumerate(graph.layers)}
    layers: list[Layer | None] = list(graph.layers)
    for index, layer in enumerate(graph.layers):
        if not isinstance(layer, Lookup):
            continue
        source = layer.inputs[0]
        maker = makers.get(source.name)
        if maker is None or count[source.name] != 1 or source.zero_point != layer.output.zero_point:
            continue
        if not isinstance(maker, Convolution | DepthwiseConvolution | Add | Pool):
            continue
        bounds = _clamp(layer, maker.minimum, maker.maximum)
        if bounds is None:
            continue
        fused = dataclasses.replace(
            maker,
            output=layer.output,
            operators=(*maker.operators, *layer.operators),
            minimum=bounds[0],
            maximum=bounds[1],
        )
        layers[position[source.name]] = fused
        layers[index] = None
        makers[layer.output.name] = fused
        position[layer.output.name] = position[source.name]
    return with_layers(graph, [layer for layer in layers if layer is not None])


def _clamp(layer: Lookup, minimum: int, maximum: int) -> tuple[int, int] | None:
    """The bounds if the table clamps the values from ``minimum`` to ``maximum``, else None."""
    values = np.arange(minimum, maximum + 1)
    mapped = layer.table[values & 0xFF].astype(np.int64)
    low, high = int(mapped.min()), int(mapped.max())
    return (low, high) if np.array_equal(mapped, np.clip(values, low, high)) else None
