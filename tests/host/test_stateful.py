"""Stateful sessions: streams through recurrent layers, their states, and what a recurrence costs for each time step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.graphs.lstm_graphs import lstm_graph
from support.models.random_lstm import lstm_model

import systola
from systola.commands.cli import main
from systola.commands.reports import recurrence_table
from systola.transports.golden import GoldenTransport
from systola_firmware.compiler import compile_graph
from systola_firmware.ir.graph import Graph
from systola_firmware.spec import program_file
from systola_firmware.spec.isa import Opcode
from systola_firmware.spec.memory_map import COUNTERS, MARK_WORDS, Region, register_address
from systola_firmware.spec.presets import preset
from systola_firmware.spec.program import Program
from systola_sim.golden.graph_model import evaluate
from systola_sim.golden.lstm_layer import LstmStates

CONFIG = preset("tiny-4x4")
INTERVALS = 5


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Two LSTMs over two sequences; hidden states of odd sizes."""
    return lstm_graph(3, batch=1, steps=4, features=3, hidden=5, layers=2)


@pytest.fixture(scope="module")
def program(graph: Graph) -> Program:
    return compile_graph(graph, CONFIG, stateful=True)


@pytest.fixture
def device() -> systola.Device:
    return systola.open("golden:tiny-4x4")


def intervals(graph: Graph, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (INTERVALS, *graph.inputs[0].shape), dtype=np.int8)


def streamed(graph: Graph, stream: np.ndarray) -> tuple[np.ndarray, dict[str, LstmStates]]:
    """The graph's own answers to consecutive intervals, and the states after the last."""
    states: dict[str, LstmStates] = {}
    return np.stack([evaluate(graph, [interval], states)[graph.outputs[0].name] for interval in stream]), states


def check_states(session: systola.Session, states: dict[str, LstmStates]) -> None:
    found = session.states()
    assert list(found) == [f"{layer} {part}" for layer in states for part in ("hidden", "cell")]
    for name, values in found.items():
        layer, part = name.rsplit(" ", 1)
        expected = getattr(states[layer], part)[-1]
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)


def test_stacked_inputs_are_intervals_of_one_stream(
    device: systola.Device, graph: Graph, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GoldenTransport, "run_batch", lambda *_: pytest.fail("a stream is no batch"))
    stream = intervals(graph)
    expected, states = streamed(graph, stream)
    session = device.load(program, stateful=True, verify=True)
    np.testing.assert_array_equal(session.run(stream), expected)
    check_states(session, states)
    session.reset()
    np.testing.assert_array_equal(np.concatenate([session.run(stream[:2]), session.run(stream[2:])]), expected)
    check_states(session, states)
    session.reset()
    for interval, answer in zip(stream, expected, strict=True):
        np.testing.assert_array_equal(session.run(interval), answer)
    assert not np.array_equal(session.run(stream[0]), expected[0])


def test_a_reset_writes_the_initial_states(device: systola.Device, graph: Graph, program: Program) -> None:
    session = device.load(program)
    session.run(intervals(graph))
    session.reset()
    for name, values in session.states().items():
        layer = next(layer for layer in graph.layers if layer.name == name.rsplit(" ", 1)[0])
        assert (values == (0 if name.endswith("cell") else layer.output.zero_point)).all()


def test_without_states_every_run_begins_anew(device: systola.Device, graph: Graph) -> None:
    session = device.load(compile_graph(graph, CONFIG))
    stream = intervals(graph)
    together = session.run(stream)
    for interval, answer in zip(stream, together, strict=True):
        np.testing.assert_array_equal(answer, evaluate(graph, [interval])[graph.outputs[0].name])
        np.testing.assert_array_equal(session.run(interval), answer)
    assert session.states() == {}


def test_looking_inside_does_not_disturb_the_stream(device: systola.Device, graph: Graph, program: Program) -> None:
    stream = intervals(graph, 1)
    expected, states = streamed(graph, stream[:3])
    session = device.load(program)
    session.run(stream[:2])
    np.testing.assert_array_equal(session.run_until("lstm_1", stream[2]), expected[2])
    session.run_until("lstm_0", stream[2])
    tensors = session.intermediates(stream[2])
    np.testing.assert_array_equal(tensors["lstm_1"], expected[2])
    check_states(session, states)  # those after one run of the third interval


