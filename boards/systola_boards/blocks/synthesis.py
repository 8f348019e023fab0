"""What a block takes on the FPGA of its preset, or on another one, and how fast it is: ``systola synth``, or
``make synth``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from amaranth.back import rtlil
from amaranth.lib.wiring import Component
from rich.console import Console
from rich.table import Table

from systola_boards.blocks.catalogue import Registered, blocks_of, device_for, ports_of
from systola_boards.fpga.devices import Device, find_device
from systola_boards.toolchain.flow import HIDE_FIELDS, Wish, place_and_route, synthesize
from systola_boards.toolchain.programs import SynthesisError, Tool, find_tool
from systola_boards.toolchain.reports import Route
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.config import Config
from systola_hdl.cells.families import platform_of

__all__ = ["BlockResult", "app", "measure"]


@dataclass(frozen=True)
class BlockResult:
    """A block of a preset, synthesised for a device, and routed between registers if that was wanted."""

    block: str
    config: Config
    device: Device
    tools: tuple[Tool, ...]
    cells: dict[str, int]
    route: Route | None

    def record(self) -> dict[str, Any]:
        """The result, ready for JSON."""
        return {
            "block": self.block,
            "preset": self.config.name,
            "device": self.device.name,
            "tools": {tool.name: tool.version for tool in self.tools},
            "usage": [list(row) for row in self.device.usage(self.cells)],
            "cells": self.cells,
            "route": self.route.record() if self.route is not None else None,
        }


def measure(config: Config, block: str, folder: Path, *, route: bool, seed: int = 1, device: Device | None = None) -> BlockResult:
    """Synthesise ``block`` as it is, to see what it takes of ``device`` (None: the preset's FPGA); with ``route``, also
    route it between registers (:class:`Registered`), to see its clock.

    A block that does not fit is not routed, and no block is for an FPGA whose placer is not run here. Raises
    ``ValueError`` for an unknown block and :class:`SynthesisError`.
    """
    blocks = blocks_of(config)
    if block not in blocks:
        raise ValueError(f"unknown block {block!r} of {config.name}: choose one of {', '.join(sorted(blocks))}")
    device = device or device_for(config.name)
    folder.mkdir(parents=True, exist_ok=True)
    yosys = find_tool("yosys")
    tools = [yosys]

    def netlist_of(design: Component, directory: Path) -> Any:
        directory.mkdir(exist_ok=True)
        ports = {name: (value, None) for name, _flow, value in ports_of(design)}
        text = rtlil.convert(design, name="top", platform=platform_of(device.family), ports=ports, emit_src=False)
        return synthesize(device, text, directory, yosys, before=[HIDE_FIELDS])

    cells = netlist_of(blocks[block](config), folder).cells
    routed = None
    if route and device.placer:
        nextpnr = find_tool(device.placer)
        tools.append(nextpnr)
        if not device.excess(cells):
            registered = netlist_of(Registered(blocks[block](config)), folder / "registered")
            routed = place_and_route(
                device, registered, Wish(config.clock_hz / 1e6, seed, device.pinless_constraints), folder, nextpnr
            ).route
    return BlockResult(block, config, device, tuple(tools), cells, routed)


def _show(console: Console, result: BlockResult) -> None:
    table = Table(title=f"{result.block} of {result.config.name} on {result.device.name}", title_justify="left")
    for heading in ("cell", "used", "available"):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for name, used, available in result.device.usage(result.cells):
        table.add_row(name, f"{used:,}", f"{available:,}")
    table.add_section()
    for cell, count in result.cells.items():
        table.add_row(cell, f"{count:,}", "")
    console.print(table)
    routed = result.route
    if routed is not None:
        console.print(f"{routed.fmax_mhz:.1f} MHz (seed {routed.seed}); the longest path, {routed.path_ns:.1f} ns:")
        console.print(f"  from {routed.path_from}\n  to   {routed.path_to}", markup=False, soft_wrap=True)
        console.print(f"  {routed.logic_ns:.1f} ns in cells, {routed.routing_ns:.1f} ns between them")
    console.print(", ".join(f"{tool.name} {tool.version}" for tool in result.tools))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    block: Annotated[str, typer.Option(help="name of the block; a wrong one lists them")] = "board",
    preset: Annotated[str, typer.Option(help="configuration")] = configurations.DEFAULT_PRESET,
    device: Annotated[str, typer.Option(help="FPGA, if not the preset's; a wrong one lists them")] = "",
    place_and_route: Annotated[bool, typer.Option("--route", help="also place and route, for the clock")] = False,
    seed: Annotated[int, typer.Option(help="of placement")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")] = Path("build/synth"),
) -> None:
    """Synthesise a block for its preset's FPGA, print what it takes, and write that to OUTPUT/PRESET-BLOCK.json.

    With DEVICE, the file is OUTPUT/PRESET-BLOCK-DEVICE.json.
    """
    name = "-".join(filter(None, (preset, block, device)))
    try:
        config, fpga = configurations.preset(preset), find_device(device) if device else None
        result = measure(config, block, output / name, route=place_and_route, seed=seed, device=fpga)
    except (ValueError, SynthesisError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    (output / f"{name}.json").write_text(json.dumps(result.record(), indent=2) + "\n")
    _show(Console(), result)
    too_many = result.device.excess(result.cells)
    if too_many:
        typer.echo(f"{block} of {preset} does not fit {result.device.name}: {', '.join(too_many)}", err=True)
        raise typer.Exit(1)
