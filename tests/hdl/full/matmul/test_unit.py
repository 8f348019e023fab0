"""The full engine's MatmulUnit: throughput, and blocks that wait for time steps. ``hdl/test_matmul_unit.py`` has what
both engines promise."""

from __future__ import annotations

import itertools

import pytest
from support.benches.matmul_bench import FULL, Bench, broken, check, matmul

from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer


@pytest.mark.parametrize("name", FULL)
def test_convolution_keeps_array_busy(name: str) -> None:
    """Passes of 10 positions, six tiles a job, twice four jobs: not one cycle is lost from the first vector to the
    last."""
    config = FULL[name]
    bench = Bench(config, 7)
    layer = matmul(5, 1, x=(5, 3), y=(2, 40), k0=(2, 16), k1=(3, 40), group=(2, 0), block=(2, 160))
    outcome = bench.run([layer, layer])
    check(bench, [layer, layer], outcome)
    busy = outcome.events["array_busy"]
    assert busy == list(range(busy[0], busy[0] + 2 * 10 * 6 * 4))
    assert outcome.done[-1] == busy[-1] + 1


@pytest.mark.parametrize("name", FULL)
def test_fully_connected_is_bound_by_weights(name: str) -> None:
    """One position: a tile every max(row_groups, shortest_pass) cycles."""
    config = FULL[name]
    bench = Bench(config, 8)
    layer = matmul(3, 0, k0=(10, config.rows), group=(2, 0))
    outcome = bench.run([layer])
    check(bench, [layer], outcome)
    busy = outcome.events["array_busy"]
    period = max(config.row_groups, AccumulatorBuffer.shortest_pass)
    gaps = [after - before for before, after in itertools.pairwise(busy)]
    assert gaps[:9] == [period] * 9  # within a job
    assert gaps[9] == config.row_groups  # to the next job: another half, so only the weights count
    waits = len(outcome.events["wait_weights"])
    assert waits >= sum(gap - 1 for gap in gaps)


def test_time_steps_wait_with_their_weights_loaded() -> None:
    """The first vector of a block follows `step_done` at once; blocks of other instructions wait for nothing."""
    config = FULL["16x8"]
    bench = Bench(config, 13)
    layers = [matmul(3, 0, x=(2, 16), k0=(3, 16), group=(2, 0), block=(3, 32)) for _ in range(2)]
    layers[0] = broken(layers[0], {"recurrent": 1})
    done = (200, 300)
    pulses = iter(cycle in done for cycle in range(1 << 16))
    outcome = bench.run(layers, step_done=lambda: next(pulses))
    check(bench, layers, outcome)
    busy = outcome.events["array_busy"]
    first, second, third = busy[0], busy[12], busy[24]
    assert first < 30
    assert (second, third) == tuple(cycle + Streamer.issue_latency for cycle in done)
    for cycle in (second, third):
        assert set(range(cycle - 50, cycle)) <= set(outcome.events["wait_step"])
    assert max(outcome.events["wait_step"]) < third
