"""Several inferences side by side in one program: every activation tensor gets longer along its batch axis.

The engine then loads each weight once for all of them. The elements of one inference are consecutive runs of elements,
and every tensor has the same number of runs: the product of the axes before its batch axis, which is 1 unless time
comes first. So the batch axis of a tensor of another shape is the one before which the axes have the same product.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Lstm
from systola_firmware.ir.semantics import Batch, refusal, wider
from systola_firmware.ir.tensor import Tensor


def rebatch(graph: Graph, count: int) -> Graph:
    """The graph that runs ``count`` inferences of ``graph`` at once, side by side along each tensor's ``batch_axis``.

    To be used before the passes that drop reshapes: an image's shape must say where the batch is. The axes may have any
    size already. Raises :class:`CompileError`, one sentence with the tensor's name, where inferences cannot lie side by
    side.
    """
    if count < 1:
        raise CompileError(f"a program runs at least one inference at a time, not {count}: give a batch of 1 or more")
    return graph if count == 1 else _Rebatch(graph, count).run()


class _Rebatch:
    """Makes the tensors and layers for ``count`` inferences; ``made`` holds the tensors made so far, by name."""

    def __init__(self, graph: Graph, count: int) -> None:
        self.graph = graph
        self.count = count
        self.made: dict[str, Tensor] = {}
        self.time_major = any(isinstance(layer, Lstm) and layer.time_major for layer in graph.layers)

    def run(self) -> Graph:
        inputs = tuple(self._boundary(tensor) for tensor in self.graph.inputs)
        layers = tuple(self._layer(layer) for layer in self.graph.layers)
        outputs = tuple(self._boundary(tensor) for tensor in self.graph.outputs)
        return replace(self.graph, inputs=inputs, outputs=outputs, layers=layers, batch=self.count)

    def _boundary(self, tensor: Tensor) -> Tensor:
        time_first = self.time_major and len(tensor.shape) == 3
        return self.made.get(tensor.name) or self._widen(tensor, tensor.shape[0] if time_first else 1)

    def _widen(self, tensor: Tensor, runs: int) -> Tensor:
        """``tensor`` for all inferences, each of them ``runs`` runs of elements; a constant is repeated."""
        shape = tensor.shape
        # The last axis is never the batch: channels, features and classes belong to one inference.
        axes = [axis for axis in range(len(shape) - 1) if math.prod(shape[:axis]) == runs]
        if not axes:
            raise refusal(tensor, f"of the shape {list(shape)} has no axis along which inferences can lie side by side")
        # Several axes fit where some have one element: an LSTM of one time step wants the second axis, an image the
        # first.
        axis = axes[-1] if self.time_major and len(shape) == 3 else axes[0]
        constant = None if tensor.constant is None else np.concatenate([tensor.constant] * self.count, axis)
        made = replace(tensor, shape=wider(shape, axis, self.count), batch_axis=axis, constant=constant)
        self.made[tensor.name] = made
        return made

    def _layer(self, layer: Layer) -> Layer:
        known = next((tensor for tensor in layer.inputs if tensor.name in self.made), None)
        first = self._boundary(known or layer.inputs[0])
        axis = first.batch_axis
        runs = math.prod(first.shape[:axis])
        inputs = tuple(self.made.get(tensor.name) or self._widen(tensor, runs) for tensor in layer.inputs)
        made, runs = layer.traits.batch(layer, Batch(self.count, first, inputs, axis, runs))
        widened: Layer = replace(made, inputs=inputs, output=self._widen(layer.output, runs))
        return widened