def test_a_program_that_was_not_compiled_stateful_is_refused(device: systola.Device, graph: Graph, tmp_path: Path) -> None:
    program = compile_graph(graph, CONFIG)
    path = tmp_path / "plain.systola"
    program_file.save(program, path)
    with pytest.raises(systola.ProgramError, match="the program was compiled to begin anew in each run"):
        device.load(program, stateful=True)
    with pytest.raises(systola.ProgramError, match=f"{path} was compiled to begin anew in each run: compile it again"):
        device.load(path, stateful=True)


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def test_the_command_line_compiles_and_runs_a_stream(device: systola.Device, tmp_path: Path) -> None:
    model = lstm_model(2, steps=3)
    path, inputs, compiled = tmp_path / "stream.tflite", tmp_path / "x.npy", tmp_path / "stream.systola"
    path.write_bytes(model.data)
    stream = np.random.default_rng(1).integers(-128, 128, (INTERVALS, *model.shapes[0]), dtype=np.int8)
    np.save(inputs, stream)
    assert command("compile", path, "-o", compiled, "--stateful", "--preset", CONFIG.name) == 0
    answers = []
    for number, (source, options) in enumerate(((path, ["--stateful"]), (compiled, ["--stateful"]), (compiled, []), (path, []))):
        outputs = tmp_path / f"{number}.npy"
        assert command("run", source, "-i", inputs, "-o", outputs, "--device", "golden:tiny-4x4", *options) == 0
        answers.append(np.load(outputs))
    expected = device.load(path, stateful=True).run(stream)
    for answer in answers[:3]:
        np.testing.assert_array_equal(answer, expected)
    np.testing.assert_array_equal(answers[3][0], answers[0][0])
    assert not np.array_equal(answers[3], answers[0])


class Traced(GoldenTransport):
    """A golden device whose trace has made-up counters: each is ``place of its mark² · number of the counter``."""

    has_cycles = True

    def read(self, address: int, length: int) -> bytes:
        data = np.frombuffer(super().read(address, length), "<u4").copy()
        if address == Region.TRACE.base:
            marks = data.reshape(-1, len(MARK_WORDS))
            marks[:, 1:] = np.outer((1 + np.arange(len(marks))) ** 2, 1 + np.arange(len(COUNTERS)))
        if address == Region.REGISTERS.base:
            data[register_address("counter_cycles") // 4] = 100
        return data.tobytes()


def test_a_recurrence_is_told_apart_from_the_product_with_the_inputs(graph: Graph) -> None:
    from systola.measure.benchmark import measure

    device = systola.Device(Traced(CONFIG))
    session = device.load(compile_graph(graph, CONFIG))
    record = measure(session, "streams")
    # Four marks, at 1, 4, 9 and 16: input part and recurrence of either layer.
    assert [layer.cycles for layer in session.layers] == [4, 12]
    assert [layer.recurrence["cycles"] for layer in session.layers] == [3, 7]
    assert [layer.steps for layer in session.layers] == [4, 4]
    each = record["layers"][1]["recurrence"]
    number = {name: 1 + position for position, name in enumerate(COUNTERS)}
    assert (each["steps"], each["units"], each["cycles"]) == (4, 5, 7 / 4)
    assert each["weight_bound"] == 4 * 5 * 5 / 4  # four bytes of weights a cycle
    assert each["array_busy"] == 7 * number["array_busy"] / 4
    assert each["cell_busy"] == 7 * number["cell_busy"] / 4
    assert each["stalls"]["weights"] == 7 * number["wait_weights"] / 4
    table = recurrence_table([record])
    assert table is not None
    assert [column.header for column in table.columns] == ["", "streams lstm_0", "streams lstm_1"]
    rows = dict(zip(table.columns[0].cells, table.columns[2].cells, strict=True))
    assert (rows["steps"], rows["cycles"], rows["cell busy"]) == ("4", "1.8", f"{each['cell_busy']:.1f}")
    assert rows["waits: weights"] == f"{each['stalls']['weights']:.1f}"
    assert recurrence_table([{**record, "layers": []}]) is None


def test_a_small_trace_memory_tells_layers_only(graph: Graph) -> None:
    config = CONFIG.replace(trace_marks=3)
    session = systola.Device(Traced(config)).load(compile_graph(graph, config))
    session.run(intervals(graph)[0])
    assert [layer.recurrence for layer in session.layers] == [{}, {}]


def test_the_last_instruction_of_a_stateful_layer_keeps_the_state(program: Program) -> None:
    """The mark at the end of such a layer is not at its LSTM, which has one of its own."""
    assert [int(program.words[layer.first]) & 0xFF for layer in program.layers] == [Opcode.MATMUL, Opcode.MATMUL]
    assert [layer.mark for layer in program.layers] == [2, 5]
