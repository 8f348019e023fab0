"""Whole LSTM layers in the interpreter, by a program laid out by hand, against the graph's kernel."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs.random_lstms import lstm_model, random_lstm
from support.programs.lstm_program import assemble_lstm

from systola_firmware.importer import import_tflite
from systola_firmware.ir.layers import Lstm
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode
from systola_firmware.spec.presets import PRESETS
from systola_sim.golden.lstm_layer import run_lstm
from systola_sim.machine.interpreter import Outcome, Schedule, execute

CONFIGS = [PRESETS[name] for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]


def random_layer(seed: int) -> Lstm:
    rng = np.random.default_rng(seed)
    features, units, batch, steps = (int(rng.integers(1, limit)) for limit in (30, 30, 5, 12))
    (layer,) = import_tflite(lstm_model(random_lstm(rng, features, units, time_major=True), batch, steps)).layers
    assert isinstance(layer, Lstm)
    return layer


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_programs_equal_the_kernel(config: Config, schedule: Schedule) -> None:
    for seed in range(6):
        layer = random_layer(seed)
        program = assemble_lstm(layer, config)
        x = np.random.default_rng(seed).integers(-128, 128, (3, *layer.inputs[0].shape), dtype=np.int8)
        memory = program.activation(x)
        outcome = execute(config, program.words, memory, program.weights, schedule=schedule)
        assert outcome == Outcome(ErrorCode.NONE, 0, ())
        for image, hidden, cell in zip(x, program.hidden_states(memory), program.cell_states(memory), strict=True):
            expected = run_lstm(layer, image)
            np.testing.assert_array_equal(hidden, expected.hidden)
            np.testing.assert_array_equal(cell, expected.cell[-1])
