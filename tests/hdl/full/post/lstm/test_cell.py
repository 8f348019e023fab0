"""Both LSTM cells against ``systola_sim.golden.lstm_cell``: more than a million steps each, at full rate and with
gaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support.benches.lstm_steps import ITEM, RESULT, expected, random_constants, random_items
from support.benches.stream_block import CompiledStream

from systola_firmware.spec import isa
from systola_hdl.full.post.lstm.cell import LSTM_CONSTANTS, LSTM_ITEM, LSTM_RESULT, LstmCell
from systola_hdl.full.post.lstm.cell_serial import SerialLstmCell
from systola_sim.golden import lstm_cell as model

RUNS = 28
STEPS = 40_000

Cell = type[LstmCell] | type[SerialLstmCell]


def run_exponents() -> npt.NDArray[np.int64]:
    """The exponent of each run: every one equally often."""
    return np.resize(np.arange(isa.CELL_EXPONENT_MINIMUM, isa.CELL_EXPONENT_MAXIMUM + 1), RUNS)


@pytest.mark.parametrize("cell", [LstmCell, SerialLstmCell])
def test_a_million_steps(cell: Cell) -> None:
    assert RUNS * STEPS > 1_000_000
    assert (LSTM_ITEM.size, LSTM_RESULT.size) == (8 * ITEM.itemsize, 8 * RESULT.itemsize)
    compiled = CompiledStream(cell())
    rng = np.random.default_rng(3)
    for run, exponent in enumerate(run_exponents()):
        constants = random_constants(rng, int(exponent))
        items = random_items(rng, STEPS, int(exponent))
        gaps = np.full(STEPS, cell.interval)
        if run % 2:
            gaps += rng.integers(0, 2 * cell.interval, STEPS) * (rng.random(STEPS) < 0.5)
        starts = np.cumsum(gaps)
        packed = items.view(np.uint8).reshape(STEPS, -1)
        results, ends = compiled.run(LSTM_CONSTANTS.const(constants.fields()).as_bits(), packed, starts, drain=2 * cell.latency)

        found = np.ascontiguousarray(results[:, : RESULT.itemsize]).view(RESULT)[:, 0]
        wanted = expected(items, constants)
        assert len(found) == STEPS
        np.testing.assert_array_equal(found["cell"], wanted["cell"], err_msg=str(constants))
        np.testing.assert_array_equal(found["hidden"], wanted["hidden"], err_msg=str(constants))
        delay = ends.astype(np.int64) - starts
        if run % 2:
            assert (delay.min(), delay.max()) == (cell.latency - (cell.interval - 1), cell.latency)
        else:
            assert delay.min() == delay.max() <= cell.latency


def test_steps_tell_roundings_apart() -> None:
    """f·c and i·g rounded once, half up or half away from zero, rarely differ from REQ: in these steps they do, at
    every scale."""
    rng = np.random.default_rng(3)
    for exponent in range(isa.CELL_EXPONENT_MINIMUM, isa.CELL_EXPONENT_MAXIMUM + 1):
        items = random_items(rng, STEPS, exponent)
        pre = model.saturate(items["preactivation"].astype(np.int32) + model.saturate(items["recurrent"]))
        input_gate, forget_gate = (model.sigmoid(pre[:, gate]) for gate in (0, 1))
        for product, bits in ((forget_gate * items["cell"], 15), (input_gate * model.tanh(pre[:, 2], -12), 30 + exponent)):
            exact = model.requantize(product, 1 << 30, 1 - bits)
            once = (product + (1 << (bits - 1))) >> bits
            away = np.sign(product) * ((np.abs(product) + (1 << (bits - 1))) >> bits)
            assert np.count_nonzero(exact != once) >= 20, (exponent, bits)
            assert np.count_nonzero(exact != away) >= 20, (exponent, bits)
