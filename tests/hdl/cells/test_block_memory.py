# amaranth: UnusedElaboratable=no
"""BlockMemory: every FPGA family's body against a list, and an ECP5's cells, pin by pin as Yosys connects them."""

from __future__ import annotations

import json
import random
import re

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2
from support.benches.family_bench import run_every_cycle
from support.benches.memory_bench import run_against_list

from systola_boards.toolchain.programs import find_tool, run_cached
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.memory_map import MARK_WORDS
from systola_hdl.cells.block_memory import BlockMemory, ecp5_block_width
from systola_hdl.cells.families import Family, platform_of
from systola_hdl.cells.segmented_memory import segment_depths
from systola_hdl.full.post.tables import TABLE_ENTRIES, TABLES

#: Data widths of an ECP5 block and the words that it then has.
BLOCKS = [(1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512)]


def test_bad_depth() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        BlockMemory(8, 0)


@pytest.mark.parametrize("depth", [1, 5, 64])
def test_against_list(depth: int) -> None:
    rng = random.Random(depth)
    dut = BlockMemory(8, depth)
    words = [rng.getrandbits(8) for _ in range(depth)]
    dut.data.init = words[:]
    run_against_list(dut, words, 8, 300, rng)


def sizes() -> set[tuple[int, int]]:
    """Width and depth of every preset's memories, and of one block in each of its modes."""
    presets = [configurations.preset(name) for name in configurations.PRESETS]
    return {
        *BLOCKS,
        *((8, config.activation_bytes // config.rows) for config in presets),
        *((32, config.accumulator_depth) for config in presets),
        *((32, depth) for config in presets for depth in segment_depths(config.weight_words)),
        *((32, config.trace_marks * len(MARK_WORDS)) for config in presets),
        (32, TABLES * TABLE_ENTRIES),
    }


def addresses(rng: random.Random, depth: int) -> list[int]:
    """Few, so that what is read has been written, among them all with one bit and all without one."""
    bits = [1 << bit for bit in range(ceil_log2(depth))]
    corners = {0, depth - 1, *bits, *(depth - 1 ^ bit for bit in bits), rng.randrange(depth)}
    return sorted(address for address in corners if address < depth)


@pytest.mark.parametrize("family", [Family.PORTABLE, Family.ECP5])
def test_families(family: Family) -> None:
    """Every cycle, but for words that are read in the cycle in which they are written."""
    rng = random.Random(6)
    memories = {f"memory{width}x{depth}": BlockMemory(width, depth) for width, depth in sorted(sizes())}
    used = {name: addresses(rng, memory.depth) for name, memory in memories.items()}
    stimuli = []
    for cycle in range(500):
        stimulus = {}
        for name, memory in memories.items():
            first = cycle < len(used[name])  # each word is written once before any is read
            stimulus |= {
                f"{name}.read_address": rng.choice(used[name]),
                f"{name}.write_enable": 1 if first else rng.getrandbits(1),
                f"{name}.write_address": used[name][cycle] if first else rng.choice(used[name]),
                f"{name}.write_data": rng.getrandbits(len(memory.write_data)),
            }
        stimuli.append(stimulus)
    found = run_every_cycle(memories, family, stimuli)
    for name in memories:
        words: dict[int, int] = {}
        expected: list[int | None] = []
        for stimulus in stimuli:
            read, write = stimulus[f"{name}.read_address"], stimulus[f"{name}.write_address"]
            collides = stimulus[f"{name}.write_enable"] and read == write
            expected.append(None if collides else words.get(read))
            if stimulus[f"{name}.write_enable"]:
                words[write] = stimulus[f"{name}.write_data"]
        results = [outputs[f"{name}.read_data"] for outputs in found[BlockMemory.read_latency :]]
        pairs = [(result, word) for result, word in zip(results, expected, strict=False) if word is not None]
        assert len(pairs) > 300, name
        assert all(result == word for result, word in pairs), name


class Blocks(Component):
    """For each mode of an ECP5's block, a BlockMemory and a memory whose block Yosys finds, between the same inputs."""

    def __init__(self) -> None:
        ports = {"read_address": In(14), "write_enable": In(1), "write_address": In(14), "write_data": In(36)}
        outputs = {f"{kind}{width}": Out(width) for width, _ in BLOCKS for kind in ("made", "found")}
        super().__init__(ports | outputs)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for width, depth in BLOCKS:
            m.submodules[f"made{width}"] = made = BlockMemory(width, depth)
            m.submodules[f"found{width}"] = found = Memory(shape=width, depth=depth, init=[])
            read, write = found.read_port(), found.write_port()
            m.d.comb += [
                made.read_address.eq(self.read_address),
                made.write_enable.eq(self.write_enable),
                made.write_address.eq(self.write_address),
                made.write_data.eq(self.write_data),
                getattr(self, f"made{width}").eq(made.read_data),
                read.en.eq(1),
                read.addr.eq(self.read_address),
                write.en.eq(self.write_enable),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                getattr(self, f"found{width}").eq(read.data),
            ]
        return m


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By the output port that a block drives: its widths, and a port's bit or a constant at each pin that is
    connected."""
    text = rtlil.convert(Blocks(), name="top", emit_src=False, platform=platform_of(Family.ECP5))
    script = "read_rtlil top.il; setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2; synth_ecp5 -top top -json top.json\n"
    inputs = {"top.il": text.encode(), "top.ys": script.encode()}
    log = tmp_path_factory.mktemp("yosys") / "yosys.log"
    made = run_cached(find_tool("yosys"), ["top.ys"], inputs, ["top.json"], keep_log=log)
    top = json.loads(made["top.json"])["modules"]["top"]
    names = {bit: f"{name}[{index}]" for name, port in top["ports"].items() for index, bit in enumerate(port["bits"])}
    pins: dict[str, dict[str, str]] = {}
    for cell in top["cells"].values():
        if cell["type"] == "DP16KD":
            nets = {pin: names.get(net, net) for pin, (net,) in cell["connections"].items()}
            (output,) = {net.partition("[")[0] for pin, net in nets.items() if pin.startswith("DO") and net in names.values()}
            widths = {name: cell["parameters"][name] for name in ("DATA_WIDTH_A", "DATA_WIDTH_B")}
            pins[output] = widths | {pin: net for pin, net in nets.items() if net != "x" and isinstance(net, str)}
    return pins


@pytest.mark.parametrize("width", [width for width, _ in BLOCKS])
def test_pins_are_those_of_yosys(width: int, blocks: dict[str, dict[str, str]]) -> None:
    """But for the output registers' enables, and for data pins of port B that are not used."""
    made, found = blocks[f"made{width}"], blocks[f"found{width}"]
    assert made["DATA_WIDTH_A"] == made["DATA_WIDTH_B"]
    assert int(made["DATA_WIDTH_A"], 2) == width
    unused = found.keys() - made.keys()
    assert all(pin.startswith("DIB") and found[pin] == "0" for pin in unused)
    wanted = {pin: net.replace("found", "made") for pin, net in found.items() if pin not in unused}
    assert made == wanted | {"OCEA": "1", "OCEB": "1"}


@pytest.mark.parametrize(
    ("width", "depth", "block", "blocks"),
    [(32, 512, 36, 1), (32, 344, 36, 1), (32, 8192, 2, 16), (8, 4096, 4, 2), (8, 2048, 9, 1), (8, 16384, 1, 8), (18, 1024, 18, 1)],
)
def test_ecp5_cells(width: int, depth: int, block: int, blocks: int) -> None:
    """As few blocks as there can be, each with its output register; addresses end at pin 13, data begins at pin 0."""
    assert ecp5_block_width(width, depth) == block
    text = rtlil.convert(BlockMemory(width, depth), platform=platform_of(Family.ECP5))
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
    assert "DP16KD" not in rtlil.convert(BlockMemory(8, 20000), platform=platform_of(Family.ECP5))
