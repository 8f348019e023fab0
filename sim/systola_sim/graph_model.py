"""The integer graph's own meaning: every tensor's values, computed layer by layer without any program or engine."""

from __future__ import annotations

from collections.abc import Sequence

from systola_firmware.graph import Graph, Int8Array, Tensor
from systola_sim.kernels import run_layer

__all__ = ["evaluate"]


def evaluate(graph: Graph, inputs: Sequence[Int8Array]) -> dict[str, Int8Array]:
    """Run one inference.

    Parameters
    ----------
    graph:
        The graph.
    inputs:
        int8 arrays of the shapes of ``graph.inputs``, in their order.

    Returns
    -------
    Every tensor's values by its name, int8 of the model's own shape: inputs, intermediates and outputs, no constants.

    Raises
    ------
    ValueError
        If an input is missing, or has another shape or type than its tensor.
    """
    if len(inputs) != len(graph.inputs):
        raise ValueError(f"the graph has {len(graph.inputs)} inputs, not {len(inputs)}")
    values: dict[str, Int8Array] = {}
    for tensor, array in zip(graph.inputs, inputs, strict=True):
        if array.shape != tensor.shape or array.dtype != "int8":
            raise ValueError(f"input {tensor.name!r} must be int8 {tensor.shape}, not {array.dtype} {array.shape}")
        values[tensor.name] = array

    def stored(tensor: Tensor) -> Int8Array:
        array = values[tensor.name] if tensor.constant is None else tensor.constant
        return array.reshape(tensor.nhwc)

    for layer in graph.layers:
        result = run_layer(layer, [stored(tensor) for tensor in layer.inputs])
        values[layer.output.name] = result.reshape(layer.output.shape)
    return values
