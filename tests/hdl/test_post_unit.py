# amaranth: UnusedElaboratable=no
"""What the PostUnits of both engines promise: the loops of POST, VECTOR and TABLE, and their errors, with stalls on
every port and without.

What only one of them does, and when, is in ``full/post/test_unit.py`` and ``compact/post/test_unit.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.compact_bench import COMPACT, CompactBench
from support.benches.post_bench import CONFIGS, LOOPS, POST_ERRORS, VECTOR_ERRORS, Bench, FullBench, describe

from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Rounding

Changes = dict[str, int]

NAMES = (*CONFIGS, "compact")


def bench_of(name: str, seed: int, stall: float, drain_latency: int = 2) -> Bench:
    """A bench by the name of its configuration; in the full engine the drain's latency is fixed."""
    if name == "compact":
        return CompactBench(COMPACT, seed, stall, drain_latency=drain_latency)
    return FullBench(CONFIGS[name], seed, stall)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_post(name: str, stall: float) -> None:
    bench = bench_of(name, len(name), stall, drain_latency=1)
    for case in range(7):
        counts = {loop: bench.rng.randint(1, 3) for loop in LOOPS}
        if case == 0:
            counts = {"x": 1, "y": 1, "group": 4, "block": 1}  # jobs of one position follow at once
        elif case == 1:
            counts = {"x": 1, "y": 1, "group": 3, "block": 2}
        bench.add_post(counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64))
    memories, _ = bench.run()
    assert memories.drained == sum(len(jobs) for _, jobs in bench.operations)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_wide_post(name: str, stall: float) -> None:
    """int16 outputs between int8 ones, some of them saturated."""
    bench = bench_of(name, 30 + len(name), stall)
    for case in range(5):
        counts = {loop: bench.rng.randint(1, 3 if bench.config.compact else 2) for loop in LOOPS}
        changes = {"shift": -2 - 6 * case} if case < 4 else {}
        bench.add_post(counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64), wide=int(case != 2), **changes)
    memories, _ = bench.run()
    assert memories.drained == sum(len(jobs) for _, jobs in bench.operations)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_vector(name: str, stall: float) -> None:
    """Tables, ADD, unary, pooling and fill, each with several groups, the last one partial."""
    bench = bench_of(name, 10 + len(name), stall)
    config = bench.config
    lanes = config.requantize_lanes
    rng = bench.rng
    # Entries that a sum of two cannot be told from by their low bits alone, and any for the first.
    entries = np.random.default_rng(4).integers(-(1 << 27), 1 << 27, 512).astype("<i4")
    entries[:4] = (2**31 - 1, -(2**31), 2**31 - 1, -(2**31))
    bench.weights[-2048:] = entries.view(np.int8)
    bench.add(Opcode.TABLE, source=(config.weight_bytes - 2048) // config.weight_word_bytes, tables=2)
    last = rng.randint(1, lanes)
    planes = {"group_count": 2, "group_step": lanes, "last_lanes": last, "x_count": 3, "y_count": 2}
    steps = {"x_step": 2 * lanes, "y_step": 7 * lanes, "x_step1": 3 * lanes, "y_step1": 11 * lanes}
    out = {"x_step_out": 2 * lanes, "y_step_out": 6 * lanes, "destination": 2001}
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
    taps = {"t0_count": 3, "t0_step": 2 * lanes, "t1_count": 2, "t1_step": 7 * lanes}
    bench.add(Opcode.VECTOR, **(bench.vector(**planes, **steps, **out, **taps, source=9, combine=Combine.MAX) | bench.output()))
    average = {"requantize": 1, "rounding": Rounding.SINGLE, "multiplier": (1 << 33) // 6 + 1, "shift": -2}
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, **average, source=9))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, source=9, table=1))
    # two operands without tables, and MAX of two
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, bias=2**31 - 1))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, combine=Combine.MAX))
    # fill; every random requantization in place
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **out, sources=0, bias=-77, zero_point=7))
    positions = 12 if bench.config.compact else 4
    for _ in range(3):
        bench.add(
            Opcode.VECTOR,
            **(bench.vector(x_count=positions, x_step=lanes, x_step_out=lanes, requantize=1) | bench.factor() | bench.output()),
        )
    bench.run()


