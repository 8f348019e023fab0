"""Measures all blocks of several presets: ``systola blocks``, or ``make blocks``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from systola_boards.blocks.catalogue import blocks_of
from systola_boards.blocks.synthesis import BlockResult, measure
from systola_boards.toolchain.programs import SynthesisError
from systola_firmware.spec import presets as configurations

__all__ = ["BLOCKS_JSON", "PRESETS", "app", "row_of"]

#: Where the results are kept, from the root of the repository.
BLOCKS_JSON = Path("docs/blocks.json")

#: The presets that are measured: one for each FPGA family.
PRESETS = ("ulx3s-85f", "icebreaker", "tang-nano-20k", "litefury")


def row_of(result: BlockResult, seed: int) -> dict[str, Any]:
    """What is kept of a block."""
    route = result.route
    return {
        "preset": result.config.name,
        "block": result.block,
        "device": result.device.name,
        "usage": [list(row) for row in result.device.usage(result.cells)],
        "fmax_mhz": round(route.fmax_mhz, 1) if route is not None else None,
        "path_from": route.path_from if route is not None else None,
        "path_to": route.path_to if route is not None else None,
        "seed": seed,
        "tools": {tool.name: tool.version for tool in result.tools},
    }


app = typer.Typer(add_completion=False)


@app.command()
def main(
    *,
    presets: Annotated[str, typer.Option(help="with commas between them")] = ",".join(PRESETS),
    blocks: Annotated[str, typer.Option(help="only these, with commas between them; rows of others stay")] = "",
    unrouted: Annotated[str, typer.Option(help="blocks that are only synthesised: they take long")] = "board,engine",
    seed: Annotated[int, typer.Option(help="of placement")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of logs")] = Path("build/synth"),
    table: Annotated[Path, typer.Option(help="file of the results")] = BLOCKS_JSON,
) -> None:
    """Synthesise and route every block of the presets, and keep the results; rows of other presets in the file stay."""
    try:
        chosen = {name: configurations.preset(name) for name in presets.split(",")}
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    wanted = {name: blocks.split(",") if blocks else list(blocks_of(config)) for name, config in chosen.items()}
    kept = json.loads(table.read_text()) if table.is_file() else []
    rows = [row for row in kept if row["preset"] not in chosen or (blocks and row["block"] not in wanted[row["preset"]])]
    failures = 0
    for name, config in chosen.items():
        for block in wanted[name]:
            try:
                result = measure(config, block, output / f"{name}-{block}", route=block not in unrouted.split(","), seed=seed)
            except (ValueError, SynthesisError) as error:
                failures += 1
                typer.echo(f"{name} {block}: {error}", err=True)
                continue
            rows.append(row_of(result, seed))
            speed = f", {result.route.fmax_mhz:.1f} MHz" if result.route is not None else ""
            used = ", ".join(f"{count:,} {resource}" for resource, count, _ in result.device.usage(result.cells))
            typer.echo(f"{name} {block}: {used}{speed}")
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            table.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    if failures:
        typer.echo(f"{failures} blocks could not be measured, and have no row", err=True)
        raise typer.Exit(2)
