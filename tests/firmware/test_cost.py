"""The cost model on programs small enough to count by hand, and its ordering properties."""

from __future__ import annotations

import numpy as np

from systola_firmware.config import preset
from systola_firmware.cost import (
    DRAIN_OVERHEAD,
    INSTRUCTION_CYCLES,
    JOB_CYCLES,
    VECTOR_OVERHEAD,
    array_cycles,
    array_latency,
    drain_cycles,
    predict,
)
from systola_firmware.isa import Opcode, Operation, Unit

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
