"""The compact engine's MatmulUnit: throughput, and what it does that the full one does not. ``hdl/test_matmul_unit.py``
has what both promise."""

from __future__ import annotations

import itertools

import pytest
from support.benches.matmul_bench import COMPACT, LOOPS, Bench, check, matmul

from systola_firmware.spec.isa import Operation
from systola_hdl.compact.address_generator import AddressGenerator
from systola_hdl.compact.matmul.accumulators import Accumulators
from systola_hdl.compact.matmul.dot_array import DotArray
from systola_hdl.compact.memory.activation_memory import ActivationMemory


def cycles_of_rows(layer: Operation, walker: AddressGenerator) -> list[int]:
    """Cycles of the vectors from the first on, if nothing but making rows takes time."""
    cycles, now, row = [], 0, 0
    counts = [layer[f"{loop}_count"] for loop in LOOPS]
    for index in itertools.product(*(range(count) for count in reversed(counts))):
        if index[-1] == 0 and cycles:
            level = next(level for level, count in enumerate(index[::-1]) if count)
            now = max(now, row + walker.row_cycles(level))
        if index[-1] == 0:
            row = now
        cycles.append(now)
        now += 1
    return cycles


@pytest.mark.parametrize("diagonal", [0, 1])
def test_convolutions_keep_array_busy(diagonal: int) -> None:
    """Passes of 20 positions in rows of 5: only the longer way to a new group, or to a new row of taps, costs a few
    cycles."""
    bench = Bench(COMPACT, 7)
    loops = {"k0": (3, 4), "k1": (3, 40), "group": (2, 4)} if diagonal else {"k0": (16, 4), "group": (2, 0)}
    layer = matmul(4, 1, diagonal, x=(5, 16), y=(4, 80), **loops)
    pauses = iter([1000] + [0] * 39)
    outcome = bench.run([layer], drain_pause=lambda: next(pauses))  # both halves are full by then
    check(bench, [layer], outcome)
    busy = outcome.events["array_busy"]
    assert [cycle - busy[0] for cycle in busy] == cycles_of_rows(layer, bench.unit.streamer.generator)
    assert len(busy) / (busy[-1] + 1 - busy[0]) > 0.97
    assert outcome.done == [busy[-1] + 1]


def test_fully_connected() -> None:
    """One position: the loader, or the walker, is the limit."""
    bench = Bench(COMPACT, 8)
    layer = matmul(2, 0, k0=(20, 4), group=(2, 0))
    outcome = bench.run([layer])
    check(bench, [layer], outcome)
    gaps = {after - before for before, after in itertools.pairwise(outcome.events["array_busy"][:20])}
    assert gaps == {max(bench.unit.streamer.generator.row_cycles(2), COMPACT.rows + 1)}


def test_drain_pauses_the_array() -> None:
    """A drain that comes when every vector is added to old sums waits for no longer than its patience and the way to
    the array."""
    bench = Bench(COMPACT, 9)
    layer = matmul(4, 1, x=(16, 16), y=(2, 256), k0=(8, 4), group=(4, 0))
    outcome = bench.run([layer], drain_pause=lambda: 6)
    check(bench, [layer], outcome)
    limit = Accumulators.patience + ActivationMemory.read_latency + DotArray.latency - 1
    assert max(outcome.waits) == limit
    paused = sum(wait == limit for wait in outcome.waits)
    assert len(outcome.events["wait_post"]) >= paused


def test_recurrent_instruction_stops_after_its_first_block() -> None:
    """There is no LSTM to complete a time step; one block is an instruction like any other."""
    bench = Bench(COMPACT, 11)
    layers = [matmul(0, 0, recurrent=1, x=(8, 8), k0=(2, 8), group=(2, 0)), matmul(0, 0, recurrent=1, x=(3, 8), block=(2, 8))]
    outcome = bench.run(layers, cycles=1000, until=3)
    assert len(outcome.halves) == 3
    assert len(outcome.done) == 1
    assert len(outcome.events["array_busy"]) == 2 * 2 * 8 + 3
