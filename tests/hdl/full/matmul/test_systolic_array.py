"""SystolicArray: one tile after another at the speed of the weight words, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.matmul.dot_cell import partial_sum_bits
from systola_hdl.full.matmul.systolic_array import SystolicArray


@pytest.mark.parametrize("hop", [1, 2])
@pytest.mark.parametrize("preset", ["tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16"])
def test_tiles_without_bubble(preset: str, hop: int) -> None:
    """Words of the next tile begin with the very vector that swaps; passes are as short as the load, or longer."""
    config = PRESETS[preset].replace(hop_registers=hop)
    groups, rows, columns = config.row_groups, config.rows, config.columns
    rng = np.random.default_rng(rows * columns + hop)
    tiles = rng.integers(-128, 128, (5, rows, columns))
    tiles[1], tiles[2] = -128, 127
    passes = [groups, groups, groups + 3, groups, groups]
    starts = np.cumsum([groups, *passes])[:-1]
    latency = SystolicArray.latency(config)
    cycles = int(starts[-1]) + passes[-1] + latency + columns * hop
    vectors = rng.integers(-128, 128, (cycles, rows))
    vectors[starts[1]] = -128  # the largest sum there is
    dut = SystolicArray(config)
    sums = np.zeros((cycles, columns), dtype=np.int64)
    controls = []

    async def bench(ctx: object) -> None:
        width = partial_sum_bits(config)
        for cycle in range(cycles):
            ctx.set(dut.activations.as_value(), int.from_bytes(vectors[cycle].astype(np.int8).tobytes(), "little"))
            ctx.set(dut.swap, int(cycle in starts))
            ctx.set(dut.control_i.as_value(), cycle % 16)
            ctx.set(dut.load.valid, 0)
            for number, start in enumerate(starts):
                begin = starts[number - 1] if number else 0  # as early as the rule allows
                word = cycle - int(begin)
                if 0 <= word < groups:
                    tag = groups - 1 - word  # any order
                    half = tiles[number, tag * config.weight_rows_per_cycle :][: config.weight_rows_per_cycle]
                    ctx.set(dut.load.valid, 1)
                    ctx.set(dut.load.tag, tag)
                    ctx.set(dut.load.weights.as_value(), int.from_bytes(half.astype(np.int8).tobytes(), "little"))
                    assert cycle < start
            raw = ctx.get(dut.sums.as_value())
            for column in range(columns):
                value = raw >> (width * column) & ((1 << width) - 1)
                sums[cycle, column] = value - ((value >> (width - 1)) << width)
            controls.append(ctx.get(dut.control_o.as_value()))
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
    for number, (start, length) in enumerate(zip(starts, passes, strict=True)):
        expected = vectors[start : start + length] @ tiles[number]
        for column in range(columns):
            first = start + latency + column * hop
            np.testing.assert_array_equal(sums[first : first + length, column], expected[:, column], err_msg=f"tile {number}")
    assert controls[latency:] == [cycle % 16 for cycle in range(cycles - latency)]
