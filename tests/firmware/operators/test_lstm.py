"""UNIDIRECTIONAL_SEQUENCE_LSTM: real and random models against TFLM, tensors and states, and every variant that is
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.models.builder import ModelBuilder, schema
from support.models.files import DIGITS_LSTM, DIGITS_LSTM_TEST, LSTM_MODELS, model_path
from support.models.inputs import corner_inputs, input_sets, random_input
from support.models.lstm_operator import BIAS, CELL, HIDDEN, INPUT_WEIGHTS, INPUTS, LstmLayer, add_lstm
from support.models.random_lstm import is_extreme, lstm_model
from support.oracle.graph_agreement import assert_equal_to_tflm
from support.oracle.lstm_evaluation import LstmRun, run_lstm
from support.oracle.tflm import Oracle, OracleError

from systola_firmware.errors import CompileError, ModelFileError, UnsupportedModel, UnsupportedOperator
from systola_firmware.importer import import_tflite, load_tflite
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm, Slice
from systola_firmware.ir.passes import run_passes
from systola_sim.golden import graph_model
from systola_sim.golden.lstm_layer import LstmStates


def lstms(graph: Graph) -> list[Lstm]:
    return [layer for layer in graph.layers if isinstance(layer, Lstm)]


@pytest.mark.parametrize("name", LSTM_MODELS)
def test_real_models_equal_tflm(name: str) -> None:
    path = model_path(name)
    graph, oracle = load_tflite(path), Oracle(path)
    (layer,) = lstms(graph)
    assert layer.macs == layer.steps * (4 * layer.hidden * (layer.features + layer.hidden))
    shapes, zero_points = [tensor.shape for tensor in graph.inputs], [tensor.zero_point for tensor in graph.inputs]
    for inputs in input_sets(shapes, zero_points, 20, seed=3):
        assert assert_equal_to_tflm(graph, oracle, inputs) >= 3


def test_the_example_reads_its_digits() -> None:
    """The first 40 in the graph too; all in TFLM, for the number in ``examples/README.md``."""
    graph, oracle = load_tflite(DIGITS_LSTM), Oracle(DIGITS_LSTM)
    with np.load(DIGITS_LSTM_TEST) as data:
        images, labels = data["images"], data["labels"]
    for image in images[:40]:
        assert assert_equal_to_tflm(graph, oracle, [image[np.newaxis]]) == 4
    answers = [int(np.argmax(oracle.run(image[np.newaxis])[0])) for image in images]
    assert np.sum(np.array(answers) == labels) == 379


def test_the_layers_of_the_example() -> None:
    graph = load_tflite(DIGITS_LSTM)
    assert [layer.operator for layer in graph.layers] == ["Lstm", "Slice", "FullyConnected", "Softmax (driver)"]
    layer, taken = graph.layers[:2]
    assert isinstance(layer, Lstm)
    assert (layer.batch, layer.steps, layer.features, layer.hidden) == (1, 8, 8, 32)
    assert (layer.cell_exponent, layer.clip, layer.time_major) == (-11, 10 << 11, False)
    assert (layer.hidden_index, layer.cell_index) == (18, 19)
    assert isinstance(taken, Slice)
    assert (taken.begin, taken.size, taken.step) == ((0, 7, 0), (1, 1, 32), (1, 1, 1))


def check(seed: int, randoms: int) -> None:
    """One set of corner values, another for each seed, and random ones."""
    model = lstm_model(seed)
    graph, oracle, generator = import_tflite(model.data), Oracle(model.data), np.random.default_rng(seed)
    corners = corner_inputs(model.shapes[0], model.zero_points[0])
    for x in [corners[seed % len(corners)], *(random_input(model.shapes[0], generator) for _ in range(randoms))]:
        assert assert_equal_to_tflm(graph, oracle, [x]) > 0, model.name


@pytest.mark.parametrize("block", range(5))
def test_random_models_equal_tflm(block: int) -> None:
    for seed in range(24 * block, 24 * (block + 1)):
        check(seed, 1)


@pytest.mark.full
@pytest.mark.parametrize("block", range(20))
def test_many_random_models_equal_tflm(block: int) -> None:
    for seed in range(10_000 + 30 * block, 10_000 + 30 * (block + 1)):
        check(seed, 3)


def test_passes_keep_the_answers() -> None:
    for seed in range(200, 240):
        model = lstm_model(seed)
        before, inputs = import_tflite(model.data), [random_input(model.shapes[0], np.random.default_rng(seed))]
        expected, answers = graph_model.evaluate(before, inputs), graph_model.evaluate(run_passes(before), inputs)
        for tensor in before.outputs:
            assert np.array_equal(answers[tensor.name], expected[tensor.name]), model.name


def test_passes_keep_the_axes_of_reshaped_inputs() -> None:
    """Rows of a vector as time steps: the reshapes move no byte, yet LSTM and slice count the axes behind them."""
    generator = np.random.default_rng(8)
    model = ModelBuilder()
    x, sequence = model.activation((6, 5), 0.02, 3), model.activation((2, 3, 5), 0.02, 3)
    model.operator("RESHAPE", [x, model.constant(np.array([2, 3, 5], np.int32))], [sequence], newShape=[2, 3, 5])
    added = add_lstm(model, sequence, small_layer(generator, 5, 4))
    rows, last = model.activation((6, 4), 1 / 128, 0), model.activation((4,), 1 / 128, 0)
    model.operator("RESHAPE", [added.output, model.constant(np.array([6, 4], np.int32))], [rows], newShape=[6, 4])
    operands = [model.constant(np.array(values, np.int32)) for values in ([-1, 0], [0, 0], [1, 1])]
    model.operator("STRIDED_SLICE", [rows, *operands], [last], beginMask=2, endMask=2, shrinkAxisMask=1)
    data = model.finish([x], [last])
    graph = run_passes(import_tflite(data))
    assert [type(layer) for layer in graph.layers] == [Lstm, Slice]
    values = random_input((6, 5), generator)
    (expected,) = Oracle(data).run(values)
    assert np.array_equal(graph_model.evaluate(graph, [values])[graph.outputs[0].name], expected)


# States


@pytest.mark.parametrize("seed", [*range(300, 324)])
def test_states_after_every_step_equal_tflm(seed: int) -> None:
    """The same LSTMs over one step, which TFLM's interpreter continues from call to call."""
    model = lstm_model(seed, steps=1)
    graph, oracle = import_tflite(model.data), Oracle(model.data, stateful=True)
    generator = np.random.default_rng(seed)
    naive: dict[str, LstmRun] = {}
    packaged: dict[str, LstmStates] = {}
    for _ in range(12):
        x = random_input(model.shapes[0], generator)
        oracle.run(x)
        graph_model.evaluate(graph, [x], packaged)
        values: npt.NDArray[Any] = x
        for layer, tensors in zip(lstms(graph), model.lstms, strict=True):
            last = naive.get(layer.name)
            run = run_lstm(layer, values) if last is None else run_lstm(layer, values, last.hidden[-1], last.cell[-1])
            naive[layer.name], values = run, run.output
            states = oracle.states()
            hidden, cell = states[tensors.hidden], states[tensors.cell]
            assert (hidden.dtype, cell.dtype) == (np.int8, np.int16)
            assert (layer.hidden_index, layer.cell_index) == (tensors.hidden, tensors.cell)
            assert np.array_equal(run.hidden[-1], hidden), model.name
            assert np.array_equal(run.cell[-1], cell), model.name
            assert np.array_equal(packaged[layer.name].hidden[-1], hidden), model.name
            assert np.array_equal(packaged[layer.name].cell[-1], cell), model.name


