"""The command line: its files, its exit codes, and one sentence for each thing that goes wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.programs.small_program import CHANNELS, small_program

from systola.commands.cli import main
from systola.device import Device
from systola.measure import benchmark
from systola.transports.golden import GoldenTransport
from systola_firmware.spec import program_file
from systola_firmware.spec.memory_map import MARK_WORDS, Region, register_address
from systola_firmware.spec.presets import PRESETS, preset

CONFIG = preset("tiny-4x4")
DEVICE = ["--device", "golden:tiny-4x4"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "small.systola"
    path.write_bytes(program_file.dump(small_program(CONFIG)))
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3 * CHANNELS, dtype=np.int8).reshape(3, 1, CHANNELS))
    return path


def systola(*words: object) -> int:
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], words: Sequence[object]) -> str:
    """The one sentence on stderr of a command that fails."""
    assert systola(*words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("systola: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert "internal error" not in captured.err
    return captured.err


def test_run_answers_in_kind(program: Path, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "y.npy"
    assert systola("run", program, "--input", inputs, "--output", output, *DEVICE) == 0
    np.testing.assert_array_equal(np.load(output), np.load(inputs) + 3)
    single = tmp_path / "one.npy"
    np.save(single, np.load(inputs)[0])
    assert systola("run", program, "--input", single, "--output", output, *DEVICE) == 0
    np.testing.assert_array_equal(np.load(output), np.load(single) + 3)


def test_run_takes_and_gives_named_tensors(program: Path, inputs: Path, tmp_path: Path) -> None:
    named, output = tmp_path / "x.npz", tmp_path / "y.npz"
    np.savez(named, x=np.load(inputs))
    assert systola("run", program, "-i", named, "-o", output, *DEVICE) == 0
    with np.load(output) as answer:
        assert answer.files == ["second"]
        np.testing.assert_array_equal(answer["second"], np.load(inputs) + 3)


def test_run_with_real_values(program: Path, tmp_path: Path) -> None:
    real, output = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(real, np.linspace(-4, 3, CHANNELS).reshape(1, CHANNELS))
    assert systola("run", program, "-i", real, "-o", output, "--float", *DEVICE) == 0
    np.testing.assert_array_equal(np.load(output), (np.linspace(-4, 3, CHANNELS) + 1.5).reshape(1, CHANNELS))


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((1, CHANNELS)), "input 'x' is int8, but float64 was given"),
        (np.zeros((5,), np.int8), "but [5] was given"),
        (np.array([{}]), "is not a .npy or .npz file of numbers"),
    ],
)
def test_run_refuses_a_wrong_input(capsys: Any, program: Path, tmp_path: Path, x: Any, sentence: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x, allow_pickle=True)
    assert sentence in refused(capsys, ["run", program, "-i", path, "-o", tmp_path / "y.npy", *DEVICE])
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 cut short", b"words"])
def test_run_refuses_a_damaged_input_file(capsys: Any, program: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    message = refused(capsys, ["run", program, "-i", path, "-o", tmp_path / "y.npy", *DEVICE])
    assert f"{path} is not a .npy or .npz file of numbers, or it is damaged" in message


def test_files_that_are_not_there_are_named(capsys: Any, program: Path, inputs: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "y.npy"
    there = ["-o", tmp_path / "y.npy", *DEVICE]
    assert f"there is no file {nowhere}" in refused(capsys, ["run", program, "-i", nowhere, *there])
    assert f"there is no file {nowhere}" in refused(capsys, ["run", nowhere, "-i", inputs, *there])
    assert f"{tmp_path} is a folder" in refused(capsys, ["run", tmp_path, "-i", inputs, *there])
    assert f"there is no folder {nowhere.parent}" in refused(capsys, ["run", program, "-i", inputs, "-o", nowhere, *DEVICE])
    assert "is a folder, not a file to write" in refused(capsys, ["run", program, "-i", inputs, "-o", tmp_path, *DEVICE])


def test_a_damaged_or_foreign_program_is_refused(capsys: Any, program: Path, inputs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.systola"
    rest = ["-i", inputs, "-o", tmp_path / "y.npy"]
    bad.write_bytes(program.read_bytes()[:-40])
    assert "damaged or cut short" in refused(capsys, ["run", bad, *rest, *DEVICE])
    message = refused(capsys, ["run", program, *rest, "--device", "golden:tiny-8x4"])
    assert "rows is 4 in the program and 8 on the device" in message


@pytest.mark.parametrize("content", [b"", b"just some text", b"\x1c\0\0\0TFL3" + bytes(20)])
def test_what_is_no_model_is_refused(capsys: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert str(path) in refused(capsys, ["compile", path, "-o", tmp_path / "m.systola"])
    assert not (tmp_path / "m.systola").exists()


def test_a_program_is_not_compiled_again(capsys: Any, program: Path, tmp_path: Path) -> None:
    assert "is a compiled program already" in refused(capsys, ["compile", program, "-o", tmp_path / "m.systola"])


def test_disassemble_prints_every_instruction_under_its_layer(capsys: Any, program: Path) -> None:
    assert systola("disassemble", program) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line and not line.startswith("#")] == ["VECTOR", "VECTOR", "END"]
    assert "# first (Lookup)" in lines
    assert "# second (Lookup)" in lines


def test_devices_that_are_not_there_are_named(capsys: Any, program: Path, inputs: Path, tmp_path: Path) -> None:
    words = ["run", program, "-i", inputs, "-o", tmp_path / "y.npy", "--device"]
    assert "there is no serial port /dev/nonesuch" in refused(capsys, [*words, "serial:/dev/nonesuch"])
    assert "unknown preset 'nonesuch'" in refused(capsys, [*words, "golden:nonesuch"])
    assert "unknown preset 'nonesuch'" in refused(capsys, ["sim", "--preset", "nonesuch"])


def test_bench_needs_a_clock(capsys: Any, program: Path, tmp_path: Path) -> None:
    message = refused(capsys, ["bench", program, "--json", tmp_path / "b.json", *DEVICE])
    assert "golden:tiny-4x4 has no clock" in message
    assert not (tmp_path / "b.json").exists()


class Clocked(GoldenTransport):
    """The golden device with made-up counters."""

    has_cycles = True

    def read(self, address: int, length: int) -> bytes:
        made_up = {register_address("counter_cycles"): 100, register_address("counter_array_busy"): 60}
        first, second = Region.TRACE.base, Region.TRACE.base + 4 * len(MARK_WORDS)
        made_up |= {first + 4: 30, second + 4: 90, second + 4 * MARK_WORDS.index("wait_token"): 7}
        data = bytearray(super().read(address, length))
        for start, value in made_up.items():
            if address <= start < address + length:
                data[start - address : start - address + 4] = value.to_bytes(4, "little")
        return bytes(data)


def test_bench_writes_exactly_what_was_measured(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    macs = 320
    small = small_program(CONFIG)
    layers = tuple(dataclasses.replace(layer, macs=layer_macs) for layer, layer_macs in zip(small.layers, (macs, 0), strict=True))
    program.write_bytes(program_file.dump(dataclasses.replace(small, layers=layers)))
    monkeypatch.setattr("systola.connect._open_golden", lambda config: Device(Clocked(config)))
    path = tmp_path / "bench.json"
    assert systola("bench", program, "--json", path, *DEVICE) == 0
    waits = {"token": 0, "weights": 0, "activations": 0, "post": 0, "step": 0}
    assert json.loads(path.read_text()) == {
        "model": "small",
        "preset": "tiny-4x4",
        "array": {"rows": 4, "columns": 4},
        "macs": macs,
        "cycles": 100,
        "busy_cycles": 60,
        "utilization": macs / (100 * 16),
        "clock_mhz": 50.0,
        "latency_ms": 0.002,
        "layers": [
            {"name": "first", "op": "Lookup", "macs": macs, "cycles": 30, "utilization": macs / (30 * 16), "stalls": waits},
            {"name": "second", "op": "Lookup", "macs": 0, "cycles": 60, "utilization": 0.0, "stalls": waits | {"token": 7}},
        ],
    }
    assert systola("profile", program, *DEVICE) == 0


def test_info_lists_every_preset_and_asks_a_device(capsys: Any) -> None:
    assert systola("info", *DEVICE) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PRESETS)
    assert "rows = 4" in out
    assert "golden:tiny-4x4 is a Systola engine" in out


def test_version_and_usage(capsys: Any) -> None:
    assert systola("--version") == 0
    assert capsys.readouterr().out.startswith("systola 0.")
    assert systola("run") == 2
    assert "Missing argument" in capsys.readouterr().err


def test_an_unforeseen_error_is_a_sentence_too(capsys: Any, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(benchmark, "measure", broken)
    assert systola("bench", program, *DEVICE) == 1
    plain = capsys.readouterr().err
    assert plain.startswith("systola: internal error, please report it (RuntimeError: two lines)")
    assert "Traceback" not in plain
    assert systola("--debug", "bench", program, *DEVICE) == 1
    assert "Traceback" in capsys.readouterr().err
