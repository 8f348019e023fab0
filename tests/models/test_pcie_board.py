"""Whole models over PCIe, by the driver that real devices have: blocks by DMA, inferences in flight, answers bit for
bit."""

from __future__ import annotations

import numpy as np
import pytest
from support.models.files import DIGITS_LSTM, DIGITS_MODEL, model_path
from support.oracle.agreement import check_intermediates, check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola


@pytest.mark.parametrize("name", ["digits", "strww", "hello_world"])
def test_models_on_the_golden_engine(name: str) -> None:
    path = DIGITS_MODEL if name == "digits" else model_path(name)
    with systola.open("pcie:golden:ulx3s-85f") as device:
        session, oracle = device.load(path, verify=True), Oracle(path)
        sets = sets_for(session, 20, seed=8)
        assert check_outputs(name, session, oracle, sets) > 0
        check_intermediates(name, session, oracle, sets[-1:])


def test_batches_and_streams_on_the_golden_engine(golden: systola.Device) -> None:
    x = np.random.default_rng(9).integers(-128, 128, (7, *golden.load(DIGITS_LSTM).inputs[0].shape), dtype=np.int8)
    with systola.open("pcie:golden:ulx3s-85f") as device:
        for options in ({"batch": 3}, {"stateful": True}):
            np.testing.assert_array_equal(device.load(DIGITS_LSTM, **options).run(x), golden.load(DIGITS_LSTM, **options).run(x))
