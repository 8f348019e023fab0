"""The compact engine's PostUnit: throughput, fills by words, and words before a start. ``hdl/test_post_unit.py`` has
what both engines promise."""

from __future__ import annotations

import pytest
from support.benches.compact_bench import CompactBench
from support.benches.post_bench import GOOD_POST, ROUNDINGS

from systola_firmware.spec.isa import Combine, Opcode, Rounding

STALLS = [0.0, 0.4]


@pytest.mark.parametrize("drain_latency", [1, 2])
def test_post_takes_eight_cycles_a_position(drain_latency: int) -> None:
    """Four outputs, one access to the memory; more only if the accumulators take more than a cycle to answer."""
    bench = CompactBench(drain_latency=drain_latency)
    bench.weights[:] = 0  # biases, too, for sums of at most 23 bits
    positions = {"x_count": 5, "x_step": 8, "y_count": 4, "y_step": 40, "group_count": 2, "group_step": 4, "block_count": 2}
    jobs = [bench.accumulators(20) >> 10 for _ in range(4)]
    bench.add(Opcode.POST, jobs, **(GOOD_POST | positions), block_step=160, per_channel=1)
    memories, (cycles,) = bench.run()
    assert len(memories.writes) == 80
    assert all(mask == 0xF for _, _, mask in memories.writes)
    assert cycles < 80 * (7 + drain_latency) + 4 * 20


@pytest.mark.parametrize("stall", STALLS)
def test_fill(stall: float) -> None:
    """By words where all is aligned, else by bytes; both identities; requantized."""
    bench = CompactBench(seed=11, stall=stall)
    for changes in (
        {"destination": 8, "group_count": 12, "x_step_out": 20},
        {"destination": 9, "group_count": 12, "x_step_out": 20},
        {"destination": 8, "group_count": 11, "x_step_out": 20},
        {"destination": 8, "group_count": 12, "x_step_out": 18, "combine": Combine.MAX, "bias": 200},
        {"destination": 1200, "group_count": 4, "x_step_out": 8, "y_step_out": -200, "y_count": 3},
        {"destination": 1200, "group_count": 4, "x_step_out": 8, "y_step_out": 201, "y_count": 3},
        {"destination": 1200, "group_count": 8, "group_step": 2},
        {"destination": 1200, "group_count": 8, "group_step": -4, "source": (1 << 20) - 1, "source1": (1 << 20) - 1},
        {"requantize": 1, "bias": 1000000, "multiplier": 5 << 28, "shift": -14, "zero_point": 20, "x_step_out": 4},
    ):
        bench.add(Opcode.VECTOR, **bench.vector(**({"sources": 0, "bias": -77, "group_step": 1, "x_count": 3} | changes)))
    bench.run()


def test_vector_speed() -> None:
    """A fill writes four bytes a cycle; an output with one operand takes two cycles, a window's tap one."""
    bench = CompactBench()
    bench.add(Opcode.VECTOR, **bench.vector(sources=0, group_count=512, group_step=1, destination=1024))
    bench.add(Opcode.VECTOR, **bench.vector(group_count=200, group_step=1, destination=1024))
    bench.add(Opcode.VECTOR, **bench.vector(t0_count=125, t0_step=16, group_count=4, group_step=1, destination=3000))
    _, (fill, unary, pool) = bench.run()
    assert fill < 128 + 60
    assert unary < 2 * 200 + 60
    assert pool < 4 * (125 + 12) + 60


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_bad_word_is_forgotten_with_its_instruction(rounding: Rounding) -> None:
    """Fields that another opcode's rules would refuse, and the same words in the next instruction."""
    bench = CompactBench(seed=3)
    bench.add(Opcode.VECTOR, **bench.vector(rounding=7, shift=127, group_count=4, group_step=1, destination=4))
    bench.add_post({"x": 2, "y": 1, "group": 1, "block": 1}, per_channel=True, rounding=rounding, shift=100, wide=0)
    bench.add(Opcode.TABLE, tables=1, source=3)
    bench.add(Opcode.VECTOR, **bench.vector(group_count=4, group_step=1, destination=40))
    bench.run()
