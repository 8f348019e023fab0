# amaranth: UnusedElaboratable=no
"""Models of vendors' cells: the ECP5's block RAM against an array of bits, and what is not modelled stops the build."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amaranth.hdl import Cat, ClockSignal, Const, Elaboratable, Instance, Module, Value
from amaranth.lib.wiring import Component, In, Out
from support.family_bench import PortValues, run_every_cycle

from systola_hdl.families import Family
from systola_sim.cells import with_cell_models
from systola_sim.verilator import BuildError, build_library

#: Widths of the writing and the reading port.
WIDTHS = [(1, 1), (2, 2), (4, 2), (9, 9), (18, 9), (18, 18), (36, 36), (36, 18)]
#: The first 16 words of 18 bits.
CONTENT = [(0x2345 * index + 7) & 0x3FFFF for index in range(16)]
CYCLES = 600


def wires(name: str, value: Value) -> dict[str, Value]:
    return {f"{name}{index}": bit for index, bit in enumerate(value)}


class BlockRam(Component):
    """``DP16KD`` as Yosys connects it: port A writes, port B reads. Addresses count bits, eight to a byte of nine."""

    def __init__(self, width: int, read_width: int) -> None:
        self.width, self.read_width = width, read_width
        inputs = {"write": 1, "enables": 4, "write_address": 14, "data": 36, "read": 1, "read_address": 14}
        super().__init__({name: In(size) for name, size in inputs.items()} | {"o": Out(36)})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        lanes = self.width // 9 if self.width >= 18 else 0
        pseudo = self.width == 36
        outputs = wires("o_DOB", self.o[:18])
        if self.read_width == 36:
            outputs = wires("o_DOA", self.o[:18]) | wires("o_DOB", self.o[18:])
        m.submodules.ram = Instance(
            "DP16KD",
            p_DATA_WIDTH_A=Const(self.width, 32),
            p_DATA_WIDTH_B=Const(self.read_width, 32),
            p_INITVAL_00=Const(sum(word << 20 * index for index, word in enumerate(CONTENT)), 320),
            i_CLKA=ClockSignal(),
            i_CLKB=ClockSignal(),
            i_CEA=self.write if pseudo else Const(1, 1),
            i_WEA=Const(1, 1) if pseudo else self.write,
            i_CEB=self.read,
            **wires("i_ADA", Cat(self.enables[:lanes], self.write_address[lanes:])),
            **wires("i_DIA", self.data[:18]),
            **(wires("i_DIB", self.data[18:]) if pseudo else {}),
            **wires("i_ADB", self.read_address),
            **outputs,
        )
        return m


def places(address: int, width: int) -> list[int]:
    """Where the bits of an access are in an array of bits, nine to a byte."""
    bits = width // 9 * 8 or width  # that an access counts in an address
    first = address // bits * width if width >= 9 else address // 8 * 9 + address % 8 // bits * bits
    return list(range(first, first + width))


def stimulus(rng: random.Random) -> PortValues:
    """Among the first 512 bits, so that what is read has often been written."""
    return {
        "write": rng.randint(0, 1),
        "enables": rng.randint(0, 15),
        "write_address": rng.randrange(512),
        "data": rng.getrandbits(36),
        "read": int(rng.random() < 0.8),
        "read_address": rng.randrange(512),
    }


def test_block_ram() -> None:
    rng = random.Random(11)
    rams = {f"ram{write}_{read}": BlockRam(write, read) for write, read in WIDTHS}
    stimuli = [{name: stimulus(rng) for name in rams} for _ in range(CYCLES)]
    flat = [{f"{name}.{port}": value for name, ports in cycle.items() for port, value in ports.items()} for cycle in stimuli]
    found = run_every_cycle(rams, Family.ECP5, flat)
    for name, ram in rams.items():
        memory = [word >> bit & 1 for word in CONTENT for bit in range(18)] + [0] * 2048 * 9
        output, collisions = 0, 0
        for cycle, ports in enumerate(step[name] for step in stimuli):
            assert found[cycle][f"{name}.o"] & (1 << ram.read_width) - 1 == output, (name, cycle)
            written = places(ports["write_address"], ram.width) if ports["write"] else []
            if ram.width >= 18:
                written = [place for index, place in enumerate(written) if ports["enables"] >> index // 9 & 1]
            if ports["read"]:
                read = places(ports["read_address"], ram.read_width)
                collisions += bool(set(read) & set(written))
                output = sum((memory[place] ^ (place in written)) << index for index, place in enumerate(read))
            first = places(ports["write_address"], ram.width)[0]
            for place in written:
                memory[place] = ports["data"] >> (place - first) & 1
        assert collisions


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ('MULT18X18D #(.REG_PIPELINE_CLK("CLK0")) dut (.P35(o));', "registers other than those of A, B and P"),
        ('MULT18X18D #(.REG_INPUTA_RST("RST1")) dut (.P35(o));', "only a synchronous RST0"),
        ('DP16KD #(.REGMODE_B("OUTREG")) dut (.DOB0(o));', "output registers are not modelled"),
        ('DP16KD #(.CLKBMUX("INV")) dut (.DOB0(o));', "inverted clocks are not modelled"),
        ("MULT9X9 #(.PIPE_REG(1'b1)) dut (.CLK(o));", "registers other than those of A, B and the product"),
        ('MULT18X18 #(.MULT_RESET_MODE("ASYNC")) dut (.CLK(o));', "only a synchronous reset"),
    ],
)
def test_what_is_not_modelled_stops_the_build(instance: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SYSTOLA_CACHE", str(tmp_path))
    family = Family.GOWIN if instance.startswith(("MULT9X9", "MULT18X18 ")) else Family.ECP5
    text = with_cell_models(f"module systola(output o);\n  {instance}\nendmodule\n", family)
    with pytest.raises(BuildError, match=message):
        build_library(text, lambda: text)
