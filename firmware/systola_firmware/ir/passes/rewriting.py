"""What the passes share: who reads a tensor, and the replacement of a tensor by another. Tensors are known by their
names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.tensor import Tensor


def readers(graph: Graph) -> Counter[str]:
    """How often each tensor is read, by a layer or as an output of the model."""
    count = Counter(tensor.name for layer in graph.layers for tensor in layer.inputs)
    count.update(tensor.name for tensor in graph.outputs)
    return count


def producers(graph: Graph) -> dict[str, Layer]:
    """The layer that computes each tensor."""
    return {layer.output.name: layer for layer in graph.layers}


def output_names(graph: Graph) -> set[str]:
    """Names of the model's outputs."""
    return {tensor.name for tensor in graph.outputs}


def with_layers(graph: Graph, layers: Sequence[Layer], renamed: Mapping[str, Tensor] | None = None) -> Graph:
    """The graph with other layers, whose inputs are replaced as ``renamed`` says."""
    replacement = renamed or {}

    def rewire(layer: Layer) -> Layer:
        if not any(tensor.name in replacement for tensor in layer.inputs):
            return layer
        return dataclasses.replace(layer, inputs=tuple(replacement.get(tensor.name, tensor) for tensor in layer.inputs))

    return dataclasses.replace(graph, layers=tuple(rewire(layer) for layer in layers))
