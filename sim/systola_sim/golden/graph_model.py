"""The integer graph's own meaning: every tensor's values, computed layer by layer without any program or engine."""

from __future__ import annotations

from collections.abc import Sequence

from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.arrays import Int8Array
from systola_sim.golden.kernels import lstm_output, run_layer
from systola_sim.golden.lstm_layer import LstmStates, run_lstm

__all__ = ["evaluate"]


def evaluate(graph: Graph, inputs: Sequence[Int8Array], states: dict[str, LstmStates] | None = None) -> dict[str, Int8Array]:
    """Run one inference.

    Parameters
    ----------
    graph:
        The graph.
    inputs:
        int8 arrays of the shapes of ``graph.inputs``, in their order.
    states:
        The state of every LSTM after every step, by the layer's name; written by this call. A layer that is there
        already continues from its last step, so one dictionary for several calls streams a sequence through the graph.

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
        operands = [stored(tensor) for tensor in layer.inputs]
        if states is not None and isinstance(layer, Lstm):
            states[layer.name] = run_lstm(layer, operands[0], states.get(layer.name))
            result = lstm_output(layer, states[layer.name])
        else:
            result = run_layer(layer, operands)
        values[layer.output.name] = result.reshape(layer.output.shape)
    return values
