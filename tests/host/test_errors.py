"""What goes wrong is told in one sentence by the real command, in a process of its own, and within a limited time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import serial
from support.links.terminal import Terminal, golden_device
from support.models.builder import ModelBuilder, padding_code
from support.models.files import DIGITS_MODEL
from support.programs.small_program import CHANNELS, small_program

from systola import connect
from systola.commands.cli import main
from systola_firmware.spec import program_file
from systola_firmware.spec.memory_map import Region, register_address
from systola_firmware.spec.presets import preset

CONFIG = preset("tiny-4x4")
#: Seconds for a command that fails at once, on a machine that does much else.
QUICKLY = 30.0


def refused(*words: object) -> str:
    """Run ``systola``, which must fail in time with nothing but one sentence on stderr; the sentence."""
    command = [sys.executable, "-m", "systola", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=QUICKLY, check=False)
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("systola: ")
    assert result.stderr.endswith("\n")
    sentence = result.stderr.removeprefix("systola: ").rstrip("\n")
    assert "internal error" not in sentence
    assert "Traceback" not in sentence
    assert ". " not in sentence
    return sentence


def float_model() -> bytes:
    model = ModelBuilder()
    x, y = (model.tensor((1, 8), np.float32, name=name) for name in ("x", "y"))
    model.operator("RELU", [x], [y])
    return model.finish([x], [y])


def unknown_operator() -> bytes:
    model = ModelBuilder()
    x, y, z = (model.activation((1, 8), 0.1, 0, name=name) for name in ("x", "rectified", "floored"))
    model.operator("RELU", [x], [y])
    model.operator("FLOOR", [y], [z])
    return model.finish([x], [z])


def large_activations() -> bytes:
    """Pooling of a picture that is larger than the memory, over all of it at once."""
    model = ModelBuilder()
    x, y = model.activation((1, 256, 512, 1), 0.1, 0), model.activation((1, 256, 512, 1), 0.1, 0)
    model.operator("RELU", [x], [y])
    return model.finish([x], [y])


def large_weights() -> bytes:
    model = ModelBuilder()
    x, y = model.activation((1, 1024), 0.1, 0), model.activation((1, 1024), 0.1, 0)
    weights = model.constant(np.ones((1024, 1024), np.int8), scale=0.1)
    bias = model.constant(np.zeros(1024, np.int32), scale=0.01)
    model.operator("FULLY_CONNECTED", [x, weights, bias], [y])
    return model.finish([x], [y])


def large_program() -> bytes:
    """More layers than the program store has room for."""
    model = ModelBuilder()
    tensors = [model.activation((1, 4, 4, 4), 0.1, 0) for _ in range(400)]
    for source, target in itertools.pairwise(tensors):
        sizes = {"filterHeight": 1, "filterWidth": 1, "strideH": 1, "strideW": 1, "padding": padding_code("VALID")}
        model.operator("MAX_POOL_2D", [source], [target], **sizes)
    return model.finish(tensors[:1], tensors[-1:])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: DIGITS_MODEL.read_bytes()[:6000], ("damaged",)),
        (lambda: DIGITS_MODEL.read_bytes()[:-1], ("damaged",)),
        (float_model, ("float32", "full integer quantization")),
        (unknown_operator, ("FLOOR", "number 1", "'floored'")),
        (large_activations, ("131072 bytes", "65536")),
        (large_weights, ("1052672 bytes of weight memory", "278528")),
        (large_program, ("program", "2048")),
    ],
    ids=["truncated", "last-byte-missing", "float", "operator", "activations", "weights", "program"],
)
def test_a_model_that_cannot_run_is_refused(content: Callable[[], bytes], words: tuple[str, ...], tmp_path: Path) -> None:
    path, output = tmp_path / "model.tflite", tmp_path / "model.systola"
    path.write_bytes(content())
    sentence = refused("compile", path, "-o", output)
    assert sentence.startswith(str(path))
    assert all(word in sentence for word in words), sentence
    assert not output.exists()


@pytest.fixture
def run(tmp_path: Path) -> list[object]:
    """`run` of a small program with a good input; the device is still to be named."""
    program, x = tmp_path / "small.systola", tmp_path / "x.npy"
    program.write_bytes(program_file.dump(small_program(CONFIG)))
    np.save(x, np.zeros((1, CHANNELS), np.int8))
    return ["run", program, "--input", x, "--output", tmp_path / "y.npy", "--device"]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, CHANNELS + 1), np.int8), ("[1, 8]", "[1, 9] was given")),
        (np.zeros((2, 2, 1, CHANNELS), np.int8), ("[N, 1, 8]", "[2, 2, 1, 8] was given")),
        (np.zeros((1, CHANNELS), np.uint8), ("int8", "uint8 was given")),
        (np.zeros((1, CHANNELS), np.float32), ("int8", "float32 was given", "--float")),
    ],
    ids=["shape", "too-many-axes", "unsigned", "real"],
)
def test_an_input_that_does_not_fit_is_refused(x: np.ndarray, words: tuple[str, ...], run: list[object], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    sentence = refused(*run, "golden:tiny-4x4")
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "y.npy").exists()


def test_a_program_for_another_preset_is_refused(run: list[object]) -> None:
    assert "columns is 4 in the program and 8 on the device" in refused(*run, "golden:ulx3s-85f")


def test_a_port_that_is_not_there_is_named(run: list[object]) -> None:
    assert refused(*run, "serial:/dev/nonesuch") == "there is no serial port /dev/nonesuch"


def test_a_port_that_another_program_has_opened_is_named(run: list[object]) -> None:
    with Terminal(golden_device(CONFIG)) as terminal, serial.Serial(terminal.port, exclusive=True):
        assert refused(*run, f"serial:{terminal.port}") == f"{terminal.port} is in use by another program"


@pytest.mark.parametrize("divisor", [3, 65536, -1])
def test_a_simulated_line_that_the_board_cannot_run_at_is_refused(divisor: int) -> None:
    sentence = refused("sim", "--serial", "--divisor", divisor)
    assert sentence == f"--divisor must be 0 or from 4 to 65535 clock cycles a bit, not {divisor}"


def test_a_board_that_does_not_answer_is_named(run: list[object]) -> None:
    with Terminal(lambda _data: b"") as terminal:
        assert "does not answer" in refused(*run, f"serial:{terminal.port}")


@pytest.mark.parametrize(
    "moment", [Region.PROGRAM.base, Region.ACTIVATION.base, register_address("control")], ids=["loading", "input", "start"]
)
def test_a_cable_that_is_pulled_in_the_middle_is_named(moment: int, run: list[object], tmp_path: Path) -> None:
    with Terminal(golden_device(CONFIG, trap=moment)) as terminal:
        assert refused(*run, f"serial:{terminal.port}") == f"{terminal.port} is gone: was the cable pulled?"
    assert not (tmp_path / "y.npy").exists()


class Damaging:
    """A golden board on a line that damages every answer after the first ``good`` ones."""

    def __init__(self, good: int) -> None:
        self._device = golden_device(CONFIG)
        self._good = good

    def __call__(self, data: bytes) -> bytes:
        answer = self._device(data)
        if not answer or self._good > 0:
            self._good -= bool(answer)
            return answer
        return bytes(byte ^ 0x55 if byte not in (0, 0x55) else byte for byte in answer)


def test_a_line_that_damages_everything_is_told(run: list[object]) -> None:
    with Terminal(Damaging(0)) as terminal:
        assert "sends bytes that are not a Systola device's answers" in refused(*run, f"serial:{terminal.port}")


def test_a_line_that_goes_bad_in_the_middle_is_told(
    run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The real patience is tested by its sum alone: here the command runs with a tenth of it, in this process.
    assert sum(connect._SERIAL_TIMEOUT * 1.5**attempt for attempt in range(connect._SERIAL_ATTEMPTS)) < QUICKLY
    monkeypatch.setattr(connect, "_SERIAL_TIMEOUT", connect._SERIAL_TIMEOUT / 10)
    with Terminal(Damaging(3)) as terminal, pytest.raises(SystemExit, match="1"):
        main([*map(str, run), f"serial:{terminal.port}"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"systola: serial:{terminal.port} stopped answering: 5 attempts without a good answer\n"
    assert not (tmp_path / "y.npy").exists()


def test_the_same_line_without_damage_carries_the_answer(run: list[object], tmp_path: Path) -> None:
    with Terminal(golden_device(CONFIG)) as terminal:
        subprocess.run([sys.executable, "-m", "systola", *map(str, run), f"serial:{terminal.port}"], check=True, timeout=QUICKLY)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.full((1, CHANNELS), 3, np.int8))
