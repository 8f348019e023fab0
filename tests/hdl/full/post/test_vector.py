"""Vector: the items it hands over before requantization, with stalls of the read port and of the output stage."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Combine, ErrorCode, Rounding
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.post.vector import Vector
from systola_sim.blocks.post_memories import PostMemories

CONFIG = PRESETS["tiny-8x4"].replace(activation_bytes=1024)
LANES = CONFIG.requantize_lanes


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("requantize", [False, True])
@pytest.mark.parametrize("combine", list(Combine))
@pytest.mark.parametrize("sources", [0, 1, 2])
def test_items(sources: int, combine: Combine, requantize: bool, stall: float) -> None:
    rng = random.Random(sources)
    activation = np.random.default_rng(1).integers(-128, 128, CONFIG.activation_bytes, np.int8)
    taps = (3, 2) if sources == 1 else (1, 1)
    dut = Vector(CONFIG)
    memories = PostMemories(
        CONFIG, {"activation_read": dut.activations}, rng, stall=stall, activation=activation, weights=np.zeros(1, np.int8)
    )
    instruction = {
        "source": 100, "source1": 600, "destination": 3, "sources": sources, "combine": combine, "requantize": requantize,
        "rounding": Rounding.UP, "last_lanes": 3, "t0_count": taps[0], "t0_step": 4, "t1_count": taps[1], "t1_step": 24,
        "group_count": 2, "group_step": 4, "x_count": 3, "x_step": 8, "x_step1": 12, "x_step_out": 16, "y_count": 2,
        "y_step": 50, "y_step1": -70, "y_step_out": 80, "multiplier": (1 << 30) + 7, "shift": -9, "bias": -4321,
    }  # fmt: skip
    expected = []
    for y, x, group in np.ndindex(2, 3, 2):
        base = 100 + 50 * y + 8 * x + 4 * group
        reads = [base + 24 * t1 + 4 * t0 for t1, t0 in np.ndindex(taps[1], taps[0])] if sources else []
        reads += [600 - 70 * y + 12 * x + 4 * group] if sources == 2 else []
        operands = np.array([activation[address : address + LANES] for address in reads], np.int64).reshape(-1, LANES)
        values = operands.sum(axis=0) if combine is Combine.SUM else operands.max(axis=0, initial=-128)
        expected.append((3 + 80 * y + 16 * x + 4 * group, 3 if group else LANES, values.tolist()))
    found = []

    async def collect(ctx: Any) -> None:
        ctx.set(dut.instruction, instruction)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        assert not ctx.get(dut.finished)
        reserved = quiet = free = reserve = 0
        while quiet < 20:
            if reserve or not free:  # `free` falls only after a reservation
                free = rng.random() >= stall
            ctx.set(dut.free, free)
            _, _, reserve, finished, error = await ctx.tick().sample(dut.reserve, dut.finished, dut.error)
            assert free or not reserve
            assert error == ErrorCode.NONE
            assert memories.cycle < 1000
            reserved += reserve
            quiet = quiet + 1 if finished else 0
        assert reserved == len(expected)

    async def watch(ctx: Any) -> None:
        item = dut.o.payload
        shared = (item.rounding, item.factor[0].multiplier, item.factor[LANES - 1].shift, item.bias[0])
        while True:
            sample = (dut.o.valid, item.address, item.count, item.value.as_value(), *shared)
            _, _, valid, address, count, value, *constants = await ctx.tick().sample(*sample)
            if valid:
                found.append((address, count, np.frombuffer(value.to_bytes(4 * LANES, "little"), "<i4").tolist()))
                factor = [Rounding.UP, (1 << 30) + 7, -9] if requantize else [Rounding.SINGLE, 1 << 30, 1]
                assert constants == [*factor, -4321]

    simulator = simulator_of(dut)
    simulator.add_testbench(memories.serve, background=True)
    simulator.add_testbench(watch, background=True)
    simulator.add_testbench(collect)
    simulator.run()
    assert found == expected