def test_steps_one_by_one_equal_the_whole_sequence() -> None:
    for seed in range(0, 12):
        model, single = lstm_model(seed), lstm_model(seed, steps=1)
        whole, step = (lstms(import_tflite(each.data))[0] for each in (model, single))
        assert np.array_equal(whole.recurrent_weights, step.recurrent_weights)
        x = random_input(model.shapes[0], np.random.default_rng(seed))
        states = run_lstm(whole, x)
        oracle = Oracle(single.data, stateful=True)
        for time in range(whole.steps):
            oracle.run(x[time : time + 1] if whole.time_major else x[:, time : time + 1])
            found = oracle.states()
            assert np.array_equal(found[step.hidden_index], states.hidden[time])
            assert np.array_equal(found[step.cell_index], states.cell[time])


def test_oracle_starts_afresh_unless_stateful() -> None:
    """TFLM's variables start at the zero point (int8) and at 0 (int16), keep their values, and are reset to these."""
    model = lstm_model(0)
    x = random_input(model.shapes[0], np.random.default_rng(0))
    fresh, stateful = Oracle(model.data), Oracle(model.data, stateful=True)
    tensors = model.lstms[0]
    zero_point = import_tflite(model.data).layers[0].output.zero_point
    assert zero_point != 0
    assert np.all(stateful.states()[tensors.hidden] == zero_point)
    assert not stateful.states()[tensors.cell].any()
    first = fresh.run(x)[0]
    assert np.array_equal(fresh.run(x)[0], first)
    assert np.array_equal(stateful.run(x)[0], first)
    assert not np.array_equal(stateful.run(x)[0], first)
    stateful.reset()
    assert np.all(stateful.states()[tensors.hidden] == zero_point)
    assert np.array_equal(stateful.run(x)[0], first)


