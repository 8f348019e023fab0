"""Verilog generation: the ports that the harness counts on, and a key that follows everything it depends on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, Out
from support.benches.self_reads import self_reads

import systola_firmware
import systola_hdl
from systola_firmware.spec.presets import preset
from systola_hdl.tops import verilog
from systola_hdl.tops.board import Systola
from systola_hdl.tops.pcie_simulation import PcieSimulationTop

CONFIG = preset("tiny-4x4")


def ports(text: str) -> dict[str, int]:
    """Ports of the top module with their widths."""
    module = re.search(r"^module systola\((.*?)\);\n(.*?)^endmodule", text, re.MULTILINE | re.DOTALL)
    assert module is not None
    widths = {}
    for name in module[1].split(", "):
        declaration = re.search(rf"^\s*(?:input|output)\s+(?:reg\s+|wire\s+)?(?:\[(\d+):0\] )?{name}\b", module[2], re.MULTILINE)
        assert declaration is not None, name
        widths[name] = int(declaration[1] or 0) + 1
    return widths


def test_simulation_top() -> None:
    text = verilog.generate(CONFIG)
    assert ports(text) == {
        "clk": 1,
        "rst": 1,
        "rx_data": 8,
        "rx_valid": 1,
        "rx_ready": 1,
        "tx_data": 8,
        "tx_valid": 1,
        "tx_ready": 1,
        "uart_rx": 1,
        "uart_tx": 1,
        "uart_divisor": 16,
        "select_uart": 1,
        "busy": 1,
    }
    # Memories start with zeros, each by a loop.
    banks = CONFIG.weight_word_bytes // 4
    assert len(re.findall(rf"i < {CONFIG.weight_words};", text)) == banks
    assert text.count("\n") < CONFIG.weight_bytes


def test_board_top() -> None:
    expected = {"clk": 1, "rst": 1, "rx": 1, "tx": 1, "led_busy": 1, "led_activity": 1}
    assert ports(verilog.generate(CONFIG, "board")) == expected


class SelfReading(Component):
    """Two of four assignments compute a bit of a structure from another."""

    def __init__(self) -> None:
        super().__init__({"o": Out(data.StructLayout({"a": 1, "b": 1, "c": 1}))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        a = Signal()
        m.d.sync += a.eq(~a)
        m.d.comb += [self.o.a.eq(a), self.o.b.eq(~self.o.a)]
        with m.If(self.o.b):
            m.d.comb += self.o.c.eq(a)
        return m


def test_self_reads_are_found() -> None:
    found = self_reads(SelfReading())
    assert len(found) == 2
    assert all(found_at.startswith("o, ") and "test_verilog.py" in found_at for found_at in found)


@pytest.mark.parametrize(("top", "name"), [(Systola, "icebreaker"), (Systola, "ulx3s-85f"), (PcieSimulationTop, "tiny-8x4-dma")])
def test_no_signal_is_computed_from_itself(top: type[Component], name: str) -> None:
    """What Verilator would compute otherwise than Amaranth's simulator and the FPGA."""
    assert self_reads(top(preset(name))) == []


def test_memory_contents_other_than_zero_stay() -> None:
    lines = "  initial begin\n    m[0] = 8'h00;\n    m[1] = 8'h07;\n  end\n"
    zeros = "  initial begin\n    n[0] = 8'h00;\n    n[1] = 8'h00;\n  end\n"
    folded = verilog.fold_zeros(lines + zeros)
    assert folded.startswith(lines)
    assert "for (i = 0; i < 2; i = i + 1) n[i] = 8'h00;" in folded
    assert "n[1]" not in folded


def test_content_key() -> None:
    keys = {
        verilog.content_key(CONFIG),
        verilog.content_key(CONFIG, "board"),
        verilog.content_key(CONFIG.replace(trace_marks=65)),
        verilog.content_key(CONFIG.replace(clock_hz=40_000_000)),
    }
    assert len(keys) == 4
    assert verilog.content_key(CONFIG) == verilog.content_key(preset("tiny-4x4"))
    assert verilog.content_key(CONFIG) == verilog.content_key(CONFIG.replace(name="a label")), "names are for people"


def test_content_key_follows_every_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compact").mkdir()
    for name in ("top.py", "compact/top.py"):
        (tmp_path / name).write_text("1")
    firmware = Path(systola_firmware.__file__).parent
    monkeypatch.setattr(verilog.resources, "files", {"systola_hdl": tmp_path, "systola_firmware": firmware}.__getitem__)
    keys = {verilog.content_key(CONFIG)}
    for name in ("top.py", "compact/top.py"):
        (tmp_path / name).write_text("2")
        keys.add(verilog.content_key(CONFIG))
    assert len(keys) == 3


def test_content_key_follows_every_definition_that_the_gateware_imports() -> None:
    """Else a changed definition would leave the compiled boards of the old one in use."""
    imported: set[str] = set()
    firmware = Path(systola_firmware.__file__).parent
    for source in Path(systola_hdl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "systola_firmware":
                path = "/".join(str(node.module).split(".")[1:])
                if (firmware / path).is_dir():
                    imported.update(f"{path}/{alias.name}.py" for alias in node.names)
                else:
                    imported.add(f"{path}.py")
    assert imported == set(verilog._DEFINITIONS)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown top level 'nothing': choose one of simulation, board"):
        verilog.generate(CONFIG, "nothing")  # type: ignore[arg-type]  # the point of the test
