"""ParameterLoader: every set in order, ahead of its use, and the end of the weight memory."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_hdl.full.post.parameters import ParameterLoader
from systola_sim.blocks.post_memories import PostMemories


class Memories(PostMemories):
    """As slow as the weight memory is: how late a set may be swapped depends on it."""

    weight_latency = WeightMemory.post_latency


def bench(dut: ParameterLoader, weights: np.ndarray, stall: float) -> tuple[Simulator, Memories]:
    memories = Memories(
        dut.config, {"weights": dut.weights}, random.Random(1), stall=stall, activation=np.zeros(1, np.int8), weights=weights
    )
    simulator = simulator_of(dut)
    simulator.add_testbench(memories.serve, background=True)
    return simulator, memories


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("layout", ["one factor", "per channel", "shared"])
@pytest.mark.parametrize("name", PRESETS)
def test_sets(name: str, layout: str, stall: float) -> None:
    per_channel, shared = layout == "per channel", layout == "shared"
    config = PRESETS[name].replace(weight_bytes=4096)
    weights = np.random.default_rng(3).integers(-128, 128, config.weight_bytes, np.int8)
    dut = ParameterLoader(config)
    simulator, memories = bench(dut, weights, stall)
    rng = random.Random(2)
    address, groups, blocks, columns = 5, 3, 2, config.columns
    words = config.channel_parameter_words if per_channel else config.bias_words
    factor_words = config.bias_words + 1 if shared else 0

    async def use(ctx: Any) -> None:
        ctx.set(dut.address, address)
        ctx.set(dut.group_count, groups)
        ctx.set(dut.block_count, blocks)
        ctx.set(dut.per_channel, per_channel)
        ctx.set(dut.shared, shared)
        ctx.set(dut.factor, {"multiplier": 1 << 30, "shift": -3})
        for _ in range(2):  # it can start again
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for job in range(groups * blocks):
                before = memories.cycle
                while not ctx.get(dut.available):
                    await ctx.tick()
                    assert memories.cycle < 2000
                if stall == 0:
                    extra = factor_words + Memories.weight_latency + dut.set_latency if job == 0 and shared else 0
                    assert memories.cycle - before <= words + Memories.weight_latency + dut.set_latency + extra
                ctx.set(dut.claim, 1)
                await ctx.tick()
                ctx.set(dut.claim, 0)
                assert not ctx.get(dut.available)
                old = (ctx.get(dut.bias.as_value()), ctx.get(dut.factors.as_value()))
                for _ in range(rng.randrange(dut.swap_within)):
                    await ctx.tick()
                    assert (ctx.get(dut.bias.as_value()), ctx.get(dut.factors.as_value())) == old
                ctx.set(dut.swap, 1)
                await ctx.tick()
                ctx.set(dut.swap, 0)
                for _ in range(dut.swap_latency - 1):
                    assert (ctx.get(dut.bias.as_value()), ctx.get(dut.factors.as_value())) == old
                    await ctx.tick()
                start = (address + factor_words + job % groups * words) * config.weight_word_bytes
                expected = weights[start : start + words * config.weight_word_bytes]
                integers = expected[: (8 if per_channel else 4) * columns].view("<i4")
                assert [ctx.get(dut.bias[column]) for column in range(columns)] == integers[:columns].tolist()
                multipliers = integers[columns:].tolist() if per_channel else [1 << 30] * columns
                shifts = expected[8 * columns : 9 * columns].tolist() if per_channel else [-3] * columns
                if shared:
                    factors = weights[address * config.weight_word_bytes :][: 5 * columns]
                    multipliers, shifts = factors[: 4 * columns].view("<i4").tolist(), factors[4 * columns :].tolist()
                assert [ctx.get(dut.factors[column].multiplier) for column in range(columns)] == multipliers
                assert [ctx.get(dut.factors[column].shift) for column in range(columns)] == shifts
            for _ in range(20):  # nothing more is fetched
                _, _, valid, available = await ctx.tick().sample(dut.weights.valid, dut.available)
                assert (valid, available) == (0, 0)

    simulator.add_testbench(use)
    simulator.run()


@pytest.mark.parametrize(("back", "is_outside"), [(0, False), (1, True)])
def test_end_of_memory(back: int, is_outside: bool) -> None:
    config = PRESETS["tiny-8x4"].replace(weight_bytes=1024)
    dut = ParameterLoader(config)
    simulator, _ = bench(dut, np.zeros(config.weight_bytes, np.int8), 0.0)

    async def use(ctx: Any) -> None:
        ctx.set(dut.address, config.weight_words - config.channel_parameter_words + back)
        ctx.set(dut.group_count, 1)
        ctx.set(dut.block_count, 1)
        ctx.set(dut.per_channel, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().repeat(40)
        assert (ctx.get(dut.outside), ctx.get(dut.available)) == (is_outside, not is_outside)

    simulator.add_testbench(use)
    simulator.run()