def test_realistic_models_use_their_gates() -> None:
    """Gates in their middle, neither saturated nor stuck, hidden and cell states that move: over models, not for
    each."""
    saturated, middle, spread, clipped, extremes = [], [], [], [], 0
    for seed in range(80):
        model = lstm_model(seed)
        layer = lstms(import_tflite(model.data))[0]
        run = run_lstm(layer, random_input(model.shapes[0], np.random.default_rng(seed)))
        gates = run.gates.astype(np.float64)
        gates[2] = (gates[2] + 32768) / 2  # tanh, seen as the sigmoid that it is made of
        if is_extreme(seed):
            extremes += np.mean((gates < 1000) | (gates > 31768)) > 0.7 or np.std(run.output) < 1
            continue
        saturated.append(np.mean((gates < 1000) | (gates > 31768)))
        middle.append(np.mean((gates > 8000) & (gates < 24768)))
        spread.append(np.std(run.output))
        clipped.append(np.mean(np.abs(run.cell) >= 32767))
    assert np.median(saturated) < 0.1
    assert np.max(saturated) < 0.5
    assert np.median(middle) > 0.4
    assert np.min(middle) > 0.1
    assert np.median(spread) > 20
    assert np.mean(clipped) < 0.05
    assert extremes > 5


# Refusals


def small_layer(generator: np.random.Generator, features: int, units: int) -> LstmLayer:
    return LstmLayer(
        generator.integers(-127, 128, (4, units, features), dtype=np.int8),
        generator.integers(-127, 128, (4, units, units), dtype=np.int8),
        generator.integers(-5000, 5000, (4, units), dtype=np.int32),
        (0.01, 0.02, 0.03, 0.04),
        (0.01, 0.011, 0.012, 0.013),
        1 / 128,
    )


class Small:
    """A sound LSTM of 3 features and 2 units, and its parts, to be changed."""

    def __init__(self) -> None:
        self.model = ModelBuilder()
        self.x = self.model.activation((1, 4, 3), 0.02, 3, name="sequence")
        self.added = add_lstm(self.model, self.x, small_layer(np.random.default_rng(4), 3, 2))
        self.operator = self.model.graph.operators[0]
        self.options = self.operator.builtinOptions

    def tensor(self, position: int) -> Any:
        """The schema's object of the input at this position."""
        return self.model.graph.tensors[self.operator.inputs[position]]

    def finish(self) -> bytes:
        return self.model.finish([self.x], [self.added.output])


def _give(position: int, shape: tuple[int, ...], dtype: npt.DTypeLike = np.int8) -> Callable[[Small], None]:
    """Give an input that a standard LSTM leaves out."""

    def change(small: Small) -> None:
        small.operator.inputs[position] = small.model.constant(np.ones(shape, dtype), scale=0.01)

    return change


def _take(*positions: int) -> Callable[[Small], None]:
    def change(small: Small) -> None:
        for position in positions:
            small.operator.inputs[position] = -1

    return change


def _option(name: str, value: Any) -> Callable[[Small], None]:
    return lambda small: setattr(small.options, name, value)


def _set(position: int, **fields: Any) -> Callable[[Small], None]:
    def change(small: Small) -> None:
        for name, value in fields.items():
            setattr(small.tensor(position), name, value)

    return change


def _quantize(position: int, **fields: Any) -> Callable[[Small], None]:
    def change(small: Small) -> None:
        for name, value in fields.items():
            setattr(small.tensor(position).quantization, name, value)

    return change


def _output_scale(small: Small) -> None:
    small.model.graph.tensors[small.added.output].quantization.scale = [1 / 64]


def _output_shape(small: Small) -> None:
    small.model.graph.tensors[small.added.output].shape = [1, 4, 5]


