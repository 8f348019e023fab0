"""AccumulatorBuffer: jobs of several passes into alternating halves, drained while the next ones fill."""

from __future__ import annotations

import random

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.dot_cell import partial_sum_bits


@pytest.mark.parametrize("stalls", [False, True], ids=["free", "stalls"])
@pytest.mark.parametrize(("preset", "hop"), [("tiny-4x4", 1), ("tiny-8x4", 2), ("ulx3s-85f", 1), ("wide-16x16", 1)])
def test_jobs(preset: str, hop: int, stalls: bool) -> None:
    config = PRESETS[preset].replace(hop_registers=hop, accumulator_depth=16)
    rng = random.Random(f"{preset} {stalls}")
    shortest, latency, columns = AccumulatorBuffer.shortest_pass, AccumulatorBuffer.read_latency, config.columns
    bits = partial_sum_bits(config)
    extreme = config.rows << 14
    shapes = [(16, 1), (shortest, 3), (1, 1), (7, 2), (16, 2), (5, 4), (1, 1), (2, 1), (1, 1)]  # positions, passes
    jobs = [
        np.array(rng.choices((extreme, -extreme + 128, 0, -1, 99), k=n * p * columns)).reshape(p, n, columns) for n, p in shapes
    ]
    dut = AccumulatorBuffer(config)
    found: list[np.ndarray] = []
    lanes: dict[int, dict[int, int]] = {}  # cycle → column → sum: the skew

    async def fill(ctx: object) -> None:
        cycle, free = 0, AccumulatorBuffer.count

        async def step(control: int) -> None:
            nonlocal cycle, free
            assert cycle < 4000, "no half becomes free"
            ctx.set(dut.control.as_value(), control)
            present = lanes.pop(cycle, {})
            ctx.set(dut.sums.as_value(), sum((value & ((1 << bits) - 1)) << (bits * column) for column, value in present.items()))
            await ctx.tick()
            cycle += 1
            free += ctx.get(dut.freed)
            assert free <= AccumulatorBuffer.count

        for job in jobs:
            for _ in range(rng.choice((0, 50)) if stalls else 0):
                await step(0)
            while not free:
                await step(0)
            free -= 1
            passes, positions, _ = job.shape
            for number, position in np.ndindex(passes, positions):
                while stalls and rng.random() < 0.3:
                    await step(0b1110)  # without valid, nothing else counts
                for column in range(columns):
                    lanes.setdefault(cycle + column * hop, {})[column] = int(job[number, position, column])
                pass_last = position == positions - 1
                job_last = pass_last and number == passes - 1
                await step(1 | (number == 0) << 1 | pass_last << 2 | job_last << 3)
            if stalls:  # the streamer's pause between short passes is not what is tested here
                for _ in range(shortest):
                    await step(0)
        while lanes:
            await step(0)

    async def drain(ctx: object) -> None:
        for positions, _ in shapes:
            waited = 0
            while not ctx.get(dut.drain.full):
                await ctx.tick()
                waited += 1
                assert waited < 4000, "no half becomes full"
            for _ in range(rng.choice((0, 0, 60)) if stalls else 0):
                await ctx.tick()
            half = []
            for address in range(positions + latency):
                ctx.set(dut.drain.address, min(address, positions - 1))
                ctx.set(dut.drain.release, address == positions - 1)
                if address >= latency:
                    raw = ctx.get(dut.drain.data.as_value())
                    half.append(np.frombuffer(raw.to_bytes(4 * columns, "little"), dtype="<i4"))
                await ctx.tick()
            found.append(np.array(half))

    simulator = simulator_of(dut)
    simulator.add_testbench(fill)
    simulator.add_testbench(drain)
    simulator.run()
    for half, job in zip(found, jobs, strict=True):
        np.testing.assert_array_equal(half, job.sum(axis=0))


def test_wraps_at_32_bits_and_frees_its_half() -> None:
    config = PRESETS["tiny-4x4"].replace(accumulator_depth=16)
    dut = AccumulatorBuffer(config)
    most = (1 << 17) - 1  # the widest partial sum
    dut.halves[0][0].data.init = [(1 << 31) - 5, -(1 << 31) + 5]

    async def bench(ctx: object) -> None:
        for value, control in ((most, 0b0001), (-most, 0b1101)):
            ctx.set(dut.sums[0], value)
            ctx.set(dut.control.as_value(), control)
            await ctx.tick()
        ctx.set(dut.control.as_value(), 0)
        while not ctx.get(dut.drain.full):
            await ctx.tick()
        for address, expected in ((0, (1 << 31) - 5 + most), (1, (1 << 31) + 5 - most)):
            ctx.set(dut.drain.address, address)
            await ctx.tick().repeat(AccumulatorBuffer.read_latency)
            assert ctx.get(dut.drain.data[0]) == expected & 0xFFFFFFFF
            assert not ctx.get(dut.freed)
        ctx.set(dut.drain.release, 1)
        await ctx.tick()
        ctx.set(dut.drain.release, 0)
        assert ctx.get(dut.freed)
        assert not ctx.get(dut.drain.full)
        await ctx.tick()
        assert not ctx.get(dut.freed)

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
