"""The cost model on programs small enough to count by hand, and its ordering properties."""

from __future__ import annotations

import numpy as np

from systola_firmware.lowering.cost import (
    COMPACT_DRAIN,
    COMPACT_INSTRUCTION,
    COMPACT_JOB,
    COMPACT_LATENCY,
    COMPACT_MARK,
    COMPACT_START,
    COMPACT_WINDOW,
    DRAIN_OVERHEAD,
    INSTRUCTION_CYCLES,
    JOB_CYCLES,
    VECTOR_OVERHEAD,
    array_cycles,
    array_latency,
    drain_cycles,
    predict,
)
from systola_firmware.spec.isa import Opcode, Operation, Unit
from systola_firmware.spec.presets import preset

CONFIG = preset("ulx3s-85f")


def pair(positions: int, passes: int, jobs: int, **header: tuple[Unit, ...]) -> list[Operation]:
    """MATMUL and POST of ``jobs`` jobs."""
    ones = {f"{name}_count": 1 for name in ("y", "k1", "k2", "block")}
    matmul = Operation(
        Opcode.MATMUL, {**ones, "x_count": positions, "k0_count": passes, "group_count": jobs}, wait=header.get("wait", ())
    )
    post = Operation(
        Opcode.POST,
        {"x_count": positions, "y_count": 1, "group_count": jobs, "block_count": 1},
        signal=header.get("signal", ()),
    )
    return [matmul, post]


def test_a_pass_is_never_shorter_than_the_weight_load() -> None:
    assert array_cycles(10, 1, CONFIG) == 10 * CONFIG.row_groups + JOB_CYCLES
    assert array_cycles(10, 100, CONFIG) == 1000 + JOB_CYCLES
    assert drain_cycles(100, CONFIG.replace(requantize_lanes=2)) == 400 + DRAIN_OVERHEAD


def test_one_job_is_the_array_then_the_drain() -> None:
    done = predict(pair(64, 9, 1), CONFIG)
    assert done[1] == INSTRUCTION_CYCLES + array_cycles(9, 64, CONFIG) + array_latency(CONFIG) + drain_cycles(64, CONFIG)


def test_drains_hide_behind_a_long_reduction_and_bound_a_short_one() -> None:
    jobs = 10
    long = predict(pair(64, 9, jobs), CONFIG)[1] - predict(pair(64, 9, jobs - 1), CONFIG)[1]
    assert long == array_cycles(9, 64, CONFIG)
    short = predict(pair(64, 1, jobs), CONFIG)[1] - predict(pair(64, 1, jobs - 1), CONFIG)[1]
    assert short == drain_cycles(64, CONFIG)


def test_a_token_makes_the_array_wait_for_post() -> None:
    free = predict([*pair(64, 1, 4), *pair(64, 9, 1)], CONFIG)
    tied = predict([*pair(64, 1, 4, signal=(Unit.MATMUL,)), *pair(64, 9, 1, wait=(Unit.POST,))], CONFIG)
    assert tied[2] == tied[1] + INSTRUCTION_CYCLES
    assert tied[3] > free[3]


def test_vector_and_table_cycles() -> None:
    vector = dict.fromkeys(("t1_count", "y_count"), 1) | {"t0_count": 4, "x_count": 5, "group_count": 6}
    operations = [
        Operation(Opcode.VECTOR, {**vector, "sources": 1}),
        Operation(Opcode.VECTOR, {**vector, "t0_count": 1, "sources": 2}),
        Operation(Opcode.VECTOR, {**vector, "t0_count": 1}),
        Operation(Opcode.TABLE, {"tables": 2}),
        Operation(Opcode.END, {}),
    ]
    done = predict(operations, CONFIG)
    spans = np.diff([0, *done]).tolist()
    overhead = VECTOR_OVERHEAD + INSTRUCTION_CYCLES
    assert spans == [120 + overhead, 60 + overhead, 30 + overhead, 2048 // 32 + INSTRUCTION_CYCLES, 0]


def test_the_compact_engine_has_figures_of_its_own() -> None:
    config = preset("icebreaker")
    # Sixteen passes; a cycle for each word that POST writes, half a cycle for its read.
    assert array_cycles(16, 20, config, row=5) == 16 * 20 + 30 + COMPACT_JOB
    # Rows and passes that are too short.
    assert array_cycles(16, 20, config, row=2) == 16 * 40 + 30 + COMPACT_JOB
    assert array_cycles(16, 1, config) == 16 * 5 + 1 + COMPACT_JOB
    assert drain_cycles(20, config) == 20 * 8 + COMPACT_DRAIN
    matmul, post = COMPACT_INSTRUCTION + 2 * 9 + COMPACT_START, COMPACT_INSTRUCTION + 2 * 8
    # POST has been handed out meanwhile.
    done = predict(pair(25, 9, 1), config)
    assert post < matmul + array_cycles(9, 25, config)
    assert done[1] == matmul + array_cycles(9, 25, config) + COMPACT_LATENCY + drain_cycles(25, config)
    vector = dict.fromkeys(("t0_count", "t1_count", "x_count", "y_count", "group_step"), 1) | {"group_count": 64}
    operations = [
        Operation(Opcode.VECTOR, vector),
        Operation(Opcode.VECTOR, {**vector, "sources": 1}),
        Operation(Opcode.VECTOR, {**vector, "sources": 2}),
        Operation(Opcode.VECTOR, {**vector, "sources": 2, "table": 1}),
        Operation(Opcode.VECTOR, {**vector, "sources": 1, "t0_count": 9}, mark=True),
        Operation(Opcode.TABLE, {"tables": 2}),
        Operation(Opcode.END, {}),
    ]
    done = predict(operations, config)
    overhead = COMPACT_INSTRUCTION + 2 * 15 + VECTOR_OVERHEAD
    assert np.diff([0, *done[:4]]).tolist() == [cycles + overhead for cycles in (16, 128, 192, 64 * 16)]
    assert done[4] - done[3] == 64 * (9 + COMPACT_WINDOW) + overhead + COMPACT_MARK
    assert done[5] == done[4] - COMPACT_MARK + COMPACT_INSTRUCTION + 2
