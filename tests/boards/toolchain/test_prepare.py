"""Prepared boards: what is written fits together, as far as that can be seen without the tools that it is for."""

import re
from pathlib import Path

import pytest
from amaranth.back import verilog
from typer.testing import CliRunner

from systola_boards.catalogue.prepared import PREPARED
from systola_boards.toolchain.prepare import app, top_of
from systola_firmware.spec.pcie import bar_bytes
from systola_firmware.spec.presets import preset
from systola_hdl.pcie.adapters.series7 import Series7Adapter
from systola_hdl.tops.pcie_device import PcieDevice

TINY = preset("tiny-8x4-dma")


def instance(text: str, name: str) -> dict[str, str]:
    """Connections of an instance of the top level, by port."""
    body = re.search(rf"\b{name} \(\n(.*?)\n  \);", text, flags=re.DOTALL)
    assert body is not None
    return dict(re.findall(r"\.(\w+)\((.*?)\)", body[1]))


def test_the_top_level_connects_every_input_of_the_design() -> None:
    design = verilog.convert(PcieDevice(TINY, Series7Adapter()), name="systola", emit_src=False, strip_internal_attrs=True)
    head = design[design.index("module systola(") :].partition("endmodule")[0]
    directions = {name: kind for kind, name in re.findall(r"^  (input|output) (?:wire )?(?:\[\d+:0\] )?(\w+)", head, re.MULTILINE)}
    top = top_of(PREPARED["litefury"], TINY)
    connected = instance(top, "systola systola")
    inputs = {name for name, kind in directions.items() if kind == "input"}
    assert inputs <= set(connected) <= set(directions)


def test_both_sides_of_the_hard_block_are_one_wire() -> None:
    """Each pin of the engine's hard block goes to the port of that name of the wrapper, and the wire is declared."""
    top = top_of(PREPARED["litefury"], TINY)
    wrapper = instance(top, "hard_block")
    pins = {port: wire for port, wire in instance(top, "systola systola").items() if port.startswith("pins__")}
    assert len(pins) > 20
    for port, wire in pins.items():
        assert port == "pins__" + wire.replace("m_axis_rx_", "m_axis_rx__").replace("s_axis_tx_", "s_axis_tx__")
        assert wrapper[wire] == wire
        assert re.search(rf"^  wire (\[\d+:0\] )?{wire};", top, re.MULTILINE)
    assert f".BAR0(32'h{(1 << 32) - bar_bytes(TINY):08x})" in top


@pytest.mark.parametrize("name", list(PREPARED))
def test_constraints_name_every_pin_once(name: str) -> None:
    board = PREPARED[name]
    ports = re.findall(r"PACKAGE_PIN (\w+) \[get_ports \{(.*?)\}\]", board.constraints)
    assert [(pin, port) for port, pin in board.pins.items()] == ports
    assert len({pin for pin, _ in ports}) == len(ports)


def test_an_unknown_board_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--board", "ulx3s-85f", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "unknown board 'ulx3s-85f': choose one of litefury, nitefury" in result.stderr
    assert not list(tmp_path.iterdir())
