"""LSTM layers and slices as programs: layouts by themselves, whole programs on the interpreter, hazards by brute
force."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from support.graphs.lstm_graphs import lstm_graph, random_lstm_graph, sliced
from support.graphs.random_graphs import random_input

from systola_firmware.compiler import compile_graph
from systola_firmware.errors import DoesNotFit, UnsupportedModel
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Add, Lookup, Lstm, slice_offset
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.cost import predict
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec import program_file
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, Unit, decode_program
from systola_firmware.spec.presets import preset
from systola_firmware.spec.program import Program
from systola_sim.golden.graph_model import evaluate
from systola_sim.golden.lstm_layer import LstmStates
from systola_sim.machine.interpreter import Schedule, execute

CONFIGS = [preset(name) for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]
RUNS = 2


def operations_of(program: Program) -> list[Operation]:
    return [operation for _, operation in decode_program(program.words.tolist())]


def counts(program: Program) -> dict[Opcode, int]:
    opcodes = [operation.opcode for operation in operations_of(program)]
    return {opcode: opcodes.count(opcode) for opcode in Opcode}


class Machine:
    """A program in a memory full of garbage, run again and again in one order of events."""

    def __init__(self, program: Program, config: Config, schedule: Schedule, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.program, self.config, self.schedule = program, config, schedule
        self.weights = generator.integers(-128, 128, config.weight_bytes).astype(np.int8)
        self.weights[: len(program.weights)] = np.frombuffer(program.weights, np.int8)
        self.memory = generator.integers(-128, 128, config.activation_bytes).astype(np.int8)
        for address, data in program.constants:
            self.write(address, data)
        self.reset()

    def write(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = np.frombuffer(data, np.int8)

    def reset(self) -> None:
        for state in self.program.states:
            self.write(state.address, state.initial)

    def run(self, inputs: list[np.ndarray]) -> None:
        for binding, values in zip(self.program.inputs, inputs, strict=True):
            self.write(binding.placement.start, binding.placement.pack(values))
        outcome = execute(self.config, self.program.words, self.memory, self.weights, schedule=self.schedule)
        assert outcome.error is ErrorCode.NONE, f"{outcome} in {self.program.model}"

    def tensor(self, binding: object) -> np.ndarray:
        placement = binding.placement  # type: ignore[attr-defined]
        region = self.memory[placement.start : placement.start + placement.size]
        assert region.size == placement.size
        return placement.unpack(region.tobytes()).reshape(binding.shape)  # type: ignore[attr-defined, no-any-return]

    def states(self) -> dict[str, np.ndarray]:
        return {
            state.name: np.frombuffer(self.memory[state.address :].tobytes(), state.dtype, int(np.prod(state.shape))).reshape(
                state.shape
            )
            for state in self.program.states
        }


def check(graph: Graph, config: Config, *, keep_tensors: bool = False, stateful: bool = False, seed: int = 0) -> Program:
    """Run a few times in both extreme orders of events; every tensor and state must be what the graph means."""
    program = compile_graph(graph, config, keep_tensors=keep_tensors, stateful=stateful)
    compared = [*program.outputs, *(record.output for record in program.layers if keep_tensors)]
    for schedule in Schedule:
        machine = Machine(program, config, schedule, seed)
        states: dict[str, LstmStates] = {}
        for run in range(RUNS):
            inputs = [random_input(seed + 1000 * run + i, tensor) for i, tensor in enumerate(graph.inputs)]
            machine.run(inputs)
            expected = evaluate(graph, inputs, states if stateful else None)
            where = f"{graph.name} on {config.name}, {schedule.value}, run {run}"
            for binding in compared:
                assert np.array_equal(machine.tensor(binding), expected[binding.name]), f"{where}, tensor {binding.name}"
            for name, found in machine.states().items():
                layer, part = name.rsplit(" ", 1)
                assert np.array_equal(found, getattr(states[layer], part)[-1]), f"{where}, state {name}"
    return program


# Layouts and parameters.


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_gates_lie_side_by_side_in_the_columns(config: Config) -> None:
    """Weights, biases, multipliers and shifts of column ``4u + k`` are those of gate k of unit u, in both products."""
    hidden, features = config.columns // 4 + 2, config.rows + 3
    graph = lstm_graph(1, hidden=hidden, features=features)
    layer = graph.layers[0]
    assert isinstance(layer, Lstm)
    program = compile_graph(graph, config)
    image = np.frombuffer(program.weights, np.int8)
    inputs, wide, recurrent, cell = [o for o in operations_of(program) if o.opcode is not Opcode.VECTOR][:4]
    assert (wide["wide"], inputs["recurrent"], recurrent["recurrent"]) == (1, 0, 1)
    word = config.weight_word_bytes
    groups = -(-4 * hidden // config.columns)
    for operation, weights in ((inputs, layer.input_weights), (recurrent, layer.recurrent_weights)):
        passes = -(-weights.shape[2] // config.rows)
        assert (operation["k0_count"], operation["group_count"]) == (passes, groups)
        tiles = image[operation["weights"] * word :][: groups * passes * config.rows * config.columns]
        columns = tiles.reshape(groups, passes * config.rows, config.columns).transpose(0, 2, 1).reshape(-1, passes * config.rows)
        for unit, gate in itertools.product(range(hidden), range(4)):
            assert np.array_equal(columns[4 * unit + gate, : weights.shape[2]], weights[gate, unit])
        assert not columns[4 * hidden :].any()
        assert not columns[:, weights.shape[2] :].any()

    bias_bytes = config.bias_words * word
    start = cell["parameters"] * word
    units = config.columns // 4
    assert np.array_equal(image[start:][:bias_bytes].view("<i4"), np.tile(layer.recurrent_requantization.multiplier, units))
    shifts = image[start + bias_bytes :][: config.columns]
    assert np.array_equal(shifts, np.tile(layer.recurrent_requantization.shift, units))
    biases = image[start + bias_bytes + word :][: groups * bias_bytes].view("<i4")
    folded = -layer.output.zero_point * layer.recurrent_weights.sum(axis=2, dtype=np.int64)
    assert np.array_equal(biases[: 4 * hidden].reshape(hidden, 4).T, folded)
    assert not biases[4 * hidden :].any()
    assert cell["last_units"] == hidden - units * (groups - 1)
    assert (cell["cell_exponent"], cell["clip"], cell["zero_point"]) == (layer.cell_exponent, layer.clip, layer.output.zero_point)

    start = wide["parameters"] * word
    own = config.channel_parameter_words * word
    first = image[start:][:own]
    folded = layer.bias - layer.inputs[0].zero_point * layer.input_weights.sum(axis=2, dtype=np.int64)
    assert np.array_equal(first[:bias_bytes].view("<i4").reshape(-1, 4).T, folded[:, :units])
    assert np.array_equal(first[bias_bytes : 2 * bias_bytes].view("<i4"), np.tile(layer.input_requantization.multiplier, units))
    assert np.array_equal(first[2 * bias_bytes :][: config.columns], np.tile(layer.input_requantization.shift, units))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("time_major", [False, True])
def test_the_output_is_where_the_recurrence_reads(batch: int, time_major: bool) -> None:
    """No copy, one input part, one recurrence: whatever the number of time steps."""
    lengths = set()
    for steps in (2, 7, 40):
        program = compile_graph(lstm_graph(2, batch=batch, steps=steps, time_major=time_major), CONFIGS[2])
        used = counts(program)
        assert (used[Opcode.MATMUL], used[Opcode.POST], used[Opcode.LSTM], used[Opcode.VECTOR]) == (2, 1, 1, 2)
        lengths.add(program.words.size)
        matmul, cell = (
            next(o for o in operations_of(program) if o.opcode is code and o["block_count"] == steps)
            for code in (Opcode.MATMUL, Opcode.LSTM)
        )
        placement = program.outputs[0].placement
        assert cell["hidden"] == placement.address
        assert cell["hidden"] - matmul["source"] == cell["block_step"] == (7 * batch if time_major else 7)
    assert len(lengths) == 1


def test_a_configuration_without_the_cell_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="lstm_0 needs the LSTM cell, which the configuration tiny-4x4 does not have"):
        compile_graph(lstm_graph(3), CONFIGS[0].replace(lstm=False))


# Whole programs.


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_random_graphs_compute_what_they_mean(config: Config) -> None:
    for seed in range(16):
        graph = random_lstm_graph(seed)
        check(graph, config, keep_tensors=seed % 2 == 0, stateful=seed % 3 == 0, seed=seed)


@pytest.mark.full
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_many_random_graphs(config: Config) -> None:
    for seed in range(1000, 1500):
        graph = random_lstm_graph(seed)
        check(graph, config, keep_tensors=seed % 2 == 0, stateful=seed % 3 == 0, seed=seed)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_time_is_cut_into_the_fewest_intervals_that_fit(batch: int, time_major: bool) -> None:
    config, steps, hidden = preset("ulx3s-85f"), 23, 10
    graph = lstm_graph(4, batch=batch, steps=steps, hidden=hidden, time_major=time_major)
    whole = compile_graph(graph, config)
    assert whole.notes == ()
    row = 2 * config.columns * -(-4 * hidden // config.columns)
    needed = batch * steps * row
    assert whole.activation_bytes_used >= needed
    rest = whole.activation_bytes_used - needed
    for interval in (22, 8, 1):
        intervals = -(-steps // interval)
        small = config.replace(activation_bytes=rest + batch * interval * row)
        program = check(graph, small, seed=interval)
        used = counts(program)
        assert used[Opcode.LSTM] == intervals
        (note,) = program.notes
        assert note.startswith(f"lstm_0 runs in {intervals} intervals of at most {-(-steps // intervals)} time steps")
        assert f"all {steps} needs {needed} bytes" in note
        check(graph, small.replace(activation_bytes=small.activation_bytes + 4 * config.rows), stateful=True, seed=interval)
    tight = config.replace(activation_bytes=rest + batch * row - config.rows)
    with pytest.raises(DoesNotFit, match=r"layer lstm_0 needs \d+ bytes of activation memory but there are"):
        compile_graph(graph, tight)


def test_every_layer_is_cut_by_itself() -> None:
    graph = lstm_graph(5, steps=30, features=8, hidden=8, layers=2)
    program = check(graph, preset("tiny-8x4").replace(activation_bytes=1536))
    assert counts(program)[Opcode.LSTM] > 2
    assert len(program.notes) == 2


def test_more_steps_than_a_count_field_are_cut() -> None:
    config = preset("tiny-4x4").replace(activation_bytes=1 << 16)
    graph = lstm_graph(6, steps=4100, features=1, hidden=1)
    program = compile_graph(graph, config)
    assert counts(program)[Opcode.LSTM] == 2
    assert max(o["block_count"] for o in operations_of(program) if o.opcode is Opcode.LSTM) == 2050


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("stateful", [False, True])
def test_more_sequences_than_accumulators(time_major: bool, stateful: bool) -> None:
    config = preset("tiny-4x4").replace(accumulator_depth=16)
    graph = lstm_graph(7, batch=37, steps=3, features=3, hidden=2, time_major=time_major)
    program = check(graph, config, stateful=stateful)
    assert counts(program)[Opcode.LSTM] == 3


@pytest.mark.parametrize("time_major", [False, True])
def test_intervals_of_a_stream_are_one_long_sequence(time_major: bool) -> None:
    """Four runs of a stateful program are one run over four times the steps, hidden and cell states too."""
    config = preset("ulx3s-85f")
    short = lstm_graph(8, batch=2, steps=3, time_major=time_major, layers=2)
    long = lstm_graph(8, batch=2, steps=12, time_major=time_major, layers=2)
    (x,) = [random_input(1, tensor) for tensor in long.inputs]
    axis = 0 if time_major else 1
    machine = Machine(compile_graph(short, config, stateful=True), config, Schedule.POST_FIRST, 0)
    answers = []
    for interval in np.split(x, 4, axis):
        machine.run([interval])
        answers.append(machine.tensor(machine.program.outputs[0]))
    whole = Machine(compile_graph(long, config, stateful=True), config, Schedule.MATMUL_FIRST, 1)
    whole.run([x])
    assert np.array_equal(np.concatenate(answers, axis), whole.tensor(whole.program.outputs[0]))
    assert np.array_equal(np.concatenate(answers, axis), evaluate(long, [x])[long.outputs[0].name])
    first, second = machine.states(), whole.states()
    assert list(first) == ["lstm_0 hidden", "lstm_0 cell", "lstm_1 hidden", "lstm_1 cell"]
    for name, state in first.items():
        assert np.array_equal(state, second[name])
    machine.reset()
    assert all(not state.any() for name, state in machine.states().items() if name.endswith("cell"))


def test_states_are_listed_and_never_shared() -> None:
    graph = lstm_graph(9, batch=3, layers=2, hidden=5)
    assert compile_graph(graph, CONFIGS[2]).states == ()
    program = compile_graph(graph, CONFIGS[2], stateful=True)
    assert program.stateful
    assert [(s.name, s.shape, s.dtype, s.index) for s in program.states[:2]] == [
        ("lstm_0 hidden", (3, 5), "int8", 11),
        ("lstm_0 cell", (3, 5), "int16", 12),
    ]
    assert program.states[0].initial == np.full(15, graph.layers[0].output.zero_point, np.int8).tobytes()
    assert program.states[1].initial == bytes(30)
    kept = [set(range(s.address, s.address + len(s.initial))) for s in program.states]
    placements = [b.placement for b in (*program.inputs, *program.outputs, *(record.output for record in program.layers))]
    for a, b in itertools.combinations(kept, 2):
        assert a.isdisjoint(b)
    for state, placement in itertools.product(kept, placements):
        assert state.isdisjoint(range(placement.start, placement.start + placement.size))
    for state in program.states:
        assert state.address % 4 == 0


def test_a_stateful_program_without_a_recurrent_layer_says_so() -> None:
    x, y = Tensor("x", (1, 8), 0.1, 0), Tensor("y", (1, 8), 0.1, 0)
    program = compile_graph(
        Graph("g", (x,), (y,), (Lookup("l", (x,), y, table=np.arange(256).astype(np.int8)),)), CONFIGS[0], stateful=True
    )
    assert program.states == ()
    assert program.notes == ("the model has no recurrent layer, so it keeps no state",)


def test_a_stateful_program_survives_its_file() -> None:
    program = compile_graph(lstm_graph(10, batch=2), CONFIGS[0], stateful=True)
    loaded = program_file.load(program_file.dump(program))
    for field in dataclasses.fields(Program):
        mine, theirs = getattr(program, field.name), getattr(loaded, field.name)
        assert np.array_equal(mine, theirs) if field.name == "words" else mine == theirs, field.name
    assert loaded.layers[0].steps == 5


# Hazards and cost.


def bytes_of(operation: Operation, base: str, suffix: str, width: int) -> set[int]:
    """``width`` bytes from every address of an LSTM's or a recurrent MATMUL's block and x loops."""
    blocks = np.arange(operation["block_count"]) * operation[f"block_step{suffix}"]
    rows = np.arange(operation["x_count"]) * operation[f"x_step{suffix}"]
    return set((operation[base] + blocks[:, None, None] + rows[:, None] + np.arange(width)).ravel().tolist())


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_no_step_writes_what_it_still_reads(steps: int, time_major: bool) -> None:
    """In each step, MATMUL reads hidden states, LSTM writes others; with the first step's in their placement before."""
    hidden = 7
    program = compile_graph(lstm_graph(11, batch=3, steps=steps, hidden=hidden, time_major=time_major), CONFIGS[0])
    operations = operations_of(program)
    matmul = next(o for o in operations if o.opcode is Opcode.MATMUL and o["recurrent"])
    cell = next(o for o in operations if o.opcode is Opcode.LSTM)
    initial = bytes_of(dataclasses.replace(matmul, fields={**matmul.fields, "block_count": 1}), "source", "", hidden)
    written = initial
    for step in range(steps):
        one = {"block_count": 1}
        read = dataclasses.replace(
            matmul, fields={**matmul.fields, **one, "source": matmul["source"] + step * matmul["block_step"]}
        )
        write = dataclasses.replace(cell, fields={**cell.fields, **one, "hidden": cell["hidden"] + step * cell["block_step"]})
        reads, writes = bytes_of(read, "source", "", hidden), bytes_of(write, "hidden", "", hidden)
        assert reads.isdisjoint(writes)
        assert len(reads) == len(writes) == 3 * hidden
        assert reads == written
        written = writes
    fill = next(o for o in operations if o.opcode is Opcode.VECTOR)
    rows = fill["x_count"]
    filled = {
        fill["destination"] + x * fill["x_step_out"] + byte
        for x in range(rows)
        for byte in range((fill["group_count"] - 1) * CONFIGS[0].requantize_lanes + fill["last_lanes"])
    }
    assert filled == initial


