"""Commands that other packages add: named by entry points, loaded when called, refused in one sentence when absent."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from systola.commands import plugins
from systola.commands.cli import app


def with_points(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> typer.Typer:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])
    made = typer.Typer(add_completion=False, rich_markup_mode=None)
    made.command("own")(lambda: None)
    plugins.add_commands(made)
    return made


def test_the_boards_package_adds_its_commands() -> None:
    answer = CliRunner().invoke(app, ["--help"])
    for name in ("bitstream", "blocks", "docs", "netlist", "prepare", "program", "synth", "verilog"):
        assert f"\n  {name} " in answer.output
    assert "Not installed" not in answer.output
    assert "Write the Verilog of a preset." in answer.output


def test_options_and_exit_codes_go_through() -> None:
    answer = CliRunner().invoke(app, ["synth", "--preset", "nothing"])
    assert answer.exit_code == 2
    assert "unknown preset 'nothing'" in answer.output
    assert "--route" in CliRunner().invoke(app, ["synth", "--help"]).output


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = EntryPoint("far", "no_such_package.module:main [fpga,sim]", plugins.GROUP)
    made = with_points(monkeypatch, absent)
    assert "Not installed: needs systola[fpga,sim]" in CliRunner().invoke(made, ["--help"]).output
    error = CliRunner().invoke(made, ["far"]).exception
    assert str(error) == "`systola far` needs the package no_such_package: install with `pip install 'systola[fpga,sim]'`"


def test_help_loads_nothing_heavy() -> None:
    script = """
import sys
from systola.commands.cli import app
try:
    app(["--help"])
except SystemExit:
    pass
assert not [name for name in sys.modules if name.partition(".")[0] in ("amaranth", "systola_hdl", "scipy")]
assert not [name for name in sys.modules if name.startswith("systola_boards.") and name.count(".") > 1]
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
