"""The simulated board behind a pseudo-terminal, used through pyserial as a board on a cable would be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from systola_firmware.spec.presets import preset
from systola_sim.verilated.board import IDLE_CYCLES
from systola_sim.verilated.loopback import BUSY_BYTE, BUSY_CYCLES, answer, loopback_verilog
from systola_sim.verilated.verilator import build_library
from systola_sim.verilated.virtual_board import VirtualBoard

CONFIG = preset("tiny-4x4")
#: Every byte, so also the ones that a terminal not in raw mode would swallow or change.
DATA = bytes(random.Random(2).sample([byte for byte in range(256) if byte != BUSY_BYTE], k=255)) * 4


@pytest.fixture(scope="module")
def library() -> Path:
    text = loopback_verilog()
    return build_library(text, lambda: text)


@pytest.mark.parametrize("uart_divisor", [None, 4])
def test_carries_every_byte_and_serves_one_client_after_another(library: Path, uart_divisor: int | None) -> None:
    with VirtualBoard(CONFIG, uart_divisor, library=library) as board:
        for _client in range(2):
            with serial.Serial(board.port, CONFIG.uart_baud, timeout=20) as port:
                port.write(DATA)
                assert port.read(len(DATA)) == answer(DATA)
        assert board.framing_errors == 0
        assert board.cycles > 2 * len(DATA) * 10 * (uart_divisor or CONFIG.uart_divisor)


def test_stands_still_while_nothing_is_under_way_but_works_while_busy(library: Path) -> None:
    with VirtualBoard(CONFIG, 4, library=library) as board:
        with serial.Serial(board.port, CONFIG.uart_baud, timeout=20) as port:
            port.write(bytes([BUSY_BYTE]))
            assert port.read(1) == answer(bytes([BUSY_BYTE]))
            assert board.cycles > BUSY_CYCLES
            deadline = time.monotonic() + 20
            seen = -1
            while seen != (seen := board.cycles):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            used = time.process_time()
            time.sleep(0.5)
            assert board.cycles == seen < BUSY_CYCLES + 4 * IDLE_CYCLES
            assert time.process_time() - used < 0.2  # asleep, not polling
            port.write(b"awake")
            assert port.read(5) == answer(b"awake")


def test_keeps_answers_until_the_client_reads_them(library: Path) -> None:
    data = DATA * 20  # more than the terminal's buffers hold
    with VirtualBoard(CONFIG, 4, library=library) as board:
        with serial.Serial(board.port, CONFIG.uart_baud, timeout=20, write_timeout=20) as port:
            for start in range(0, len(data), 1024):
                port.write(data[start : start + 1024])
            time.sleep(0.3)
            received = b""
            while len(received) < len(data):
                part = port.read(min(1000, len(data) - len(received)))
                assert part
                received += part
            assert received == answer(data)


def test_closes_at_once_even_while_busy_and_only_starts_once(library: Path) -> None:
    board = VirtualBoard(CONFIG, library=library)
    board.start()
    with pytest.raises(RuntimeError, match="started once"):
        board.start()
    with serial.Serial(board.port, CONFIG.uart_baud) as port:
        port.write(bytes([BUSY_BYTE]) * 1000)
    before = time.monotonic()
    board.close()
    board.close()
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_cleanly(library: Path, number: signal.Signals) -> None:
    script = (
        "import sys; from pathlib import Path; from systola_firmware.spec.presets import preset\n"
        "from systola_sim.verilated.virtual_board import VirtualBoard, serve\n"
        "serve(VirtualBoard(preset('tiny-4x4'), 4, library=Path(sys.argv[1])), lambda port: print(port, flush=True))\n"
        "print('closed')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(library)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        name = output.readline().strip()
        with serial.Serial(name, CONFIG.uart_baud, timeout=20) as port:
            port.write(b"hello")
            assert port.read(5) == answer(b"hello")
        os.kill(process.pid, number)
        assert output.read() == "closed\n"
    assert process.wait(timeout=20) == 0
