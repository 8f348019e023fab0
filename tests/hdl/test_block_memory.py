# amaranth: UnusedElaboratable=no
"""BlockMemory: its latency against a list, and the cells it is made of on an ECP5."""

from __future__ import annotations

import random
import re

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from systola_hdl.block_memory import BlockMemory, ecp5_block_width


class Ecp5:
    """As much of a platform as blocks look at."""

    family = "ecp5"


def test_bad_depth() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        BlockMemory(8, 0)


@pytest.mark.parametrize("depth", [1, 5, 64])
def test_against_list(depth: int) -> None:
    rng = random.Random(depth)
    dut = BlockMemory(8, depth)
    words = [rng.getrandbits(8) for _ in range(depth)]
    dut.data.init = words[:]

    async def bench(ctx: object) -> None:
        expected: list[int] = []
        for _ in range(300):
            read, write, data = rng.randrange(depth), rng.randrange(depth), rng.getrandbits(8)
            enable = rng.getrandbits(1) if read != write else 0
            ctx.set(dut.read_address, read)
            ctx.set(dut.write_enable, enable)
            ctx.set(dut.write_address, write)
            ctx.set(dut.write_data, data)
            if len(expected) == BlockMemory.read_latency:
                assert ctx.get(dut.read_data) == expected.pop(0)
            expected.append(words[read])
            if enable:
                words[write] = data
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("width", "depth", "block", "blocks"),
    [(32, 512, 36, 1), (32, 344, 36, 1), (32, 8192, 2, 16), (8, 4096, 4, 2), (8, 2048, 9, 1), (8, 16384, 1, 8), (18, 1024, 18, 1)],
)
def test_ecp5_cells(width: int, depth: int, block: int, blocks: int) -> None:
    """As few blocks as there can be, each with its output register; addresses end at pin 13, data begins at pin 0."""
    assert ecp5_block_width(width, depth) == block
    text = rtlil.convert(BlockMemory(width, depth), platform=Ecp5())
    cells = re.findall(r"cell \\DP16KD .*?\n  end\n", text, flags=re.DOTALL)
    assert len(cells) == blocks
    assert "$mem" not in text
    for number, cell in enumerate(cells):
        assert f"parameter \\DATA_WIDTH_A {block}" in cell
        assert f"parameter \\DATA_WIDTH_B {block}" in cell
        assert 'parameter \\REGMODE_B "OUTREG"' in cell
        pins = dict(re.findall(r"connect \\(\w+) (.*)", cell))
        first, unused = number * block, block.bit_length() - 1
        assert pins["DIA0"] == f"\\write_data [{first}]"
        for pin in range(unused, min(unused + (depth - 1).bit_length(), 14)):
            assert pins[f"ADA{pin}"] == f"\\write_address [{pin - unused}]"
            assert pins[f"ADB{pin}"] == f"\\read_address [{pin - unused}]"
        assert all(pins[f"ADB{pin}"] == "1'0" for pin in range(unused))
        enables = {36: 4, 18: 2}.get(block, 0)
        assert all(pins[f"ADA{pin}"] == ("\\write_enable [0]" if pin < enables else "1'0") for pin in range(unused))
        assert pins["WEA"] == ("1'1" if block == 36 else "\\write_enable [0]")
        if block == 36:
            assert pins["DIB0"] == "\\write_data [18]"


def test_too_deep_for_one_ecp5_block() -> None:
    assert ecp5_block_width(8, 20000) == 0
    assert "DP16KD" not in rtlil.convert(BlockMemory(8, 20000), platform=Ecp5())
