"""PostUnit against the loops of the instruction set: POST, VECTOR, TABLE, errors, with stalls on every port and
without."""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.compact_bench import COMPACT, CompactBench
from support.benches.post_bench import GOOD_POST, LOOPS, POST_ERRORS, ROUNDINGS, VECTOR_ERRORS, describe

from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Rounding

STALLS = [0.0, 0.4]


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("wide", [0, 1])
def test_post(stall: float, wide: int) -> None:
    bench = CompactBench(seed=1 + wide, stall=stall, drain_latency=1 + wide)
    for case in range(5):
        counts = {loop: bench.rng.randint(1, 3) for loop in LOOPS}
        if case == 0:
            counts = {"x": 1, "y": 1, "group": 3, "block": 2}  # jobs of one position follow at once
        bench.add_post(counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64), wide=wide)
    bench.run()
    assert bench.drained == sum(len(jobs) for _, jobs in bench.operations)


@pytest.mark.parametrize("drain_latency", [1, 2])
def test_post_takes_eight_cycles_a_position(drain_latency: int) -> None:
    """Four outputs, one access to the memory; more only if the accumulators take more than a cycle to answer."""
    bench = CompactBench(drain_latency=drain_latency)
    bench.weights[:] = 0  # biases, too, for sums of at most 23 bits
    positions = {"x_count": 5, "x_step": 8, "y_count": 4, "y_step": 40, "group_count": 2, "group_step": 4, "block_count": 2}
    jobs = [bench.accumulators(20) >> 10 for _ in range(4)]
    bench.add(Opcode.POST, jobs, **(GOOD_POST | positions), block_step=160, per_channel=1)
    (cycles,) = bench.run()
    assert len(bench.writes) == 80
    assert all(mask == 0xF for _, _, mask in bench.writes)
    assert cycles < 80 * (7 + drain_latency) + 4 * 20


@pytest.mark.parametrize("stall", STALLS)
def test_vector(stall: float) -> None:
    """Tables, ADD, unary, pooling and fill, with several loops."""
    bench = CompactBench(seed=10, stall=stall)
    rng = bench.rng
    # Entries that a sum of two cannot be told from by their low bits alone, and any for the first.
    entries = np.random.default_rng(4).integers(-(1 << 27), 1 << 27, 512).astype("<i4")
    entries[:4] = (2**31 - 1, -(2**31), 2**31 - 1, -(2**31))
    bench.weights[-2048:] = entries.view(np.int8)
    bench.add(Opcode.TABLE, source=(COMPACT.weight_bytes - 2048) // 4, tables=2)
    planes = {"group_count": 2, "group_step": 1, "x_count": 3, "y_count": 2}
    steps = {"x_step": 2, "y_step": 7, "x_step1": 3, "y_step1": 11}
    out = {"x_step_out": 2, "y_step_out": 6, "destination": 2001}
    # ADD
    add = bench.vector(
        **planes, **steps, **out, source=5, source1=1001, sources=2, table=1, requantize=1, bias=rng.randint(-999, 999)
    )
    bench.add(Opcode.VECTOR, **(add | bench.output()), multiplier=rng.randrange(1 << 30, 1 << 31), shift=-19)
    # unary look-up: only the clamp after the table
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1))
    # both identities of an int32 without requantization: nothing wraps on the way to the clamp; T1 stays
    identities = np.arange(-128, 128, dtype="<i4")
    identities[::4] = 2**31 - 1  # so far from some entries that 32 bits do not hold the difference
    bench.weights[:1024] = identities.view(np.int8)
    bench.add(Opcode.TABLE, source=0, tables=1)
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1, zero_point=-3))
    bench.add(
        Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, source1=40, sources=2, table=1, combine=Combine.MAX)
    )
    # max and average pooling
    taps = {"t0_count": 3, "t0_step": 2, "t1_count": 2, "t1_step": 7}
    bench.add(Opcode.VECTOR, **(bench.vector(**planes, **steps, **out, **taps, source=9, combine=Combine.MAX) | bench.output()))
    average = {"requantize": 1, "rounding": Rounding.SINGLE, "multiplier": (1 << 33) // 6 + 1, "shift": -2}
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, **average, source=9))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, source=9, table=1))
    # two operands without tables, and MAX of two
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, bias=2**31 - 1))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, combine=Combine.MAX))
    # every random requantization in place
    for _ in range(4):
        bench.add(
            Opcode.VECTOR,
            **(bench.vector(x_count=9, x_step=1, x_step_out=1, requantize=1) | bench.factor() | bench.output()),
        )
    bench.run()


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
    fill, unary, pool = bench.run()
    assert fill < 128 + 60
    assert unary < 2 * 200 + 60
    assert pool < 4 * (125 + 12) + 60


