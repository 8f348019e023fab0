"""The compact engine of the iCEBreaker preset: whole models and random operators bit for bit, and its speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.models.files import DIGITS_MODEL, model_path
from support.models.random_models import OPERATORS, graph_model, operator_model, random_model
from support.oracle.agreement import check_intermediates, check_model, check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola

#: DS-CNN has 2,656,768 multiply-accumulates: ten a cycle, of the array's sixteen.
DSCNN_CYCLES = 265_676


@pytest.fixture(scope="module")
def golden() -> Iterator[systola.Device]:
    with systola.open("golden:icebreaker") as device:
        yield device


@pytest.fixture(scope="module")
def simulated() -> Iterator[systola.Device]:
    with systola.open("sim:icebreaker") as device:
        yield device


def test_digits(golden: systola.Device, simulated: systola.Device) -> None:
    oracle = Oracle(DIGITS_MODEL)
    for device, count in ((golden, 20), (simulated, 5)):
        session = device.load(DIGITS_MODEL)
        assert check_outputs("digits", session, oracle, sets_for(session, count, seed=1)) > 0
    assert check_intermediates("digits", session, oracle, sets_for(session, 2, seed=2)) > 0


def test_dscnn(golden: systola.Device, simulated: systola.Device) -> None:
    """Every tensor, and no more cycles than ten multiply-accumulates a cycle take; cycles do not vary."""
    path = model_path("dscnn")
    oracle = Oracle(path)
    session = golden.load(path)
    assert check_outputs("dscnn", session, oracle, sets_for(session, 5, seed=3)) > 0
    session = simulated.load(path)
    sets = sets_for(session, 3, seed=4)
    assert check_outputs("dscnn", session, oracle, sets) > 0
    cycles = session.counters["cycles"]
    assert cycles <= DSCNN_CYCLES <= session.program.macs / 10
    # The layers' cycles come from the marks; all but the END itself belong to some layer.
    assert cycles - 200 <= sum(layer.cycles for layer in session.layers) <= cycles
    predicted = sum(layer.predicted_cycles for layer in session.layers)
    assert abs(predicted - cycles) < cycles / 20
    assert check_intermediates("dscnn", session, oracle, sets[-1:]) > 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator(operator: str, golden: systola.Device, simulated: systola.Device) -> None:
    for seed in range(60_000, 60_003):
        model = operator_model(operator, seed)
        for device in (golden, simulated):
            assert check_model(model.name, device, model.data, inputs=2, seed=seed) > 0


def test_random_operators(simulated: systola.Device) -> None:
    for seed in range(61_000, 61_040):
        model = random_model(seed)
        assert check_model(model.name, simulated, model.data, inputs=2, seed=seed) > 0


def test_random_graphs(simulated: systola.Device) -> None:
    for seed in range(62_000, 62_006):
        model = graph_model(seed)
        assert check_model(model.name, simulated, model.data, inputs=2, seed=seed) > 0
