# amaranth: UnusedElaboratable=no
"""Drain: the items it hands over, one by one, with a producer of halves and an output stage that stall."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import ErrorCode
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.output_stage import OutputForm
from systola_hdl.full.post.parameters import ParameterLoader
from systola_sim.blocks.post_memories import PostMemories

COUNTS = {"block": 2, "group": 3, "y": 2, "x": 3}
STEPS = {"block": 5000, "group": 700, "y": -90, "x": 11}


@pytest.mark.parametrize(("stall", "form"), [(0.0, "int8"), (0.5, "int8"), (0.5, "int16"), (0.3, "gates")])
@pytest.mark.parametrize("last_columns", [1, 3, 4])
@pytest.mark.parametrize("name", PRESETS)
def test_items(name: str, last_columns: int, stall: float, form: str) -> None:
    config = PRESETS[name].replace(weight_bytes=4096)
    lanes = config.requantize_lanes
    generator = np.random.default_rng(last_columns)
    rng = random.Random(last_columns)
    weights = generator.integers(-128, 128, config.weight_bytes, np.int8)
    jobs = [generator.integers(-(2**31), 2**31, (6, config.columns), np.int32) for _ in range(6)]
    dut = Drain(config, read_latency=PostMemories.accumulator_latency)
    memories = PostMemories(
        config,
        {"weights": dut.weights, "drain": dut.accumulators},
        rng,
        stall=stall,
        activation=np.zeros(1, np.int8),
        weights=weights,
        jobs=jobs,
    )
    expected = []
    wide, gates = form == "int16", form == "gates"
    forms = {"int8": [OutputForm.INT8], "int16": [OutputForm.INT16_LOW, OutputForm.INT16_HIGH], "gates": [OutputForm.GATES]}[form]
    word = 2 + (config.bias_words + 1 if gates else 0)  # of the first bias
    for (block, group, y, x), first, (half, item_form) in itertools.product(
        itertools.product(*(range(count) for count in COUNTS.values())), range(0, config.columns, lanes), enumerate(forms)
    ):
        channels = last_columns if group == COUNTS["group"] - 1 else config.columns
        offset, size = first * len(forms) + half * lanes, channels * len(forms)  # bytes, of this item and of all
        if offset >= size:
            continue
        words = weights[(word + group * config.bias_words) * config.weight_word_bytes :]
        address = 9000 + offset + sum(i * step for i, step in zip((block, group, y, x), STEPS.values(), strict=True))
        value = jobs[block * COUNTS["group"] + group][y * COUNTS["x"] + x, first : first + lanes]
        bias = words[4 * first : 4 * (first + lanes)].view("<i4")
        expected.append((address, min(lanes, size - offset), value.tolist(), bias.tolist(), item_form))
    found = []

    async def collect(ctx: Any) -> None:
        instruction = {f"{loop}_count": count for loop, count in COUNTS.items()}
        instruction |= {f"{loop}_step": step for loop, step in STEPS.items()}
        instruction |= {"destination": 9000, "last_columns": last_columns, "parameters": 2, "multiplier": 1 << 30, "shift": -5}
        instruction["wide"] = wide
        ctx.set(dut.instruction, instruction)
        ctx.set(dut.gates, gates)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        assert not ctx.get(dut.finished)
        reserved = quiet = 0
        while quiet < 10:
            free = rng.random() >= stall
            ctx.set(dut.free, free)
            _, _, reserve, finished = await ctx.tick().sample(dut.reserve, dut.finished)
            assert free or not reserve
            reserved += reserve
            assert memories.cycle < 2000
            quiet = quiet + 1 if finished else 0
            assert not (finished and reserve)
            assert ctx.get(dut.error) == ErrorCode.NONE
        assert reserved == len(expected)

    async def watch(ctx: Any) -> None:
        item = dut.o.payload
        signals = (
            dut.o.valid,
            item.address,
            item.count,
            item.form,
            item.value.as_value(),
            item.bias.as_value(),
            item.factor.as_value(),
        )
        while True:
            _, _, valid, address, count, item_form, value, bias, factor = await ctx.tick().sample(*signals)
            if valid:
                values, biases = (np.frombuffer(packed.to_bytes(4 * lanes, "little"), "<i4").tolist() for packed in (value, bias))
                found.append((address, count, values, biases, item_form))
                for lane in range(0 if gates else lanes):
                    assert factor >> 40 * lane & (1 << 40) - 1 == 1 << 30 | (-5 & 0xFF) << 32

    simulator = simulator_of(dut)
    simulator.add_testbench(memories.serve, background=True)
    simulator.add_testbench(watch, background=True)
    simulator.add_testbench(collect)
    simulator.run()
    assert found == expected
    assert memories.drained == len(jobs)


def test_rejects_a_latency_that_the_parameters_cannot_follow() -> None:
    least = ParameterLoader.swap_latency
    most = least + ParameterLoader.swap_within
    for wrong in (least - 1, most + 1):
        with pytest.raises(ValueError, match=f"read_latency must be from {least} to {most}, not {wrong}"):
            Drain(PRESETS["tiny-4x4"], read_latency=wrong)
