"""A time step of an LSTM of 128 units by the hardware's own counters, against the weight memory's speed; answers
against golden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.models.inputs import random_input

import systola
from systola.commands.reports import batch_table
from systola.measure.benchmark import Record, step_bound
from systola.measure.synthetic import BATCHES, UNITS, compile_lstm, lstm_graph, measure_lstm
from systola_firmware.spec.presets import preset

#: Few: the recurrence is one loop whose steps cost the same, but for the first, which waits for no LSTM.
STEPS = 4


@pytest.fixture(scope="module")
def records(simulated: systola.Device) -> dict[int, Record]:
    """By number of sequences."""
    return {batch: measure_lstm(simulated, batch, steps=STEPS) for batch in BATCHES}


def _recurrence(record: Record) -> dict[str, Any]:
    (layer,) = record["layers"]
    return dict(layer["recurrence"])


def test_one_sequence_runs_at_the_speed_of_the_weight_memory(records: dict[int, Record]) -> None:
    each = _recurrence(records[1])
    assert (each["steps"], each["units"]) == (STEPS, UNITS)
    assert each["weight_bound"] == step_bound(UNITS, preset("ulx3s-85f")) == 4 * 128 * 128 / 32
    assert each["weight_bound"] / each["cycles"] >= 0.85


@pytest.mark.parametrize(("batch", "limit"), [(2, 1.15), (4, 1.4)])
def test_sequences_share_each_weight_load(records: dict[int, Record], batch: int, limit: float) -> None:
    # No less than one: a step loads all weights, whatever the number of sequences.
    assert 1 <= _recurrence(records[batch])["cycles"] / _recurrence(records[1])["cycles"] <= limit


def test_every_unit_leaves_the_cell_once_a_step(records: dict[int, Record]) -> None:
    assert [_recurrence(records[batch])["cell_busy"] for batch in BATCHES] == [UNITS * batch for batch in BATCHES]


def test_the_table_shows_them_all(records: dict[int, Record]) -> None:
    table = batch_table(list(records.values()))
    assert table is not None
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [str(batch) for batch in BATCHES]
    assert cells[-1][0] == "1.00×"
    assert batch_table([{key: value for key, value in records[1].items() if key != "batch"}]) is None


@pytest.mark.parametrize("batch", BATCHES)
def test_the_answers_are_those_of_the_golden_model(batch: int, golden: systola.Device, simulated: systola.Device) -> None:
    graph = lstm_graph(steps=STEPS, batch=batch)
    x = random_input(graph.inputs[0].shape, np.random.default_rng(batch))
    expected, answer = (np.asarray(d.load(compile_lstm(graph, d.config)).run(x)) for d in (golden, simulated))
    assert len(np.unique(expected)) > 50  # gates in their middle
    np.testing.assert_array_equal(answer, expected)


def test_one_that_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(systola.ProgramError, match=r"^lstm_128_batch_1: "):
        compile_lstm(lstm_graph(), preset("tiny-4x4"))
