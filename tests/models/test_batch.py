"""Inferences side by side in one program: answers are TFLM's whatever the grouping, and an LSTM shares its loads of
weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.files import DIGITS_LSTM, DIGITS_MODEL, model_path
from support.models.random_lstm import lstm_model
from support.models.random_models import graph_model, random_model
from support.oracle.agreement import check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola

#: Not a multiple of the batch: the last group is filled up.
INPUTS, BATCH = 7, 3


@pytest.mark.parametrize(
    "name", ["trained_lstm", "digits_lstm", "digits_lstm_own", "digits", "ad01", "strww", "hello_world", "dscnn", "micro_speech"]
)
def test_real_models_on_golden(name: str, golden: systola.Device) -> None:
    path = model_path(name)
    alone = golden.load(path).program
    session, oracle = golden.load(path, batch=BATCH), Oracle(path)
    assert session.program.batch == BATCH
    assert check_outputs(name, session, oracle, sets_for(session, INPUTS, seed=1)) > 0
    assert [binding.shape for binding in session.inputs] == [binding.shape for binding in alone.inputs]
    (single,) = sets_for(session, INPUTS, seed=1)[-1]
    np.testing.assert_array_equal(session.run(single), oracle.run(single)[0])
    assert session.program.macs == BATCH * alone.macs


@pytest.mark.parametrize("path", [DIGITS_LSTM, DIGITS_MODEL], ids=["digits_lstm", "digits_cnn"])
def test_the_layers_answers_are_those_of_one_inference(path: Path, golden: systola.Device) -> None:
    alone = golden.load(path)
    sets = sets_for(alone, 9, seed=2)[-2:]
    expected = [alone.intermediates(x) for (x,) in sets]
    session = golden.load(path, batch=BATCH)
    for (x,), wanted in zip(sets, expected, strict=True):
        found = session.intermediates(x)
        assert list(found) == list(wanted)
        for layer, values in wanted.items():
            np.testing.assert_array_equal(found[layer], values)


@pytest.mark.parametrize(("make", "models", "least"), [(lstm_model, 16, 10), (random_model, 60, 50), (graph_model, 30, 20)])
def test_random_models_on_golden(make: Any, models: int, least: int, golden: systola.Device) -> None:
    checked = 0
    for seed in range(5000, 5000 + models):
        model = make(seed)
        try:
            session = golden.load(model.data, batch=BATCH)
        except systola.ProgramError:  # too large, or without an axis for the batch
            continue
        checked += 1
        assert check_outputs(model.name, session, Oracle(model.data), sets_for(session, INPUTS, seed)) > 0
    assert checked >= least


def test_four_sequences_on_the_simulated_board(simulated: systola.Device) -> None:
    path = model_path("trained_lstm")
    oracle = Oracle(path)
    cycles = {}
    for batch in (1, 4):
        session = simulated.load(path, batch=batch)
        assert check_outputs("trained_lstm", session, oracle, sets_for(session, 6, seed=3)) > 0
        cycles[batch] = session.counters["cycles"]
    assert cycles[4] < 4 * cycles[1] / 1.5
