"""Remove what computes nothing: reshapes that move no byte, and layers that nobody reads."""

from __future__ import annotations

import dataclasses

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Reshape
from systola_firmware.ir.passes.rewriting import output_names, with_layers
from systola_firmware.ir.tensor import Tensor


def drop_reshapes(graph: Graph) -> Graph:
    """Readers of a Reshape read the first tensor of its chain that is stored the same way; a chain becomes one Reshape.

    They see that tensor in the Reshape's shape, because a Slice refers to axes by their numbers and an Lstm by their
    order (batch and time). A Reshape whose output is an output of the model stays, but reads the start of its chain.
    Both sides must have one quantization, because a convolution's border is its input's zero point and the driver's
    SOFTMAX takes its input's scale.
    """
    start: dict[str, Tensor] = {}  # where the elements of a reshaped tensor come from
    replaced: dict[str, Tensor] = {}
    layers: list[Layer] = []
    kept = output_names(graph)
    for layer in graph.layers:
        current = with_layers(graph, [layer], replaced).layers[0]
        if isinstance(current, Reshape):
            source = start.get(current.inputs[0].name, current.inputs[0])
            same = (source.scale, source.zero_point) == (current.output.scale, current.output.zero_point)
            if same and source.constant is None:
                start[current.output.name] = source
                current = Reshape(current.name, (source,), current.output, current.operators)
                if source.nhwc == current.output.nhwc and current.output.name not in kept:
                    replaced[current.output.name] = dataclasses.replace(
                        source, shape=current.output.shape, batch_axis=current.output.batch_axis
                    )
                    continue
        layers.append(current)
    return remove_dead_layers(with_layers(graph, layers))


def remove_dead_layers(graph: Graph) -> Graph:
    """Drop layers on which no output of the model depends."""
    needed = output_names(graph)
    layers: list[Layer] = []
    for layer in reversed(graph.layers):
        if layer.output.name in needed:
            layers.append(layer)
            needed.update(tensor.name for tensor in layer.inputs)
    return with_layers(graph, layers[::-1])
