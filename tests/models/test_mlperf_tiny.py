"""The five MLPerf Tiny models and TFLM's examples, bit for bit: outputs, every tensor on the way, cycles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.models.files import MLPERF_TINY, SUPPORTED_MODELS, model_path
from support.oracle.agreement import check_intermediates, check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola

#: Multiply-accumulates of ulx3s-85f's array a cycle.
ARRAY = 128

#: Of these, all tensors take long over the simulated serial line.
LARGEST = ("resnet8", "vww96", "dscnn")


def _quick_but(names: Sequence[str], *full: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.full) if name in full else name for name in names]


@pytest.mark.parametrize("name", SUPPORTED_MODELS)
def test_outputs_on_golden(name: str, golden: systola.Device) -> None:
    path = model_path(name)
    session = golden.load(path)
    assert check_outputs(name, session, Oracle(path), sets_for(session, 100, seed=1)) > 0


@pytest.mark.parametrize("name", SUPPORTED_MODELS)
def test_outputs_on_the_simulated_board(name: str, simulated: systola.Device) -> None:
    path = model_path(name)
    session = simulated.load(path)
    assert check_outputs(name, session, Oracle(path), sets_for(session, 10, seed=2)) > 0


@pytest.mark.parametrize("name", _quick_but(SUPPORTED_MODELS, "vww96"))
def test_every_tensor_on_golden(name: str, golden: systola.Device) -> None:
    path = model_path(name)
    session = golden.load(path)
    sets = sets_for(session, 11, seed=3)[-4:]
    tensors = check_intermediates(name, session, Oracle(path), sets)
    assert tensors >= len(sets) * sum(record.macs > 0 for record in session.program.layers)


@pytest.mark.parametrize("name", _quick_but(MLPERF_TINY, *LARGEST))
def test_every_tensor_on_the_simulated_board(name: str, simulated: systola.Device) -> None:
    path = model_path(name)
    session = simulated.load(path)
    sets = sets_for(session, 10, seed=4)[-3:]
    tensors = check_intermediates(name, session, Oracle(path), sets)
    assert tensors >= len(sets) * sum(record.macs > 0 for record in session.program.layers)


def test_resnet8_keeps_the_array_busy(simulated: systola.Device) -> None:
    """At least 70% of the array's multiply-accumulates over the whole inference, by the hardware's counters."""
    path = model_path("resnet8")
    session = simulated.load(path)
    check_outputs("resnet8", session, Oracle(path), sets_for(session, 1, seed=5))
    cycles = session.counters["cycles"]
    assert cycles <= 140_000
    assert session.program.macs / (cycles * ARRAY) >= 0.70
    # The layers' cycles come from the marks; all but the END itself belong to some layer.
    assert cycles - 100 <= sum(layer.cycles for layer in session.layers) <= cycles