def _activations(dtype: int) -> Callable[[Small], None]:
    """Activations and hidden state of another type, between a model's int8 input and output."""

    def change(small: Small) -> None:
        wide = small.model.tensor((1, 4, 3), np.int8, scale=0.02, name="wide")
        narrow = small.model.activation((1, 4, 2), 1 / 128, 0)
        small.operator.inputs[0] = wide
        for number in (wide, small.added.output, small.added.hidden):
            small.model.graph.tensors[number].type = dtype
        small.model.operator("QUANTIZE", [small.x], [wide])
        small.model.operator("QUANTIZE", [small.added.output], [narrow])
        operators = small.model.graph.operators
        operators[0], operators[1] = operators[1], operators[0]
        small.added = type(small.added)(narrow, small.added.hidden, small.added.cell, small.added.inputs)

    return change


def _shared_state(small: Small) -> None:
    second = add_lstm(small.model, small.added.output, small_layer(np.random.default_rng(5), 2, 2))
    small.model.graph.operators[1].inputs[CELL] = small.added.cell
    small.added = second


def _initial_values(small: Small) -> None:
    small.model.model.buffers.append(schema.BufferT())
    small.model.model.buffers[-1].data = np.zeros(4, np.uint8)
    small.tensor(CELL).buffer = len(small.model.model.buffers) - 1


def _reader_of_the_state(small: Small) -> None:
    y = small.model.activation((1, 2), 1 / 128, 0)
    small.model.operator("RELU", [small.added.hidden], [y])


REFUSALS: list[tuple[str, Callable[[Small], None], type[CompileError], str]] = [
    (
        "peephole",
        _give(10, (2,), np.int16),
        UnsupportedOperator,
        "has peephole connections, which is not supported: use a standard",
    ),
    ("projection", _give(16, (2, 2)), UnsupportedOperator, "has a projection, which is not supported"),
    ("projection bias", _give(17, (2,), np.int32), UnsupportedOperator, "has a projection, which is not supported"),
    ("layer norm", _give(21, (2,), np.int16), UnsupportedOperator, "has layer normalisation, which is not supported"),
    ("CIFG", _take(1, 5, 12), UnsupportedOperator, r"couples its input gate to the forget gate \(CIFG\)"),
    ("proj_clip", _option("projClip", 0.5), UnsupportedOperator, r"clips a projection that it does not have \(proj_clip\)"),
    ("diagonal", _option("diagonalRecurrentTensors", True), UnsupportedOperator, "has diagonal recurrent weights"),
    (
        "RELU",
        _option("fusedActivationFunction", 1),
        UnsupportedOperator,
        "has the fused activation RELU where the kernels have TANH",
    ),
    ("NONE", _option("fusedActivationFunction", 0), UnsupportedOperator, "has the fused activation NONE where"),
    ("SIGN_BIT", _option("fusedActivationFunction", 5), UnsupportedOperator, "has the fused activation SIGN_BIT where"),
    ("no bias", _take(BIAS + 2), UnsupportedOperator, "has no bias of the cell gate, which the kernels demand"),
    ("int16 bias", _set(BIAS, type=schema.TensorType.INT16), UnsupportedOperator, "that is not a constant of int32"),
    ("no weights", _take(INPUT_WEIGHTS + 1), ModelFileError, "has no input 2: the file is damaged"),
    ("no recurrent weights", _take(5), ModelFileError, "has no input 5: the file is damaged"),
    ("no cell", _take(CELL), ModelFileError, "has no input 19: the file is damaged"),
    (
        "int16 activations",
        _activations(schema.TensorType.INT16),
        UnsupportedModel,
        "'wide' .* is int16 where the engine computes in int8",
    ),
    ("float activations", _activations(schema.TensorType.FLOAT32), UnsupportedModel, "'wide' .* is float32 where the engine"),
    (
        "float cell",
        _set(CELL, type=schema.TensorType.FLOAT32),
        UnsupportedOperator,
        "has a state 'cell_0' of float32 where the engine keeps int16",
    ),
    (
        "int8 cell",
        _set(CELL, type=schema.TensorType.INT8),
        UnsupportedOperator,
        "has a state 'cell_0' of int8 where the engine keeps int16",
    ),
    ("int4 weights", _set(3, type=schema.TensorType.INT4), UnsupportedOperator, "has int4 weights"),
    ("constant state", _set(HIDDEN, isVariable=False), ModelFileError, "reads tensor 'hidden_0' before it is computed"),
    (
        "initial values",
        _initial_values,
        UnsupportedOperator,
        "has a state 'cell_0' with values in the file, which the kernels ignore",
    ),
    ("shared state", _shared_state, UnsupportedOperator, "shares its state 'cell_0' with another operator"),
    ("state read", _reader_of_the_state, UnsupportedOperator, "shares its state 'hidden_0' with another operator"),
    ("state size", _set(CELL, shape=[1, 3]), ModelFileError, r"has a state of the shape \[1, 3\] where 2 elements belong"),
    ("output scale", _output_scale, UnsupportedOperator, "has a hidden state and an output of different quantization"),
    ("cell zero point", _quantize(CELL, zeroPoint=[1]), UnsupportedOperator, "'cell_0' without one scale and a fitting zero point"),
    ("cell scale", _quantize(CELL, scale=[0.0003]), UnsupportedOperator, r"cell state of scale 0.0003, which is no power of two"),
    ("no cell scale", _quantize(CELL, scale=[]), UnsupportedOperator, "'cell_0' without one scale"),
    ("clip", _option("cellClip", 1e-5), UnsupportedOperator, "has a cell clip of 1e-05, below one step of the cell state"),
    (
        "per channel",
        _quantize(6, scale=[0.1, 0.2], zeroPoint=[0, 0]),
        UnsupportedOperator,
        "has 2 scales of the forget gate's weights",
    ),
    ("weights zero point", _quantize(4, zeroPoint=[1]), UnsupportedOperator, "with a zero point that is not 0"),
    (
        "large scale",
        _quantize(4, scale=[10.0]),
        UnsupportedOperator,
        "ask for a multiplier of 819.2, and the engine's largest is 64",
    ),
    ("weights shape", _set(5, shape=[1, 4]), ModelFileError, r"has weights of the shape \[1, 4\] where \[2, 2\] belongs"),
    ("output shape", _output_shape, ModelFileError, "has a state of the shape"),
    ("rank", _set(0, shape=[4, 3]), ModelFileError, r"makes the shape \[1, 4, 2\] of \[4, 3\]"),
]


