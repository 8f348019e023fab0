"""A program of several inferences at once: inputs go through in groups, and the answers do not show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.graphs.lstm_graphs import lstm_graph
from support.models.files import DIGITS_LSTM, DIGITS_LSTM_TEST

import systola
from systola.commands.cli import main
from systola.transports.golden import GoldenTransport
from systola_firmware.compiler import compile_graph
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.rebatch import rebatch
from systola_firmware.spec import program_file
from systola_firmware.spec.presets import preset
from systola_firmware.spec.program import Program
from systola_sim.golden.graph_model import evaluate

CONFIG = preset("tiny-4x4")
BATCH = 3
DEVICE = ["--device", "golden:ulx3s-85f"]


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Time first, so that inferences interleave in memory."""
    return lstm_graph(7, steps=4, features=3, hidden=5, time_major=True)


@pytest.fixture(scope="module")
def program(graph: Graph) -> Program:
    return compile_graph(rebatch(graph, BATCH), CONFIG)


@pytest.fixture
def device() -> systola.Device:
    return systola.open("golden:tiny-4x4")


def stacked(graph: Graph, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and the answers that each has by itself."""
    x = np.random.default_rng(count).integers(-128, 128, (count, *graph.inputs[0].shape), dtype=np.int8)
    return x, np.stack([evaluate(graph, [values])[graph.outputs[0].name] for values in x])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("at_once", [False, True])
def test_inputs_go_through_in_groups(
    graph: Graph, program: Program, count: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, runs = systola.open("golden:tiny-4x4"), {1: 1, 2: 1, 3: 1, 4: 2, 7: 3}[count]
    if not at_once:
        monkeypatch.setattr(GoldenTransport, "runs_batches", False)
    session = device.load(program)
    execute, calls = device.execute, []
    monkeypatch.setattr(device, "execute", lambda **options: calls.append(options) or execute(**options))
    x, expected = stacked(graph, count)
    answer = session.run(x)
    np.testing.assert_array_equal(answer, expected)
    assert len(calls) == (0 if at_once and runs > 1 else runs)


def test_one_input_answers_in_its_own_shape_and_absent_ones_are_zero_points(
    device: systola.Device, graph: Graph, program: Program
) -> None:
    session = device.load(program)
    assert [binding.shape for binding in session.inputs] == [graph.inputs[0].shape]
    (x,), (expected,) = stacked(graph, 1)
    np.testing.assert_array_equal(session.run(x), expected)
    held = session._read(session.inputs[0])
    np.testing.assert_array_equal(held[0], x)
    np.testing.assert_array_equal(held[1:], np.full_like(held[1:], session.inputs[0].zero_point))
    np.testing.assert_array_equal(session.run_until("lstm_0", x), expected)
    with pytest.raises(systola.InputError, match=r"has the shape \[4, 1, 3\], or \[N, 4, 1, 3\]"):
        session.run(np.zeros((4, BATCH, 3), np.int8))


def test_a_program_file_keeps_the_batch(device: systola.Device, graph: Graph, program: Program) -> None:
    data = program_file.dump(program)
    x, expected = stacked(graph, 4)
    for batch in (1, BATCH):  # 1 is whatever the program has
        session = device.load(data, batch=batch)
        assert session.program.batch == BATCH
        np.testing.assert_array_equal(session.run(x), expected)
    with pytest.raises(systola.ProgramError, match="was compiled for a batch of 3: compile it again with a batch of 2"):
        device.load(data, batch=2)
    with pytest.raises(systola.ProgramError, match="the program was compiled for a batch of 3"):
        device.load(program, batch=2)


def test_a_batch_that_cannot_be_is_refused_in_a_sentence() -> None:
    device = systola.open("golden:ulx3s-85f")
    with pytest.raises(systola.ProgramError, match="at least one inference at a time, not 0"):
        device.load(DIGITS_LSTM, batch=0)
    with pytest.raises(systola.ProgramError, match="runs one stream, not 2 side by side"):
        device.load(DIGITS_LSTM, batch=2, stateful=True)


def test_the_command_line(tmp_path: Path) -> None:
    device = systola.open("golden:ulx3s-85f")
    with np.load(DIGITS_LSTM_TEST) as data:
        shape = device.load(DIGITS_LSTM).inputs[0].shape
        x = data["images"][:7].reshape(7, *shape)
    expected = device.load(DIGITS_LSTM).run(x)
    np.save(tmp_path / "x.npy", x)
    compiled, answer = str(tmp_path / "four.systola"), tmp_path / "y.npy"
    files = ["--input", str(tmp_path / "x.npy"), "--output", str(answer)]
    for arguments in (
        ["compile", str(DIGITS_LSTM), "--batch", "4", "--output", compiled, "--preset", "ulx3s-85f"],
        ["run", compiled, *files, *DEVICE],
        ["run", str(DIGITS_LSTM), "--batch", "2", *files, *DEVICE],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        if arguments[0] == "run":
            np.testing.assert_array_equal(np.load(answer), expected)
            answer.unlink()
    assert program_file.load(Path(compiled).read_bytes()).batch == 4
