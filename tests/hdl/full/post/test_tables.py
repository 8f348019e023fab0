# amaranth: UnusedElaboratable=no
"""TableLoader and LookUpTables: every entry of every lane, and the loader's speed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.post.tables import TABLE_ENTRIES, LookUpTables, TableLoader
from systola_sim.blocks.post_memories import PostMemories

LANES = 2


class LoadedTables(Elaboratable):
    def __init__(self, config: Config) -> None:
        self.loader = TableLoader(config)
        self.tables = LookUpTables(LANES)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.loader = self.loader
        m.submodules.tables = self.tables
        connect(m, self.loader.o, self.tables.write)
        return m


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("name", ["tiny-4x4", "wide-16x16"])
def test_load_and_look_up(name: str, stall: float) -> None:
    config = PRESETS[name].replace(weight_bytes=8192)
    weights = np.random.default_rng(3).integers(-128, 128, config.weight_bytes, np.int8)
    dut = LoadedTables(config)
    loader, tables = dut.loader, dut.tables
    memories = PostMemories(
        config, {"weights": loader.weights}, random.Random(1), stall=stall, activation=np.zeros(1, np.int8), weights=weights
    )
    expected = np.zeros((2, TABLE_ENTRIES), np.int32)

    async def use(ctx: Any) -> None:
        for address, count in ((3, 2), (7, 1)):  # the second load leaves T1 alone
            ctx.set(loader.address, address)
            ctx.set(loader.tables, count)
            ctx.set(loader.start, 1)
            await ctx.tick()
            ctx.set(loader.start, 0)
            before = memories.cycle
            assert not ctx.get(loader.finished)
            await ctx.tick().until(loader.finished)
            # An entry of the queue is requested, read and filled again before the others run out of table entries.
            if stall == 0 and loader.words * config.weight_word_bytes // 4 >= PostMemories.weight_latency + 5:
                assert memories.cycle - before < count * TABLE_ENTRIES + 12
            await ctx.tick().repeat(tables.write_latency)
            start = address * config.weight_word_bytes
            expected[:count] = weights[start : start + count * 1024].view("<i4").reshape(count, TABLE_ENTRIES)
            for table in range(2):
                ctx.set(tables.i_table, table)
                for byte in range(TABLE_ENTRIES):
                    ctx.set(tables.i_bytes, [byte, byte ^ 0x80])
                    await ctx.tick().repeat(tables.latency)
                    assert [ctx.get(tables.o[lane]) for lane in range(LANES)] == [
                        expected[table, byte],
                        expected[table, byte ^ 0x80],
                    ]

    simulator = simulator_of(dut)
    simulator.add_testbench(memories.serve, background=True)
    simulator.add_testbench(use)
    simulator.run()


def test_rejects_no_lanes() -> None:
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        LookUpTables(0)
