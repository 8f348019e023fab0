"""The toolchain itself: the iCEBreaker's whole bitstream, a small design for the ECP5 to the end.

All are kept in the cache, by their content; from nothing each takes a minute or two.
"""

from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from systola_boards.blocks.synthesis import measure
from systola_boards.catalogue import board as boards
from systola_boards.catalogue.boards import find_board
from systola_boards.toolchain.bitstream import Result, build
from systola_boards.toolchain.flow import synthesize
from systola_boards.toolchain.programs import SynthesisError, find_tool
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import preset
from systola_hdl.link.uart import UartReceiver, UartTransmitter

#: Every uncompressed bitstream of an iCE40UP5K is as long, and begins so.
ICE40_BYTES, ICE40_BEGINNING = 104_090, bytes.fromhex("ff0000ff7eaa997e")


class Echo(Component):
    """Stands for the engine: sends back what it receives."""

    rx: In(1, init=1)
    tx: Out(1, init=1)
    led_busy: Out(1)
    led_activity: Out(1)

    def __init__(self, config: Config) -> None:
        self._divisor = config.uart_divisor
        super().__init__()

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver()
        m.submodules.transmitter = transmitter = UartTransmitter()
        connect(m, receiver.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            receiver.divisor.eq(self._divisor),
            transmitter.divisor.eq(self._divisor),
            self.tx.eq(transmitter.tx),
            self.led_busy.eq(~self.tx),
            self.led_activity.eq(receiver.o.valid),
        ]
        return m


def _asks_for_the_clock(result: Result) -> None:
    asked = preset(result.board.preset).clock_hz / 1e6
    assert [clock.constraint_mhz for clock in result.route.clocks] == [pytest.approx(asked, rel=1e-4)]


@pytest.mark.timeout(1800)
def test_icebreaker_to_the_end(tmp_path: Path) -> None:
    """The whole engine with its link fits, meets the clock of its preset, and becomes a bitstream."""
    board = find_board("icebreaker")
    result = build(board, tmp_path, [board.seed])
    assert result.met
    _asks_for_the_clock(result)
    usage = {name: used for name, used, _ in board.device.usage(result.cells)}
    assert (usage["DSP"], usage["SPRAM"]) == (8, 4)  # a 4 x 4 array of two products a block; activations and weights
    bitstream = (tmp_path / f"{board.name}{board.device.bitstream}").read_bytes()
    assert len(bitstream) == ICE40_BYTES
    assert bitstream.startswith(ICE40_BEGINNING)


def test_echo_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins, PLL, reset and both directions of the serial line, through every tool for the ECP5, at the preset's
    clock."""
    monkeypatch.setattr(boards, "Systola", Echo)
    board = find_board("ulx3s-25f")
    result = build(board, tmp_path, [board.seed])
    assert result.met
    _asks_for_the_clock(result)
    assert 50 < result.cells["LUT4"] < 300
    bitstream = (tmp_path / f"{board.name}{board.device.bitstream}").read_bytes()
    assert b"Part: LFE5U-25F-6CABGA381" in bitstream[:200]


class Copies(Component):
    """Two registers of the same input, one for each output."""

    i: In(1)
    o: Out(2)

    def __init__(self, *, keep: bool) -> None:
        self._attributes = {"keep": 1} if keep else {}
        super().__init__()

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for index in range(2):
            copy = Signal(name=f"copy{index}", attrs=self._attributes)
            m.d.sync += copy.eq(self.i)
            m.d.comb += self.o[index].eq(copy)
        return m


@pytest.mark.parametrize(("keep", "registers"), [(True, 2), (False, 1)])
def test_registers_that_are_meant_to_be_copies_stay(keep: bool, registers: int, tmp_path: Path) -> None:
    rtlil_text = rtlil.convert(Copies(keep=keep), name="top")
    netlist = synthesize(find_board("ulx3s-85f").device, rtlil_text, tmp_path, find_tool("yosys"))
    assert netlist.cells["TRELLIS_FF"] == registers


def test_yosys_refuses_what_is_no_design(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="failed with exit code 1, see "):
        synthesize(find_board("icebreaker").device, "nonsense", tmp_path, find_tool("yosys"))


def test_ports_and_their_fields_have_no_name_in_common(tmp_path: Path) -> None:
    """Bit 3 of the port ``tile`` and its field 3 would be ``tile[3]``, at which Yosys stops."""
    assert measure(preset("icebreaker"), "weight_loader", tmp_path, route=False).cells["SB_LUT4"] > 0
