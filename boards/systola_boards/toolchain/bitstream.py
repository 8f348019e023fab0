"""Bitstreams: ``systola bitstream --board ulx3s-85f``, which is what ``make bitstream``
runs."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from amaranth import __version__ as amaranth_version
from rich.console import Console
from rich.table import Table

from systola_boards.catalogue.board import Board
from systola_boards.catalogue.boards import BOARDS, find_board
from systola_boards.toolchain.flow import Wish, best, pack, place_and_route, planned, synthesize, tools_for
from systola_boards.toolchain.programs import SynthesisError, Tool
from systola_boards.toolchain.reports import Route
from systola_firmware.spec.config import Config

__all__ = ["ALL", "Failed", "Result", "app", "build"]

#: The name that stands for all boards.
ALL = "all"

#: Relative rounding error of nextpnr's clocks, which it keeps as periods in whole picoseconds.
_ROUNDING = 1e-4


class Failed(RuntimeError):
    """The design does not fit, or a clock is too slow; the message is one sentence."""


@dataclass(frozen=True)
class Result:
    """A design that was placed and routed for a board."""

    board: Board
    config: Config
    tools: tuple[Tool, ...]
    cells: dict[str, int]
    route: Route
    tried: dict[int, float]

    @property
    def met(self) -> bool:
        """Whether every clock is fast enough."""
        return self.route.slack >= 1

    def record(self) -> dict[str, Any]:
        """The result, ready for JSON."""
        device = self.board.device
        return {
            "board": self.board.name,
            "fpga": device.name,
            "preset": self.config.name,
            "clock_mhz": self.config.clock_hz / 1e6,
            "uart_baud": self.config.uart_baud,
            "timing_met": self.met,
            "usage": [list(row) for row in device.usage(self.cells)],
            "cells": self.cells,
            "route": self.route.record(),
            "tried": {str(seed): mhz for seed, mhz in self.tried.items()},
            "tools": {"amaranth": amaranth_version, **{tool.name: tool.version for tool in self.tools}},
        }


def build(board: Board, folder: Path, seeds: list[int], clock_hz: int | None = None) -> Result:
    """Build a board's design into ``folder/BOARD.EXTENSION``, with ``result.json`` and the tools' logs beside it.

    Of several seeds, the one with the fastest result is taken. The record is written even if the clock is missed; the
    bitstream is not. Raises ``ValueError`` for a clock that the PLL cannot make, :class:`SynthesisError` and
    :class:`Failed`.
    """
    device = board.device
    config = board.config(clock_hz)
    tools = tools_for(device)
    yosys, nextpnr, packer = tools
    design = board.design(clock_hz)
    folder.mkdir(parents=True, exist_ok=True)
    bitstream = folder / f"{board.name}{device.bitstream}"
    bitstream.unlink(missing_ok=True)
    plan = board.platform().prepare(design, "top", emit_src=False)
    rtlil, constraints = str(plan.files["top.il"]), str(plan.files[device.constraints])
    (folder / device.constraints).write_text(constraints)
    netlist = synthesize(device, rtlil, folder, yosys)
    excess = device.excess(netlist.cells)
    if excess:
        raise Failed(f"{config.name} does not fit the {device.name} of {board.name}: {', '.join(excess)}")
    clock_mhz = float(design.pll.output_hz) / 1e6
    results = [
        place_and_route(device, planned(device, netlist, seed), Wish(clock_mhz, seed, constraints), folder, nextpnr)
        for seed in seeds
    ]
    routed = best(results)
    for clock in routed.route.clocks:
        if not math.isclose(clock.constraint_mhz, clock_mhz, rel_tol=_ROUNDING):
            raise SynthesisError(f"nextpnr routed clock {clock.name} for {clock.constraint_mhz:.3f} and not {clock_mhz:.3f} MHz")
    tried = {result.route.seed: result.route.fmax_mhz for result in results}
    result = Result(board, config, tools, netlist.cells, routed.route, tried)
    record = result.record()
    if result.met:
        content = pack(device, routed, folder, packer)
        bitstream.write_bytes(content)
        record["bitstream"] = {"name": bitstream.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "result.json").write_text(json.dumps(record, indent=2) + "\n")
    return result


def _show(console: Console, result: Result) -> None:
    device, route = result.board.device, result.route
    table = Table(title=f"{result.board.title}: {result.config.name} on {device.name}", title_justify="left")
    for heading in ("resource", "used", "available", ""):
        table.add_column(heading, justify="left" if heading == "resource" else "right")
    for name, used, available in device.usage(result.cells):
        table.add_row(name, f"{used:,}", f"{available:,}", f"{used / available:.0%}")
    console.print(table)
    for clock in route.clocks:
        console.print(f"clock {clock.name}: {clock.achieved_mhz:.1f} MHz, asked for {clock.constraint_mhz:.2f}", markup=False)
    console.print(f"longest path, {route.path_ns:.1f} ns: {route.logic_ns:.1f} in cells, {route.routing_ns:.1f} between them")
    console.print(f"  from {route.path_from}\n  to   {route.path_to}", markup=False, soft_wrap=True)
    tried = ", ".join(f"{seed}: {mhz:.1f} MHz" for seed, mhz in result.tried.items())
    console.print(f"seed {route.seed}" + (f" (of {tried})" if len(result.tried) > 1 else ""))
    config = result.config
    console.print(
        f"engine clock {config.clock_hz / 1e6:g} MHz, serial line {config.uart_baud} baud (divisor {config.uart_divisor})"
    )
    console.print(", ".join(f"{tool} {version}" for tool, version in result.record()["tools"].items()))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"seeds are numbers with commas between them, not {text!r}") from None
    return list(dict.fromkeys(seeds))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    board: Annotated[str, typer.Option(help=f"one of {', '.join(BOARDS)}, or {ALL}")],
    seeds: Annotated[
        str | None,
        typer.Option("--seed", "--seeds", help="of placement if not the board's; of several, 1,2,3, the fastest is taken"),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="so many seeds from the (last) given one on")] = 1,
    clock: Annotated[float | None, typer.Option(help="engine clock in MHz if it is not the preset's")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")] = Path("build/boards"),
) -> None:
    """Build a board's bitstream as OUTPUT/BOARD/BOARD.bit (.bin, .fs), and print what it takes and how fast it is."""
    console = Console()
    worst = 0
    try:
        given = _seeds(seeds) if seeds is not None else None
        chosen = list(BOARDS.values()) if board == ALL else [find_board(board)]
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    for one in chosen:
        try:
            first = given or [one.seed]
            wanted = [*first, *range(first[-1] + 1, first[-1] + tries)]
            result = build(one, output / one.name, wanted, round(clock * 1e6) if clock is not None else None)
            _show(console, result)
            if not result.met:
                slow = result.route.clocks[0]
                raise Failed(
                    f"{one.name} misses its clock: {slow.achieved_mhz:.1f} MHz of {slow.constraint_mhz:.2f}; "
                    "there is no bitstream (try other seeds, or a lower clock)"
                )
            console.print(f"{output / one.name / one.name}{one.device.bitstream}", soft_wrap=True)
        except Failed as error:
            typer.echo(str(error), err=True)
            worst = max(worst, 1)
        except (ValueError, SynthesisError) as error:
            typer.echo(str(error), err=True)
            worst = 2
    if worst:
        raise typer.Exit(worst)
