"""Whole models through a pseudo-terminal and the bit-level UART, by the unchanged serial transport."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from support.models.files import DIGITS_MODEL, model_path
from support.oracle.agreement import check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola
from systola_firmware.spec.presets import preset
from systola_sim.verilated.virtual_board import VirtualBoard

#: Clock cycles a bit of the quick line: less than a real one, so that tens of kilobytes of weights take seconds.
QUICK_DIVISOR = 5


@pytest.mark.parametrize(
    ("name", "divisor"),
    [("digits", None), ("digits", QUICK_DIVISOR), pytest.param("strww", QUICK_DIVISOR, marks=pytest.mark.full)],
)
def test_models_answer_the_same_through_a_serial_line(name: str, divisor: int | None, simulated: systola.Device) -> None:
    path = DIGITS_MODEL if name == "digits" else model_path(name)
    direct = simulated.load(path)
    sets = sets_for(direct, 10, seed=7)[-4:]
    oracle = Oracle(path)
    check_outputs(name, direct, oracle, sets)
    with VirtualBoard(preset("ulx3s-85f"), divisor) as board, systola.open(f"serial:{board.port}") as device:
        session = device.load(path)
        check_outputs(f"{name} over serial", session, oracle, sets)
        assert session.counters == direct.counters  # the engine does not know which link is there
        assert board.framing_errors == 0


@pytest.mark.parametrize(("words", "divisor"), [([], 4), (["--divisor", "0"], preset("ulx3s-85f").uart_divisor)])
def test_the_command_serves_the_board_until_it_is_interrupted(words: list[str], divisor: int) -> None:
    command = [sys.executable, "-m", "systola", "sim", "--serial", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, *told = (process.stdout.readline().rstrip("\n") for _ in range(3))
        assert told[0] == f"Try: systola info --device serial:{port}"
        assert f"simulated at {divisor} clock cycles a bit" in told[1]
        with systola.open(f"serial:{port}") as device:
            assert device.config == preset("ulx3s-85f")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
