# amaranth: UnusedElaboratable=no
"""Models of vendors' cells: the ECP5's block RAM against an array of bits, and what is not modelled stops the build."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from amaranth.hdl import Cat, ClockSignal, Const, Elaboratable, Instance, Module, Value
from amaranth.lib.wiring import Component, In, Out
from support.benches.family_bench import PortValues, run_every_cycle

from systola_hdl.cells.families import Family
from systola_sim import cells
from systola_sim.cells import with_cell_models
from systola_sim.verilated.verilator import BuildError, build_library

#: Widths of the writing and the reading port, whether the reading one has an output register, and which port writes.
KINDS = [
    *((write, read, False, "A") for write, read in [(1, 1), (2, 2), (4, 2), (9, 9), (18, 9), (18, 18), (36, 36), (36, 18)]),
    *((write, read, True, "A") for write, read in [(1, 1), (9, 9), (18, 18), (36, 36), (36, 18)]),
    *((write, read, register, "B") for write, read in [(4, 4), (18, 9)] for register in (False, True)),
]
#: The first 16 words of 18 bits.
CONTENT = [(0x2345 * index + 7) & 0x3FFFF for index in range(16)]
CYCLES = 600


def wires(name: str, value: Value) -> dict[str, Value]:
    return {f"{name}{index}": bit for index, bit in enumerate(value)}


class BlockRam(Component):
    """``DP16KD`` with one port that writes and one that reads; as Yosys connects it, these are A and B.

    Addresses count bits, eight to a byte of nine.
    """

    def __init__(self, width: int, read_width: int, register: bool, writer: str) -> None:
        self.width, self.read_width, self.register, self.writer = width, read_width, register, writer
        inputs = {"write": 1, "enables": 4, "write_address": 14, "data": 36, "read": 1, "read_address": 14, "keep": 1}
        super().__init__({name: In(size) for name, size in inputs.items()} | {"o": Out(36)})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        lanes = self.width // 9 if self.width >= 18 else 0
        pseudo = self.width == 36
        a, b = self.writer, "B" if self.writer == "A" else "A"
        outputs = wires(f"o_DO{b}", self.o[:18])
        if self.read_width == 36:
            outputs = wires("o_DOA", self.o[:18]) | wires("o_DOB", self.o[18:])
        settings: dict[str, object] = {
            f"p_DATA_WIDTH_{a}": Const(self.width, 32),
            f"p_DATA_WIDTH_{b}": Const(self.read_width, 32),
            f"i_CE{a}": self.write if pseudo else Const(1, 1),
            f"i_WE{a}": Const(1, 1) if pseudo else self.write,
            f"i_CE{b}": self.read,
            f"i_OCE{b}": ~self.keep,
        }
        if self.register:
            settings |= {f"p_REGMODE_{side}": "OUTREG" for side in (("A", "B") if self.read_width == 36 else b)}
        m.submodules.ram = Instance(
            "DP16KD",
            p_INITVAL_00=Const(sum(word << 20 * index for index, word in enumerate(CONTENT)), 320),
            i_CLKA=ClockSignal(),
            i_CLKB=ClockSignal(),
            **settings,
            **wires(f"i_AD{a}", Cat(self.enables[:lanes], self.write_address[lanes:])),
            **wires(f"i_DI{a}", self.data[:18]),
            **(wires("i_DIB", self.data[18:]) if pseudo else {}),
            **wires(f"i_AD{b}", self.read_address),
            **outputs,
        )
        return m


def bit_indices(address: int, width: int) -> list[int]:
    """Where the bits of an access are in an array of bits, nine to a byte."""
    bits = width // 9 * 8 or width  # that an access counts in an address
    first = address // bits * width if width >= 9 else address // 8 * 9 + address % 8 // bits * bits
    return list(range(first, first + width))


def stimulus(rng: random.Random) -> PortValues:
    """Among the first 512 bits, so that what is read has often been written, and now and then is just being written."""
    write_address = rng.randrange(512)
    return {
        "write": rng.randint(0, 1),
        "enables": rng.randint(0, 15),
        "write_address": write_address,
        "data": rng.getrandbits(36),
        "read": int(rng.random() < 0.8),
        "read_address": write_address if rng.random() < 0.1 else rng.randrange(512),
        "keep": int(rng.random() < 0.2),
    }


def test_block_ram() -> None:
    rng = random.Random(11)
    rams = {f"ram{number}": BlockRam(*kind) for number, kind in enumerate(KINDS)}
    stimuli = [{name: stimulus(rng) for name in rams} for _ in range(CYCLES)]
    flat = [{f"{name}.{port}": value for name, ports in cycle.items() for port, value in ports.items()} for cycle in stimuli]
    found = run_every_cycle(rams, Family.ECP5, flat)
    for name, ram in rams.items():
        memory = [word >> bit & 1 for word in CONTENT for bit in range(18)] + [0] * 2048 * 9
        output, registered, collisions = 0, 0, 0
        for cycle, ports in enumerate(step[name] for step in stimuli):
            seen = registered if ram.register else output
            assert found[cycle][f"{name}.o"] & (1 << ram.read_width) - 1 == seen, (name, cycle)
            registered = registered if ports["keep"] else output
            written = bit_indices(ports["write_address"], ram.width) if ports["write"] else []
            if ram.width >= 18:
                written = [at for index, at in enumerate(written) if ports["enables"] >> index // 9 & 1]
            if ports["read"]:
                read = bit_indices(ports["read_address"], ram.read_width)
                collisions += bool(set(read) & set(written))
                output = sum((memory[at] ^ (at in written)) << index for index, at in enumerate(read))
            first = bit_indices(ports["write_address"], ram.width)[0]
            for at in written:
                memory[at] = ports["data"] >> (at - first) & 1
        assert collisions


def test_a_model_has_what_it_includes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cells, "_yosys_data", lambda: tmp_path)
    monkeypatch.setitem(cells._YOSYS_FILES, Family.ECP5, ("family/cells.v",))
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "cells.v").write_text('module LUT5(output z);\n`include "part.vh"\nassign z = part(1);\nendmodule\n')
    (tmp_path / "family" / "part.vh").write_text("function part;\n  input i;\n  part = i;\nendfunction\n")
    text = with_cell_models("module systola(output o);\n  LUT5 dut (.z(o));\nendmodule\n", Family.ECP5)
    assert re.search(r"module LUT5\(output z\);\s+function part;.*endfunction\s+assign z = part\(1\);\s+endmodule", text, re.DOTALL)
    assert "`include" not in text


@pytest.mark.parametrize(
    ("family", "instance", "message"),
    [
        (Family.ECP5, 'MULT18X18D #(.REG_PIPELINE_CLK("CLK0")) dut (.P35(o));', "registers other than those of A, B and P"),
        (Family.ECP5, 'MULT18X18D #(.REG_INPUTA_RST("RST1")) dut (.P35(o));', "only a synchronous RST0"),
        (Family.ECP5, 'DP16KD #(.REGMODE_B("PIPE")) dut (.DOB0(o));', "only the output registers' modes NOREG and OUTREG"),
        (
            Family.ECP5,
            'DP16KD #(.DATA_WIDTH_A(36), .DATA_WIDTH_B(36), .REGMODE_B("OUTREG")) dut (.DOB0(o));',
            "an output register, or neither",
        ),
        (Family.ECP5, 'DP16KD #(.CLKBMUX("INV")) dut (.DOB0(o));', "inverted clocks are not modelled"),
        (Family.GOWIN, "MULT9X9 #(.PIPE_REG(1'b1)) dut (.CLK(o));", "registers other than those of A, B and the product"),
        (Family.GOWIN, 'MULT18X18 #(.MULT_RESET_MODE("ASYNC")) dut (.CLK(o));', "only a synchronous reset"),
    ],
)
def test_what_is_not_modelled_stops_the_build(
    family: Family, instance: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYSTOLA_CACHE", str(tmp_path))
    text = with_cell_models(f"module systola(output o);\n  {instance}\nendmodule\n", family)
    with pytest.raises(BuildError, match=message):
        build_library(text, lambda: text)
