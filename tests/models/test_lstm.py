"""LSTM models, compiled and run, against TFLM: every output, and hidden and cell states after every step."""

from __future__ import annotations

import numpy as np
import pytest
from support.models.files import LSTM_MODELS, model_path
from support.models.inputs import random_input
from support.models.random_lstm import lstm_model
from support.oracle.agreement import assert_equal, check_intermediates, check_model, check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola

#: Models of one test of the random campaign.
CHUNK = 20


def _check_random(device: systola.Device, seed: int, *, inputs: int) -> None:
    model = lstm_model(seed)
    assert check_model(model.name, device, model.data, inputs=inputs, seed=seed) > 0


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_on_golden(name: str, golden: systola.Device) -> None:
    path = model_path(name)
    session, oracle = golden.load(path), Oracle(path)
    assert check_outputs(name, session, oracle, sets_for(session, 40, seed=1)) > 0
    assert check_intermediates(name, session, oracle, sets_for(session, 10, seed=2)[-3:]) > 0


@pytest.mark.parametrize("chunk", range(5))
def test_random_models_on_golden(chunk: int, golden: systola.Device) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        _check_random(golden, seed, inputs=3)


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(50, 75))
def test_more_random_models_on_golden(chunk: int, golden: systola.Device) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        _check_random(golden, seed, inputs=9)


@pytest.mark.parametrize("preset", ["tiny-4x4", "tiny-8x4", "wide-16x16"])
def test_random_models_on_other_arrays(preset: str) -> None:
    with systola.open(f"golden:{preset}") as device:
        for seed in range(2000, 2008):
            _check_random(device, seed, inputs=2)


def _check_states(device: systola.Device, seed: int, steps: int, calls: int) -> None:
    """A stream against TFLM's interpreter, which goes on from call to call: outputs and all states after each call."""
    model = lstm_model(seed, steps=steps)
    session, oracle = device.load(model.data, stateful=True), Oracle(model.data, stateful=True)
    generator = np.random.default_rng(seed)
    for stream in range(2):
        for call in range(calls):
            x = random_input(model.shapes[0], generator)
            (expected,) = oracle.run(x)
            where = f"{model.name}, stream {stream}, call {call}"
            assert_equal(where, np.asarray(session.run(x)), expected)
            wanted = oracle.states()
            states = session.states()
            assert len(states) == 2 * len(model.lstms)
            for state in session.program.states:
                assert_equal(f"{where}, {state.name}", states[state.name], wanted[state.index])
        session.reset()
        oracle.reset()


@pytest.mark.parametrize("seed", range(300, 306))
def test_states_after_every_step_on_golden(seed: int, golden: systola.Device) -> None:
    _check_states(golden, seed, steps=1, calls=8)


@pytest.mark.parametrize("seed", range(310, 314))
def test_states_after_every_piece_on_golden(seed: int, golden: systola.Device) -> None:
    _check_states(golden, seed, steps=5, calls=3)


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_as_streams_on_golden(name: str, golden: systola.Device) -> None:
    """Whatever the model: consecutive inputs continue each other, as TFLM's variable tensors do."""
    path = model_path(name)
    session, oracle = golden.load(path, stateful=True), Oracle(path, stateful=True)
    assert check_outputs(name, session, oracle, sets_for(session, 12, seed=4)) > 0
    wanted = oracle.states()
    for state in session.program.states:
        assert_equal(f"{name}, {state.name}", session.states()[state.name], wanted[state.index])


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_on_the_simulated_board(name: str, simulated: systola.Device) -> None:
    path = model_path(name)
    session = simulated.load(path)
    assert check_outputs(name, session, Oracle(path), sets_for(session, 8, seed=5)) > 0
    session, oracle = simulated.load(path, stateful=True), Oracle(path, stateful=True)
    assert check_outputs(name, session, oracle, sets_for(session, 3, seed=6)) > 0


@pytest.mark.parametrize("chunk", [0, 1, *(pytest.param(chunk, marks=pytest.mark.full) for chunk in (2, 3))])
def test_random_models_on_the_simulated_board(chunk: int, simulated: systola.Device) -> None:
    for seed in range(3000 + 10 * chunk, 3000 + 10 * (chunk + 1)):
        _check_random(simulated, seed, inputs=2)


@pytest.mark.parametrize("seed", [320, 321, 322])
def test_states_after_every_step_on_the_simulated_board(seed: int, simulated: systola.Device) -> None:
    _check_states(simulated, seed, steps=1, calls=5)
