# amaranth: UnusedElaboratable=no
"""DotCell alone: sums, swap timing, the tag, and what it hands on."""

from __future__ import annotations

import random

import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.matmul.dot_cell import DotCell


@pytest.mark.parametrize("hop", [1, 2])
@pytest.mark.parametrize("preset", ["tiny-4x4", "tiny-8x4", "ulx3s-85f"])
def test_cell(preset: str, hop: int) -> None:
    config = PRESETS[preset].replace(hop_registers=hop)
    rows, row = config.weight_rows_per_cycle, config.row_groups - 1
    rng = random.Random(preset)
    dut = DotCell(config, row)
    lag = DotCell.sum_delay(config)
    cycles = 300
    inputs = [
        {
            "activations": [rng.choice((-128, 127, rng.randint(-128, 127))) for _ in range(rows)],
            "swap": int(index == 1 or rng.random() < 0.2),
            "load": {
                "valid": int(index == 0 or rng.random() < 0.4),
                "tag": row if index == 0 or rng.random() < 0.5 else rng.randrange(config.row_groups),
                "weights": [rng.choice((-128, 127, rng.randint(-128, 127))) for _ in range(rows)],
            },
            "sum": rng.choice((-(1 << 16), 0, 12345)),
        }
        for index in range(cycles)
    ]
    sums: list[int] = []

    async def bench(ctx: object) -> None:
        for index, now in enumerate(inputs):
            ctx.set(dut.activations_i, now["activations"])
            ctx.set(dut.swap_i, now["swap"])
            ctx.set(dut.load_i, now["load"])
            ctx.set(dut.sum_i, now["sum"])
            if index >= hop:
                before = inputs[index - hop]
                assert [ctx.get(dut.activations_o[i]) for i in range(rows)] == before["activations"]
                assert ctx.get(dut.swap_o) == before["swap"]
                assert ctx.get(dut.load_o.valid) == before["load"]["valid"]
                assert ctx.get(dut.load_o.tag) == before["load"]["tag"]
                assert [ctx.get(dut.load_o.weights[i]) for i in range(rows)] == before["load"]["weights"]
            sums.append(ctx.get(dut.sum_o))
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()

    shadow, active = [0] * rows, [0] * rows
    for index, now in enumerate(inputs):
        if now["swap"]:
            active = shadow
        if now["load"]["valid"] and now["load"]["tag"] == row:
            shadow = now["load"]["weights"]
        if index >= 1 and index + lag + hop < cycles:
            product = sum(a * w for a, w in zip(now["activations"], active, strict=True))
            assert sums[index + lag + hop] == inputs[index + lag]["sum"] + product


def test_bad_row() -> None:
    with pytest.raises(ValueError, match="row must be from 0 to 3, not 4"):
        DotCell(PRESETS["tiny-4x4"], 4)