@pytest.mark.parametrize(("change", "error", "sentence"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refusals(change: Callable[[Small], None], error: type[CompileError], sentence: str) -> None:
    small = Small()
    change(small)
    with pytest.raises(error, match=sentence) as caught:
        import_tflite(small.finish())
    assert "\n" not in str(caught.value)
    if error is UnsupportedOperator:
        assert str(caught.value).startswith("operator UNIDIRECTIONAL_SEQUENCE_LSTM (number ")


def test_the_model_that_the_refusals_change_is_sound() -> None:
    data = Small().finish()
    graph = import_tflite(data)
    assert len(lstms(graph)) == len(graph.layers) == 1
    assert assert_equal_to_tflm(graph, Oracle(data), [random_input((1, 4, 3), np.random.default_rng(1))]) == 1


@pytest.mark.parametrize(
    "change", [_take(BIAS), _take(1, 5, 12), _give(10, (2,), np.int16), _give(16, (2, 2)), _set(HIDDEN, isVariable=False)]
)
def test_tflm_refuses_these_too(change: Callable[[Small], None]) -> None:
    small = Small()
    change(small)
    with pytest.raises(OracleError):
        Oracle(small.finish())


def test_options_that_change_nothing() -> None:
    """A clip that is not above 0, hybrid kernels' asymmetric inputs, and the four optional inputs at the end left
    out."""
    small = Small()
    small.options.cellClip = -1.0
    small.options.asymmetricQuantizeInputs = True
    data = small.finish()
    graph = import_tflite(data)
    assert lstms(graph)[0].clip == 0
    assert assert_equal_to_tflm(graph, Oracle(data), [random_input((1, 4, 3), np.random.default_rng(2))]) == 1
    del small.operator.inputs[INPUTS - 4 :]
    assert len(lstms(import_tflite(small.finish()))) == 1


def test_damaged_files_give_one_sentence() -> None:
    """Bytes changed in the structure of an LSTM model: a graph or a CompileError, never anything else."""
    data = Small().finish()
    generator = np.random.default_rng(6)
    messages = []
    for _ in range(600):
        damaged = bytearray(data)
        for position in generator.integers(8, len(data), generator.integers(1, 5)):
            damaged[position] = generator.integers(0, 256)
        try:
            import_tflite(bytes(damaged))
        except CompileError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
