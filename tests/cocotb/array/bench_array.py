"""The systolic array against a matrix product: tiles as tight as the rule allows and with random gaps, words in any
order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from bench_support import bench_config, bits_of, int8_values, pack, start
from cocotb.triggers import FallingEdge, ReadOnly

from systola_hdl.full.matmul.systolic_array import SystolicArray, WeightWord

CONFIG = bench_config()
LATENCY = SystolicArray.latency(CONFIG)


@dataclass
class Schedule:
    """Inputs by cycle, and the sums that are due ``LATENCY`` cycles later in column 0."""

    vectors: dict[int, int] = field(default_factory=dict)
    swaps: set[int] = field(default_factory=set)
    controls: dict[int, int] = field(default_factory=dict)
    loads: dict[int, int] = field(default_factory=dict)
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    end: int = 0


def make_schedule(rng: random.Random, tiles: int, gap: float) -> Schedule:
    """``gap`` is the chance of a pause before each word and each vector."""
    schedule, layout = Schedule(), WeightWord(CONFIG)
    start_of_tile, start_of_load = 0, 0

    def pause() -> int:
        return rng.randint(1, 3) if rng.random() < gap else 0

    for _ in range(tiles):
        matrix = int8_values(rng, CONFIG.rows * CONFIG.columns).reshape(CONFIG.rows, CONFIG.columns)
        words = matrix.reshape(CONFIG.row_groups, -1)
        cycle = start_of_load
        for tag in rng.sample(range(CONFIG.row_groups), k=CONFIG.row_groups):
            cycle += pause()
            schedule.loads[cycle] = pack(layout, {"valid": 1, "tag": tag, "weights": words[tag].view(np.uint8).tolist()})
            cycle += 1
        cycle = start_of_tile = max(start_of_tile, cycle) + pause()
        schedule.swaps.add(cycle)
        for _ in range(rng.choice((1, CONFIG.row_groups, rng.randint(1, 12)))):
            vector = int8_values(rng, CONFIG.rows)
            schedule.vectors[cycle] = bits_of(vector)
            schedule.controls[cycle] = 1 | rng.getrandbits(3) << 1
            schedule.sums[cycle] = vector.astype(np.int64) @ matrix.astype(np.int64)
            cycle += 1 + pause()
        # The next tile's words may come with this one's first vector; its first vector after this one's last.
        start_of_load, start_of_tile = start_of_tile, cycle
        schedule.end = cycle
    return schedule


async def run(dut: Any, rng: random.Random, tiles: int, gap: float) -> None:
    schedule = make_schedule(rng, tiles, gap)
    await start(dut, activations=0, swap=0, load=0, control_i=0)
    length = schedule.end + LATENCY + CONFIG.columns * CONFIG.hop_registers + 2
    width = len(dut.sums) // CONFIG.columns
    found: list[tuple[int, int]] = []
    load_bits = len(dut.load)
    for cycle in range(length):
        # Garbage wherever nothing is promised, so that nothing is taken that should not be.
        dut.activations.value = schedule.vectors.get(cycle, rng.getrandbits(8 * CONFIG.rows))
        dut.swap.value = cycle in schedule.swaps
        dut.control_i.value = schedule.controls.get(cycle, 0)
        dut.load.value = schedule.loads.get(cycle, rng.getrandbits(load_bits - 1) << 1)
        await ReadOnly()
        found.append((int(dut.control_o.value), int(dut.sums.value)))
        await FallingEdge(dut.clk)
    for cycle in range(length):
        assert found[cycle][0] == schedule.controls.get(cycle - LATENCY, 0), f"control of cycle {cycle}"
    assert len(schedule.sums) >= tiles
    for cycle, sums in schedule.sums.items():
        for column, expected in enumerate(sums):
            raw = found[cycle + LATENCY + column * CONFIG.hop_registers][1] >> column * width & (1 << width) - 1
            assert raw - (raw >> width - 1 << width) == expected, f"vector of cycle {cycle}, column {column}"


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def without_a_bubble(dut: Any) -> None:
    await run(dut, random.Random(11), tiles=300, gap=0.0)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def with_random_gaps(dut: Any) -> None:
    await run(dut, random.Random(12), tiles=300, gap=0.3)
