"""Writes a preset's gateware as Verilog: ``systola verilog``, or ``make verilog``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from systola_firmware.spec import presets as configurations
from systola_hdl.tops.verilog import generate

__all__ = ["app"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")],
    preset: Annotated[str, typer.Option(help="configuration")] = configurations.DEFAULT_PRESET,
    top: Annotated[str, typer.Option(help="simulation, board or pcie")] = "simulation",
) -> None:
    """Write the Verilog of a preset."""
    try:
        text = generate(configurations.preset(preset), top)  # type: ignore[arg-type]  # checked there
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    output.write_text(text)