#: By engine: what its sizes make of more changes.
OWN_POST_ERRORS = {
    "tiny-8x4": [
        ({"parameters": 1023}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": 1022}, ErrorCode.NONE),
        ({"parameters": 1022, "group_count": 2}, ErrorCode.WEIGHT_ADDRESS),
    ],
    "compact": [
        ({"shift": 6}, ErrorCode.NONE),
        ({"shift": -31}, ErrorCode.NONE),
        ({"parameters": 2048}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": 2045}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": 1 << 14}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": 2044}, ErrorCode.NONE),
        ({"parameters": 2044, "group_count": 2}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": 2040, "per_channel": 1}, ErrorCode.WEIGHT_ADDRESS),
        ({"destination": 4095 - 6, "group_count": 2, "parameters": 2044}, ErrorCode.ACTIVATION_ADDRESS),
    ],
}
OWN_VECTOR_ERRORS = {
    "tiny-8x4": [
        ({"last_lanes": 5}, ErrorCode.BAD_FIELD),
        ({"source": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
        ({"source": 4096 - 12}, ErrorCode.NONE),
        ({"source": 4096 - 12, "t0_count": 2, "t0_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"destination": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
        ({"destination": 4096 - 11, "last_lanes": 3}, ErrorCode.NONE),
        ({"destination": 4096 - 12}, ErrorCode.NONE),
    ],
    "compact": [
        ({"last_lanes": 2}, ErrorCode.BAD_FIELD),
        ({"source": 4096 - 8}, ErrorCode.ACTIVATION_ADDRESS),
        ({"source": 4096 - 9}, ErrorCode.NONE),
        ({"source": 4096 - 9, "t0_count": 2, "t0_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"sources": 0, "destination": 4096 - 6}, ErrorCode.ACTIVATION_ADDRESS),
        ({"sources": 0, "destination": 4096 - 8, "group_count": 4, "group_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"destination": 4096 - 8}, ErrorCode.ACTIVATION_ADDRESS),
        ({"destination": 4096 - 9}, ErrorCode.NONE),
        ({"destination": -1 & 0xFFFFF}, ErrorCode.ACTIVATION_ADDRESS),
    ],
}
TABLE_ERRORS = {
    "tiny-8x4": [
        ({"tables": 0}, ErrorCode.BAD_FIELD),
        ({"tables": 3}, ErrorCode.BAD_FIELD),
        ({"tables": 1, "source": 1024 - 128}, ErrorCode.NONE),
        ({"tables": 2, "source": 1024 - 255}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ],
    "compact": [
        ({"tables": 0}, ErrorCode.BAD_FIELD),
        ({"tables": 3}, ErrorCode.BAD_FIELD),
        ({"tables": 1, "source": 2048 - 256}, ErrorCode.NONE),
        ({"tables": 1, "source": 2048 - 255}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 2, "source": 2048 - 512}, ErrorCode.NONE),
        ({"tables": 2, "source": 2048 - 511}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": 1 << 14}, ErrorCode.WEIGHT_ADDRESS),
    ],
}


def rows(common: list[tuple[Changes, ErrorCode]], own: dict[str, list[tuple[Changes, ErrorCode]]]) -> list[object]:
    """Test parameters: a table for each engine, with its own rows."""
    return [
        pytest.param(name, changes, code, id=f"{name}-{describe(changes)}-{code.name}")
        for name, more in own.items()
        for changes, code in common + more
    ]


@pytest.mark.parametrize(("name", "changes", "code"), rows(POST_ERRORS, OWN_POST_ERRORS))
def test_post_errors(name: str, changes: Changes, code: ErrorCode) -> None:
    bench = bench_of(name, 1, 0.3)
    bench.add_good_post(changes)
    bench.run_alone(code)


@pytest.mark.parametrize(("name", "changes", "code"), rows(VECTOR_ERRORS, OWN_VECTOR_ERRORS))
def test_vector_errors(name: str, changes: Changes, code: ErrorCode) -> None:
    bench = bench_of(name, 2, 0.3)
    bench.add_good_vector(changes)
    bench.run_alone(code)


@pytest.mark.parametrize(("name", "changes", "code"), rows([], TABLE_ERRORS))
def test_table_errors(name: str, changes: Changes, code: ErrorCode) -> None:
    bench = bench_of(name, 2, 0.3)
    bench.add(Opcode.TABLE, **changes)
    bench.run_alone(code)