@pytest.mark.parametrize("layers", [1, 2])
def test_the_recurrence_waits_for_its_initial_state_and_its_intervals_for_each_other(layers: int) -> None:
    config = preset("ulx3s-85f").replace(activation_bytes=1024 + 512 * layers)
    program = compile_graph(lstm_graph(12, steps=40, layers=layers), config)
    operations = operations_of(program)
    taken = -1
    for position, operation in enumerate(operations):
        if operation.opcode is not Opcode.MATMUL or not operation["recurrent"]:
            continue
        giver = max(i for i, o in enumerate(operations[:position]) if Unit.MATMUL in o.signal)
        assert operation.wait == (Unit.POST,)
        assert giver > taken
        taken = giver
        before = operations[giver]
        first = operation["source"] in bytes_of(before, "hidden", "", 1) if before.opcode is Opcode.LSTM else before["sources"] == 0
        assert first, "the wait is for whoever writes the state that the first step reads"
    assert taken >= 0
    assert counts(program)[Opcode.LSTM] > layers


def test_inner_marks_are_left_out_where_the_trace_memory_is_small() -> None:
    graph = lstm_graph(13, layers=2)
    for trace_marks, expected in ((4, 4), (3, 2)):
        program = compile_graph(graph, preset("tiny-4x4").replace(trace_marks=trace_marks))
        marked = [o.opcode for o in operations_of(program) if o.mark]
        assert len(marked) == expected
        assert [record.mark for record in program.layers] == [expected // 2 - 1, expected - 1]
    assert marked == [Opcode.LSTM, Opcode.LSTM]


def test_every_step_but_the_first_is_predicted_alike() -> None:
    """A step takes its array jobs and the latency once; steps add up; four sequences hide behind the weights of one."""
    small = preset("ulx3s-85f")
    full = small.replace(lstm_serial=False)

    def cycles(steps: int, batch: int = 1, config: Config = full) -> int:
        graph = lstm_graph(14, steps=steps, batch=batch, features=16, hidden=128, time_major=True)
        operations = operations_of(compile_graph(graph, config))
        done = predict(operations, config)
        position = next(i for i, o in enumerate(operations) if o.opcode is Opcode.LSTM)
        return done[position] - done[position - 2]  # from the end of the input part

    weights = 4 * 128 * 128 // full.weight_word_bytes
    assert cycles(12) - cycles(11) == cycles(5) - cycles(4)
    step = cycles(12) - cycles(11)
    assert weights < step < 1.25 * weights
    assert cycles(12, batch=4) - cycles(11, batch=4) < 1.1 * step
    # The small cell takes five cycles a unit: as long as the weights for one sequence, longer for four.
    assert cycles(12, config=small) - cycles(11, config=small) < 1.05 * step
    assert 4 * 128 * 5 < cycles(12, batch=4, config=small) - cycles(11, batch=4, config=small) < 1.3 * step


# Slices.


@pytest.mark.parametrize(
    ("begin", "size", "step", "offset"),
    [
        ((0, 0, 0), (2, 5, 3), (1, 1, 1), 0),
        ((1, 0, 0), (1, 5, 3), (1, 1, 1), 15),
        ((1, 4, 0), (1, 1, 3), (1, 1, 1), 27),
        ((1, 2, 1), (1, 1, 2), (1, 1, 1), 22),
        ((1, 2, 1), (1, 1, 1), (2, 2, 2), 22),
        ((0, 4, 0), (2, 1, 3), (1, 1, 1), None),
        ((0, 0, 0), (1, 3, 3), (1, 2, 1), None),
        ((0, 0, 0), (2, 5, 2), (1, 1, 1), None),
    ],
)
@pytest.mark.parametrize("drop", [False, True])
def test_a_slice_of_consecutive_elements_is_free(
    begin: tuple[int, int, int], size: tuple[int, int, int], step: tuple[int, int, int], offset: int | None, drop: bool
) -> None:
    x = Tensor("x", (2, 5, 3), 0.1, 0)
    layer = sliced(x, begin, size, step, name="y", drop=drop)
    assert slice_offset(layer) == offset
    for config in CONFIGS:
        program = check(Graph("slice", (x,), (layer.output,), (layer,)), config)
        assert (counts(program)[Opcode.VECTOR] == 0) == (offset is not None)


def test_an_operand_that_overlaps_another_is_not_worked_on_in_place() -> None:
    """Two slices of one tensor, shifted against each other: their sum in the placement of either would destroy the
    other."""
    x, t = (Tensor(name, (1, 1, 9, 1), 0.1, 0) for name in "xt")
    table = np.arange(256).astype(np.int8)
    copy = Lookup("copy", (x,), t, table=table)
    a = sliced(t, (0, 0, 0, 0), (1, 1, 6, 1), (1, 1, 1, 1), name="a", drop=False)
    b = sliced(t, (0, 0, 2, 0), (1, 1, 6, 1), (1, 1, 1, 1), name="b", drop=False)
    tables = (np.arange(256, dtype=np.int32) << 20, np.arange(256, dtype=np.int32) << 19)
    requantization = Requantization(np.array([1 << 30], np.int32), np.array([-20], np.int32))
    y = Tensor("y", (1, 1, 6, 1), 0.1, 0)
    add = Add("add", (a.output, b.output), y, tables=tables, requantization=requantization)
    check(Graph("overlap", (x,), (y,), (copy, a, b, add)), CONFIGS[2])
