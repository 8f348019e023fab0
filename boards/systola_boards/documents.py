"""The generated pages of ``docs/``: ``systola docs``. Results of builds are kept in the repository.

What is kept is data: ``host/systola/boards.json``, which ``systola boards`` shows, and ``docs/blocks.json``. The tables
in ``docs/boards.md`` and ``docs/blocks.md`` are made from these two and nothing else, between the markers that name
them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from systola_boards.blocks.table import BLOCKS_JSON
from systola_boards.catalogue.board import Board
from systola_boards.catalogue.boards import BOARDS
from systola_boards.catalogue.prepared import PREPARED, STATE, PreparedBoard
from systola_boards.fpga.devices import DEVICES
from systola_firmware.docs import table, with_sections, write_pages
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.config import Config

__all__ = ["BOARDS_JSON", "app", "block_tables", "board_tables", "describe", "describe_prepared", "kept_result"]

BOARDS_JSON = Path("host/systola/boards.json")
_PAGES = {Path("docs/boards.md"): BOARDS_JSON, Path("docs/blocks.md"): BLOCKS_JSON}


#: What the table adds to the names of some blocks.
_LABELS = {"pcie_endpoint": "core logic, no PHY"}


def _has_placer(device: str) -> bool:
    return device not in DEVICES or bool(DEVICES[device].placer)


def describe(board: Board, result: dict[str, Any] | None) -> dict[str, Any]:
    """What the tables say about a board; ``result`` is what is kept of its build (:func:`kept_result`), None without
    one."""
    config = configurations.preset(board.preset)
    met = result is not None and bool(result["timing_met"])
    baud = board.uart_baud or config.uart_baud
    return _engine(board, config) | {
        "clock_mhz": result["asked_mhz"] if result is not None else config.clock_hz / 1e6,
        "serial": board.serial,
        "port": board.port,
        "baud": baud,
        "device": f"serial:{board.port}@{baud}",
        "loaders": [command[0] for command in board.loaders],
        "loads_flash": board.loads_flash,
        "reset": board.button_label,
        "state": ("built in CI" if board.built_in_ci else "timing met") if met else "only simulated",
        "result": result,
    }


def describe_prepared(board: PreparedBoard) -> dict[str, Any]:
    """What the tables say about a board that is only prepared."""
    return _engine(board, board.config) | {
        "clock_mhz": board.config.clock_hz / 1e6,
        "serial": "PCIe, one lane",
        "device": "pcie:0000:03:00.0",
        "state": STATE,
        "result": None,
    }


def _engine(board: Board | PreparedBoard, config: Config) -> dict[str, Any]:
    return {
        "name": board.name,
        "title": board.title,
        "fpga": board.device.name,
        "preset": board.preset,
        "array": f"{config.rows}×{config.columns}",
    }


def kept_result(result: dict[str, Any]) -> dict[str, Any]:
    """What the repository keeps of the record of a build, ``result.json``."""
    route = result["route"]
    return {
        "timing_met": result["timing_met"],
        "usage": result["usage"],
        "fmax_mhz": round(route["fmax_mhz"], 1),
        "asked_mhz": result["clock_mhz"],
        "path_from": route["path_from"],
        "path_to": route["path_to"],
        "path_ns": round(route["logic_ns"] + route["routing_ns"], 1),
        "logic_ns": round(route["logic_ns"], 1),
        "seed": route["seed"],
        "tools": result["tools"],
    }


def board_tables(boards: list[dict[str, Any]]) -> dict[str, str]:
    """The tables of ``docs/boards.md``, by name."""
    rows = [
        (f"`{b['name']}`", b["title"], b["fpga"], f"`{b['preset']}`", b["array"], f"{b['clock_mhz']:g} MHz", b["state"])
        for b in boards
    ]
    links = []
    for b in boards:
        loaded = " or ".join(b.get("loaders", ())) + (", to its flash" if b.get("loads_flash") else "")
        links.append((f"`{b['name']}`", b["serial"], f"`{b['device']}`", loaded, b.get("reset") or ""))
    built = [b for b in boards if b["result"] is not None]
    usage = []
    paths = []
    for b in built:
        result = b["result"]
        used = {name: f"{count:,} of {available:,}" for name, count, available in result["usage"]}
        memory = used["block RAM"] + (f", {used['SPRAM']} SPRAM" if "SPRAM" in used else "")
        clock = f"{result['fmax_mhz']:.1f} MHz"
        met = "yes" if result["timing_met"] else "**no**"
        usage.append((f"`{b['name']}`", used["LUT"], used["FF"], used["DSP"], memory, clock, f"{result['asked_mhz']:g} MHz", met))
        tools = ", ".join(f"{tool} {version}" for tool, version in result["tools"].items())
        ends = f"`{result['path_from']}` → `{result['path_to']}`"
        paths.append((f"`{b['name']}`", f"{result['path_ns']} ns, {result['logic_ns']} in cells", ends, result["seed"], tools))
    none = "No board has been built to the end yet."
    return {
        "boards": table(("board", "", "FPGA", "preset", "array", "clock", "state"), rows),
        "links": table(("board", "link", "device for `systola`", "loaded by", "reset button"), links),
        "usage": table(("board", "LUT", "FF", "DSP", "block RAM", "fmax", "asked for", "met"), usage) if built else none,
        "paths": table(("board", "longest path", "from → to", "seed", "tools"), paths) if built else none,
    }


def block_tables(blocks: list[dict[str, Any]]) -> dict[str, str]:
    """The table of ``docs/blocks.md``: one for all presets, in the order of the records."""
    parts = []
    for preset in dict.fromkeys(block["preset"] for block in blocks):
        chosen = [block for block in blocks if block["preset"] == preset]
        names = [name for name, _, _ in chosen[0]["usage"]]
        rows = []
        for block in chosen:
            clock = "" if _has_placer(block["device"]) else "cells only"
            path = ""
            if block["fmax_mhz"] is not None:
                clock, path = f"{block['fmax_mhz']:.1f} MHz", f"`{block['path_from']}` → `{block['path_to']}`"
            label = f", {_LABELS[block['block']]}" if block["block"] in _LABELS else ""
            rows.append((f"`{block['block']}`{label}", *(f"{used:,}" for _, used, _ in block["usage"]), clock, path))
        available = ("*available*", *(f"*{available:,}*" for _, _, available in chosen[0]["usage"]), "", "")
        tools = ", ".join(f"{tool} {version}" for tool, version in chosen[-1]["tools"].items())
        parts.append(f"### `{preset}` on {chosen[0]['device']}\n\n{tools}; seed {chosen[0]['seed']}.")
        parts.append(table(("block", *names, "clock", "longest path"), [*rows, available]))
    return {"blocks": "\n\n".join(parts) if parts else "No block has been measured yet."}


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: kept_result(json.loads(path.read_text())) for path in sorted(folder.glob("*/result.json"))}


def _dump(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    results: Annotated[Path, typer.Option(help="folder of builds; boards that it lacks keep their last result")] = Path(
        "build/boards"
    ),
    root: Annotated[Path, typer.Option(help="folder of the repository")] = Path(),
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit with 1 if a page is not as generated")] = False,
) -> None:
    """Write the generated pages of docs/: those of the definitions, and tables of what the last builds left."""
    kept = (root / BOARDS_JSON).read_text(encoding="utf-8") if (root / BOARDS_JSON).is_file() else "[]"
    known = {board["name"]: board["result"] for board in json.loads(kept)}
    if not check:
        known |= _results(results)
    described = [describe(board, known.get(name)) for name, board in BOARDS.items()]
    described += [describe_prepared(board) for board in PREPARED.values()]
    blocks = json.loads((root / BLOCKS_JSON).read_text()) if (root / BLOCKS_JSON).is_file() else []
    tables = board_tables(described) | block_tables(blocks)
    differing = write_pages(root, check=check)
    if _dump(described) != kept:
        differing.append(str(BOARDS_JSON))
        if not check:
            (root / BOARDS_JSON).write_text(_dump(described), encoding="utf-8")
    for page in _PAGES:
        text = (root / page).read_text(encoding="utf-8")
        made = with_sections(text, tables)
        if made != text:
            differing.append(str(page))
            if not check:
                (root / page).write_text(made, encoding="utf-8")
    if check and differing:
        sys.stderr.write(f"not as generated: {', '.join(differing)}; run `make docs`\n")
        raise typer.Exit(1)
