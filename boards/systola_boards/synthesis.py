"""What a block takes on the FPGA, and how fast it is: Yosys, and nextpnr if wanted: ``python -m systola_boards.synthesis``.

The FPGA is the LFE5U-85F of the ULX3S: speed grade 6, package CABGA381. There are no pin constraints and no clock generator yet,
so what is routed is the engine and not a bitstream.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from amaranth.back import rtlil
from amaranth.lib.wiring import Component
from rich.console import Console
from rich.table import Table

from systola_boards.reports import AVAILABLE, DEVICE, Report, Route, cells_of, excess, route_of
from systola_firmware import config as configurations
from systola_firmware.config import Config
from systola_hdl.board_top import Systola
from systola_hdl.engine import Engine
from systola_hdl.link import Link
from systola_hdl.matmul_unit import MatmulUnit
from systola_hdl.post_unit import PostUnit
from systola_hdl.requantizer import Requantizer
from systola_hdl.weight_memory import WeightMemory

__all__ = ["BLOCKS", "SynthesisError", "Tool", "app", "find_tool", "route", "synthesize"]

#: What can be synthesised alone.
BLOCKS: dict[str, Callable[[Config], Component]] = {
    "board": Systola,
    "engine": Engine,
    "link": lambda _config: Link(),
    "matmul_unit": MatmulUnit,
    "post_unit": PostUnit,
    "requantizer": lambda _config: Requantizer(),
    "weight_memory": WeightMemory,
}

#: Only this one has few enough ports for the package's pins.
_WITH_PINS = "board"

# Amaranth's RTLIL rather than its Verilog: there, the contents of a memory are one cell, not one statement a word, over which
# Yosys spends many minutes. setparam: weight banks, accumulators and tables promise nothing about a word that is read while it
# is written, which Amaranth cannot say; without it, a comparator and a bypass stand behind every block RAM. splitnets:
# YosysHQ/yosys issue 4349 (equal names of wires stop it after technology mapping).
_YOSYS_SCRIPT = (
    "read_rtlil block.il; setparam -set COLLISION_X_MASK 1'1 *.bank*/t:$memrd_v2 *.accumulators/t:$memrd_v2 *.tables/t:$memrd_v2; "
    "synth_ecp5 -top top -run :map_luts; splitnets; synth_ecp5 -top top -run map_luts: -json block.json; "
    "tee -q -o cells.json stat -json"
)


class SynthesisError(RuntimeError):
    """A tool is missing or failed; the message is one sentence, and for a failure the end of its output."""


@dataclass(frozen=True)
class Tool:
    """A program and its version's number, by its own word."""

    path: str
    version: str

    def run(self, arguments: list[str], folder: Path, log: Path) -> None:
        """Run it in ``folder`` with its output in ``log``. Raises :class:`SynthesisError`."""
        with log.open("w") as file:
            result = subprocess.run([self.path, *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT, check=False)
        if result.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise SynthesisError(f"{Path(self.path).name} failed with exit code {result.returncode}, see {log}:\n{tail}")


def find_tool(name: str) -> Tool:
    """``name`` from the path, or else YoWASP's WebAssembly build of it, from the path or this Python's environment.

    Raises :class:`SynthesisError` if there is neither.
    """
    search = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    path = shutil.which(name, path=search) or shutil.which(f"yowasp-{name}", path=search)
    if path is None:
        raise SynthesisError(f"{name} is missing: install it, or its WebAssembly build by `.venv/bin/pip install -e '.[fpga]'`")
    answer = subprocess.run([path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    number = re.search(r"\d+\.\d+[\w.+-]*", answer)
    return Tool(path, number[0] if number else "unknown")


def synthesize(config: Config, block: str, folder: Path, yosys: Tool) -> dict[str, int]:
    """Cells of ``block`` by type, see :func:`~systola_boards.reports.cells_of`; the netlist is left in ``folder/block.json``.

    Raises ``ValueError`` for an unknown block and :class:`SynthesisError`. A board takes minutes.
    """
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}: choose one of {', '.join(sorted(BLOCKS))}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "block.il").write_text(rtlil.convert(BLOCKS[block](config), name="top", emit_src=False))
    yosys.run(["-p", _YOSYS_SCRIPT], folder, folder / "yosys.log")
    return cells_of((folder / "cells.json").read_text())


def route(config: Config, block: str, folder: Path, nextpnr: Tool, seed: int) -> Route:
    """Place and route what :func:`synthesize` left in ``folder``. Raises :class:`SynthesisError`. A board takes many minutes."""
    pins = ["--lpf-allow-unconstrained"] if block == _WITH_PINS else ["--out-of-context"]
    arguments = ["--85k", "--package", "CABGA381", "--speed", "6", "--json", "block.json", "--report", "route.json", *pins]
    clock = ["--freq", str(config.clock_hz / 1e6), "--timing-allow-fail", "--seed", str(seed)]
    nextpnr.run(arguments + clock, folder, folder / "nextpnr.log")
    return route_of((folder / "route.json").read_text(), seed)


def _show(console: Console, title: str, cells: Mapping[str, int], routed: Route | None) -> None:
    table = Table(title=title)
    for heading in ("cell", "used", "available"):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for name, count in cells.items():
        table.add_row(name, f"{count:,}", f"{AVAILABLE[name]:,}" if name in AVAILABLE else "")
    console.print(table)
    if routed is not None:
        console.print(f"{routed.fmax_mhz:.1f} MHz (seed {routed.seed}); the longest path, {routed.path_ns:.1f} ns:")
        console.print(f"  from {routed.path_from}\n  to   {routed.path_to}", markup=False)
        console.print(f"  {routed.logic_ns:.1f} ns in cells, {routed.routing_ns:.1f} ns between them")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    block: Annotated[str, typer.Option(help=f"one of {', '.join(sorted(BLOCKS))}")] = _WITH_PINS,
    preset: Annotated[str, typer.Option(help="configuration")] = configurations.DEFAULT_PRESET,
    place_and_route: Annotated[bool, typer.Option("--route", help="also place and route, for the clock")] = False,
    seed: Annotated[int, typer.Option(help="of placement")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")] = Path("build/synth"),
) -> None:
    """Synthesise a block for the LFE5U-85F, print what it takes, and write that to OUTPUT/PRESET-BLOCK.json."""
    try:
        config = configurations.preset(preset)
        yosys = find_tool("yosys")
        nextpnr = find_tool("nextpnr-ecp5") if place_and_route else None
        folder = output / f"{preset}-{block}"
        cells = synthesize(config, block, folder, yosys)
        too_many = excess(cells)
        routed = route(config, block, folder, nextpnr, seed) if nextpnr is not None and not too_many else None
    except (ValueError, SynthesisError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    versions = {"yosys": yosys.version} | ({"nextpnr-ecp5": nextpnr.version} if nextpnr is not None else {})
    report: Report = {"block": block, "preset": preset, "device": DEVICE, "tools": versions, "cells": cells}
    content: dict[str, Any] = {**report, "route": routed.record() if routed is not None else None}
    (output / f"{preset}-{block}.json").write_text(json.dumps(content, indent=2) + "\n")
    console = Console()
    _show(console, f"{block} of {preset} on {DEVICE}", cells, routed)
    console.print(", ".join(f"{tool} {version}" for tool, version in versions.items()))
    if too_many:
        typer.echo(f"{block} of {preset} does not fit {DEVICE}: {', '.join(too_many)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
