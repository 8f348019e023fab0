# amaranth: UnusedElaboratable=no
"""WordFetcher: words in order, never more held than allowed, the end of the memory, arguments."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.memory.word_fetcher import WordFetcher
from systola_sim.blocks.post_memories import PostMemories

CONFIG = PRESETS["tiny-4x4"].replace(weight_bytes=256)


@pytest.mark.parametrize("limit", [1, 3, 8])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_words(limit: int, stall: float) -> None:
    rng = random.Random(limit)
    weights = np.random.default_rng(1).integers(-128, 128, CONFIG.weight_bytes, np.int8)
    dut = WordFetcher(CONFIG, limit)
    memories = PostMemories(CONFIG, {"weights": dut.weights}, rng, stall=stall, activation=np.zeros(1, np.int8), weights=weights)
    words = weights.view("<u4").tolist()

    async def use(ctx: Any) -> None:
        for address, count in ((0, 7), (60, 4), (10, 1), (62, 4)):
            ctx.set(dut.start.payload, {"address": address, "count": count})
            ctx.set(dut.start.valid, 1)
            await ctx.tick().until(dut.start.ready)
            ctx.set(dut.start.valid, 0)
            found: list[int] = []
            held = requested = 0
            inside = min(count, len(words) - address)
            start = memories.cycle
            while len(found) < inside or held:
                consumes = held > 0 and rng.random() >= stall
                ctx.set(dut.consumed, consumes)
                port = dut.weights
                sample = (port.valid, port.ready, port.data_valid, port.data.as_value())
                _, _, valid, ready, arrives, word = await ctx.tick().sample(*sample)
                requested += valid and ready
                held += arrives - consumes
                if arrives:
                    found.append(word)
                assert requested - len(found) + held <= limit
                assert memories.cycle - start < 500
            ctx.set(dut.consumed, 0)
            assert found == words[address : address + inside]
            if limit == 8 and stall == 0:
                assert memories.cycle - start <= count + PostMemories.weight_latency + 1 + dut.latency
            assert ctx.get(dut.outside) == (inside < count)

    simulator = simulator_of(dut)
    simulator.add_testbench(memories.serve, background=True)
    simulator.add_testbench(use)
    simulator.run()


def test_rejects_a_limit_of_none() -> None:
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        WordFetcher(CONFIG, 0)