OWN_POST_ERRORS = [
    ({"shift": 6}, ErrorCode.NONE),
    ({"shift": -31}, ErrorCode.NONE),
    ({"parameters": 2048}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 2045}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 1 << 14}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 2044}, ErrorCode.NONE),
    ({"parameters": 2044, "group_count": 2}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 2040, "per_channel": 1}, ErrorCode.WEIGHT_ADDRESS),
    ({"destination": 4095 - 6, "group_count": 2, "parameters": 2044}, ErrorCode.ACTIVATION_ADDRESS),
]


@pytest.mark.parametrize(("changes", "code"), POST_ERRORS + OWN_POST_ERRORS, ids=describe)
def test_post_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = CompactBench(stall=0.3)
    bench.add_good_post(changes)
    bench.run_alone(code)


OWN_VECTOR_ERRORS = [
    ({"last_lanes": 2}, ErrorCode.BAD_FIELD),
    ({"source": 4096 - 8}, ErrorCode.ACTIVATION_ADDRESS),
    ({"source": 4096 - 9}, ErrorCode.NONE),
    ({"source": 4096 - 9, "t0_count": 2, "t0_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 0, "destination": 4096 - 6}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 0, "destination": 4096 - 8, "group_count": 4, "group_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4096 - 8}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4096 - 9}, ErrorCode.NONE),
    ({"destination": -1 & 0xFFFFF}, ErrorCode.ACTIVATION_ADDRESS),
]


@pytest.mark.parametrize(("changes", "code"), VECTOR_ERRORS + OWN_VECTOR_ERRORS, ids=describe)
def test_vector_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = CompactBench(seed=2, stall=0.3)
    bench.add_good_vector(changes)
    bench.run_alone(code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tables": 0}, ErrorCode.BAD_FIELD),
        ({"tables": 3}, ErrorCode.BAD_FIELD),
        ({"tables": 1, "source": 2048 - 256}, ErrorCode.NONE),
        ({"tables": 1, "source": 2048 - 255}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 2, "source": 2048 - 512}, ErrorCode.NONE),
        ({"tables": 2, "source": 2048 - 511}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": 1 << 14}, ErrorCode.WEIGHT_ADDRESS),
    ],
    ids=describe,
)
def test_table_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = CompactBench(seed=2, stall=0.3)
    bench.add(Opcode.TABLE, **changes)
    bench.run_alone(code)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_bad_word_is_forgotten_with_its_instruction(rounding: Rounding) -> None:
    """Fields that another opcode's rules would refuse, and the same words in the next instruction."""
    bench = CompactBench(seed=3)
    bench.add(Opcode.VECTOR, **bench.vector(rounding=7, shift=127, group_count=4, group_step=1, destination=4))
    bench.add_post({"x": 2, "y": 1, "group": 1, "block": 1}, per_channel=True, rounding=rounding, shift=100, wide=0)
    bench.add(Opcode.TABLE, tables=1, source=3)
    bench.add(Opcode.VECTOR, **bench.vector(group_count=4, group_step=1, destination=40))
    bench.run()
