"""A bench for memories of one read and one write port, against a list."""

from __future__ import annotations

import random
from typing import Any

from support.benches.simulate import simulator_of

__all__ = ["run_against_list"]


def run_against_list(dut: Any, words: list[int], bits: int, cycles: int, rng: random.Random) -> None:
    """Read and write words of ``bits`` at random, every cycle; ``words`` are the memory's contents, and changed with
    it.

    ``dut`` has the ports of :class:`~systola_hdl.cells.block_memory.BlockMemory` and its ``read_latency``.
    """

    async def bench(ctx: Any) -> None:
        expected: list[int] = []
        for _ in range(cycles):
            read, write, data = rng.randrange(len(words)), rng.randrange(len(words)), rng.getrandbits(bits)
            enable = rng.getrandbits(1) if read != write else 0  # what is read and written at once is nobody's promise
            ctx.set(dut.read_address, read)
            ctx.set(dut.write_enable, enable)
            ctx.set(dut.write_address, write)
            ctx.set(dut.write_data, data)
            if len(expected) == dut.read_latency:
                assert ctx.get(dut.read_data) == expected.pop(0)
            expected.append(words[read])
            if enable:
                words[write] = data
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
