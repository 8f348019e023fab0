"""Random single-operator models and small graphs: compiled programs against TFLM."""

from __future__ import annotations

import pytest
from support.models.random_models import OPERATORS, RandomModel, graph_model, operator_model, random_model
from support.oracle.agreement import check_intermediates, check_model, sets_for
from support.oracle.tflm import Oracle

import systola

#: Models of one test; together with the number of tests this makes the campaign.
CHUNK = 100


def _check(device: systola.Device, model: RandomModel, *, inputs: int = 3) -> None:
    assert check_model(model.name, device, model.data, inputs=inputs, seed=len(model.data)) > 0


@pytest.mark.parametrize("chunk", range(20))
def test_operators_on_golden(chunk: int, golden: systola.Device) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        _check(golden, random_model(seed))


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(20, 120))
def test_more_operators_on_golden(chunk: int, golden: systola.Device) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        _check(golden, random_model(seed))


@pytest.mark.parametrize("chunk", [0, 1, 2, pytest.param(3, marks=pytest.mark.full)])
def test_operators_on_the_simulated_board(chunk: int, simulated: systola.Device) -> None:
    for seed in range(10_000 + chunk * 40, 10_000 + (chunk + 1) * 40):
        _check(simulated, random_model(seed))


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(20))
def test_more_operators_on_the_simulated_board(chunk: int, simulated: systola.Device) -> None:
    for seed in range(20_000 + chunk * 50, 20_000 + (chunk + 1) * 50):
        _check(simulated, random_model(seed))


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_on_both_devices(operator: str, golden: systola.Device, simulated: systola.Device) -> None:
    for seed in range(30_000, 30_003):
        model = operator_model(operator, seed)
        _check(golden, model)
        _check(simulated, model)


@pytest.mark.parametrize("preset", ["tiny-4x4", "tiny-8x4", "wide-16x16"])
def test_operators_on_other_arrays(preset: str) -> None:
    """Programs differ from array to array; the golden device executes them by the sizes of its configuration."""
    with systola.open(f"golden:{preset}") as device:
        for seed in range(40_000, 40_100):
            _check(device, random_model(seed))


@pytest.mark.parametrize("chunk", range(3))
def test_graphs(chunk: int, golden: systola.Device, simulated: systola.Device) -> None:
    for seed in range(chunk * 20, (chunk + 1) * 20):
        model = graph_model(seed)
        _check(golden, model)
        session = golden.load(model.data)
        check_intermediates(model.name, session, Oracle(model.data), sets_for(session, 2, seed))
        if seed % 4 == 0:
            _check(simulated, model)
