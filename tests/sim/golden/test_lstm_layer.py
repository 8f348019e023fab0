"""The graph's LSTM against TFLM: outputs, and the hidden and cell state after every step; states that go from call to
call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from support.graphs.random_lstms import lstm_model, random_lstm
from support.models.files import LSTM_MODELS, model_path
from support.models.inputs import input_sets
from support.oracle.tflm import Oracle

from systola_firmware.importer import import_tflite
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm
from systola_sim.golden.graph_model import evaluate
from systola_sim.golden.lstm_layer import LstmStates

Int8Array = npt.NDArray[np.int8]


def recurrent_layers(graph: Graph) -> list[Lstm]:
    return [layer for layer in graph.layers if isinstance(layer, Lstm)]


def inputs_of(graph: Graph, count: int, seed: int) -> Iterator[list[Int8Array]]:
    return input_sets([tensor.shape for tensor in graph.inputs], [tensor.zero_point for tensor in graph.inputs], count, seed)


def assert_final_states(oracle: Oracle, layer: Lstm, states: LstmStates) -> None:
    np.testing.assert_array_equal(states.hidden[-1].reshape(-1), oracle.tensor(layer.hidden_index).reshape(-1))
    np.testing.assert_array_equal(states.cell[-1].reshape(-1), oracle.tensor(layer.cell_index).reshape(-1))


@pytest.mark.parametrize("seed", range(30))
def test_random_layers_equal_tflm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, units, batch, steps = (int(rng.integers(1, limit)) for limit in (40, 40, 5, 16))
    model = lstm_model(random_lstm(rng, features, units, time_major=bool(seed % 2)), batch, steps)
    oracle, graph = Oracle(model), import_tflite(model)
    (layer,) = recurrent_layers(graph)
    for item in inputs_of(graph, 9, seed):
        states: dict[str, LstmStates] = {}
        values = evaluate(graph, item, states)
        np.testing.assert_array_equal(values[graph.outputs[0].name], oracle.run(*item)[0])
        assert_final_states(oracle, layer, states[layer.name])
        assert evaluate(graph, item)[graph.outputs[0].name].tobytes() == values[graph.outputs[0].name].tobytes()
    # The comparison is of more than constants.
    assert np.unique(states[layer.name].cell).size > min(steps * units, 10)


@pytest.mark.parametrize("seed", [100, 101, 102, 103])
def test_the_state_after_every_step_equals_tflms(seed: int) -> None:
    """TFLM shows its state only after a call: so it is called once a step, and keeps its state from call to call."""
    rng = np.random.default_rng(seed)
    layer = random_lstm(rng, 20, 30)
    steps, batch = 25, 3
    graph = import_tflite(lstm_model(layer, batch, steps))
    oracle = Oracle(lstm_model(layer, batch, 1), stateful=True)
    (whole,) = recurrent_layers(graph)
    (x,) = next(inputs_of(graph, 1, seed)) if seed == 100 else [rng.integers(-128, 128, (batch, steps, 20), dtype=np.int8)]
    states: dict[str, LstmStates] = {}
    evaluate(graph, [x], states)
    for step in range(steps):
        oracle.run(x[:, step : step + 1])
        np.testing.assert_array_equal(states[whole.name].hidden[step], oracle.tensor(whole.hidden_index))
        np.testing.assert_array_equal(states[whole.name].cell[step], oracle.tensor(whole.cell_index))


def test_a_sequence_in_intervals_is_the_sequence() -> None:
    rng = np.random.default_rng(7)
    layer = random_lstm(rng, 5, 9)
    whole, interval = import_tflite(lstm_model(layer, 2, 12)), import_tflite(lstm_model(layer, 2, 4))
    x = rng.integers(-128, 128, (2, 12, 5), dtype=np.int8)
    expected = evaluate(whole, [x])[whole.outputs[0].name]
    states: dict[str, LstmStates] = {}
    intervals = [evaluate(interval, [x[:, at : at + 4]], states)[interval.outputs[0].name] for at in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(intervals, axis=1), expected)
    afresh = [evaluate(interval, [x[:, at : at + 4]])[interval.outputs[0].name] for at in (0, 4, 8)]
    assert not np.array_equal(np.concatenate(afresh, axis=1), expected)


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_equal_tflm(name: str) -> None:
    path = model_path(name)
    graph, oracle = import_tflite(path.read_bytes()), Oracle(path)
    layers = recurrent_layers(graph)
    assert layers
    for item in inputs_of(graph, 20, 1):
        states: dict[str, LstmStates] = {}
        values = evaluate(graph, item, states)
        for tensor, expected in zip(graph.outputs, oracle.run(*item), strict=True):
            np.testing.assert_array_equal(values[tensor.name], expected)
        for layer in layers:
            assert_final_states(oracle, layer, states[layer.name])


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_that_keep_their_state_equal_tflm(name: str) -> None:
    path = model_path(name)
    graph, oracle = import_tflite(path.read_bytes()), Oracle(path, stateful=True)
    states: dict[str, LstmStates] = {}
    for item in inputs_of(graph, 12, 2):
        values = evaluate(graph, item, states)
        np.testing.assert_array_equal(values[graph.outputs[0].name], oracle.run(*item)[0])
