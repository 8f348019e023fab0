"""The command that writes a preset's Verilog."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from systola_boards.toolchain.verilog import app
from systola_firmware.spec.presets import preset
from systola_hdl.tops.verilog import generate


def test_a_preset_is_written(tmp_path: Path) -> None:
    output = tmp_path / "systola.v"
    result = CliRunner().invoke(app, ["--preset", "tiny-4x4", "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert output.read_text() == generate(preset("tiny-4x4"))


def test_an_unknown_preset_is_refused() -> None:
    result = CliRunner().invoke(app, ["--preset", "nothing", "-o", "x.v"])
    assert result.exit_code == 2
    assert "unknown preset 'nothing'" in result.output
