"""Several inferences side by side: a rebatched graph means as many separate evaluations, and what cannot be is
refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.graphs.lstm_graphs import lstm_graph, random_lstm_graph, sliced
from support.graphs.random_graphs import random_graph, random_input

from systola_firmware import importer as tflite_import
from systola_firmware.compiler import compile_graph, compile_model
from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Add, Convolution, Lstm, Reshape, Softmax
from systola_firmware.ir.passes import run_passes
from systola_firmware.ir.rebatch import rebatch
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.presets import preset
from systola_sim.golden.graph_model import evaluate


def side_by_side(tensor: Tensor, parts: list[Int8Array]) -> Int8Array:
    """By the definition of ``batch_axis`` alone."""
    return np.concatenate(parts, axis=tensor.batch_axis)


def check(graph: Graph, count: int, seed: int) -> None:
    """Every tensor of the rebatched graph against ``count`` evaluations; after the passes, every output."""
    wide = rebatch(graph, count)
    assert (wide.batch, wide.macs) == (count, count * graph.macs)
    inputs = [[random_input(97 * seed + 7 * n + i, tensor) for i, tensor in enumerate(graph.inputs)] for n in range(count)]
    each = [evaluate(graph, values) for values in inputs]
    stacked = [side_by_side(tensor, list(parts)) for tensor, parts in zip(wide.inputs, zip(*inputs, strict=True), strict=True)]
    found = evaluate(wide, stacked)
    for tensor in (*wide.inputs, *(layer.output for layer in wide.layers)):
        np.testing.assert_array_equal(found[tensor.name], side_by_side(tensor, [values[tensor.name] for values in each]))
    passed = run_passes(wide)
    assert passed.batch == count
    final = evaluate(passed, stacked)
    for tensor in wide.outputs:
        np.testing.assert_array_equal(final[tensor.name], found[tensor.name])


@pytest.mark.parametrize("count", [2, 3])
def test_random_graphs(count: int) -> None:
    for seed in range(60):
        check(random_graph(seed, layers=8), count, seed)


def test_random_lstm_graphs() -> None:
    checked = 0
    for seed in range(120):
        graph = random_lstm_graph(seed)
        try:
            rebatch(graph, 3)
        except CompileError:  # a slice of the batch, or a shape without it: each refused by its own test below
            continue
        check(graph, 3, seed)
        checked += 1
    assert checked > 60


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_lstms_in_a_row(time_major: bool, steps: int, batch: int) -> None:
    graph = lstm_graph(5, batch=batch, steps=steps, time_major=time_major, layers=2)
    wide = rebatch(graph, 3)
    assert [layer.batch for layer in wide.layers if hasattr(layer, "steps")] == [3 * batch] * 2
    assert {tensor.batch_axis for tensor in (*wide.inputs, *wide.outputs)} == {int(time_major)}
    check(graph, 3, 1)


def test_one_inference_is_the_graph_itself() -> None:
    graph = lstm_graph(1)
    assert rebatch(graph, 1) is graph
    with pytest.raises(CompileError, match="at least one inference at a time, not 0"):
        rebatch(graph, 0)


def test_a_binding_has_the_shape_of_one_inference() -> None:
    program = compile_graph(rebatch(lstm_graph(1, steps=4, time_major=True), 3), preset("tiny-4x4"))
    assert program.batch == 3
    (x,) = program.inputs
    assert (x.shape, x.batch_axis, x.placement.shape) == ((4, 1, 6), 1, (1, 1, 12, 6))
    parts = [np.full(x.shape, n, np.int8) for n in range(3)]
    np.testing.assert_array_equal(x.unpack(x.pack(parts)), parts)
    assert any("3 inferences run side by side" in note for note in program.notes)


def with_layer(graph: Graph, *layers: Layer) -> Graph:
    return replace(graph, layers=(*graph.layers, *layers), outputs=(layers[-1].output,))


@pytest.mark.parametrize("drop", [False, True])
def test_the_last_step_has_the_batch_outside_again(drop: bool) -> None:
    graph = lstm_graph(2, batch=2, steps=4, time_major=True)
    last = sliced(graph.outputs[0], (3, 0, 0), (1, 2, 7), (1, 1, 1), name="last", drop=drop)
    check(with_layer(graph, last), 3, 4)


def test_a_dropped_reshape_leaves_the_batch_where_its_shape_has_it() -> None:
    graph = lstm_graph(2, steps=1, time_major=True)
    flat, classes = Tensor("flat", (1, 7), 0.1, graph.outputs[0].zero_point), Tensor("classes", (1, 7), 1 / 256, -128)
    wide = rebatch(with_layer(graph, Reshape("r", graph.outputs, flat), Softmax("softmax", (flat,), classes)), 3)
    passed = run_passes(wide)
    assert [type(layer) for layer in passed.layers] == [Lstm, Softmax]
    (output,) = compile_graph(passed, preset("tiny-4x4")).outputs
    assert (output.shape, output.batch_axis) == ((1, 7), 0)


def test_a_constants_own_shapes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = Tensor("x", (1, 8), 0.1, 0), Tensor("y", (1, 8), 0.1, 0)
    vector = Tensor("c", (8,), 0.1, 0, constant=np.arange(8, dtype=np.int8))
    row = Tensor("row", (1, 8), 0.1, 0)
    tables = (np.zeros(256, np.int32), np.zeros(256, np.int32))
    requantization = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
    layers = (Reshape("r", (vector,), row), Add("add", (x, row), y, tables=tables, requantization=requantization))
    monkeypatch.setattr(tflite_import, "import_tflite", lambda _: Graph("constant", (x,), (y,), layers))
    program = compile_model(b"", preset("tiny-4x4"), batch=3)
    ((_, region),) = program.constants
    assert region == 3 * bytes(range(8))


TIME_MAJOR = lstm_graph(1, steps=4, time_major=True)
LAST = TIME_MAJOR.outputs[0]
DENSE = Convolution(
    "dense",
    (LAST,),
    Tensor("flat", (1, 5), 0.1, 0),
    weights=np.ones((5, 1, 1, 28), np.int8),
    bias=np.zeros(5, np.int32),
    requantization=Requantization(np.array([1 << 30], np.int32), np.array([-5], np.int32)),
    fully_connected=True,
)
PAIR = lstm_graph(1, batch=2)
VECTOR = Tensor("v", (8,), 0.1, 0)
TURNED = Reshape("turned", (Tensor("batch_major", (1, 4, 6), 0.1, 0),), TIME_MAJOR.inputs[0])
SQUARE = lstm_graph(1, batch=2, steps=2, time_major=True)
BESIDE = Reshape("beside", (Tensor("flat", (1, 28), 0.1, 0),), Tensor("square", (2, 2, 7), 0.1, 0))
SUM = Add(
    "sum",
    (SQUARE.outputs[0], BESIDE.output),
    Tensor("total", (2, 2, 7), 0.1, 0),
    tables=(np.zeros(256, np.int32), np.zeros(256, np.int32)),
    requantization=DENSE.requantization,
)


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (Graph("vector", (VECTOR,), (VECTOR,), ()), r"^tensor 'v' of the shape \[8\] has no axis along which"),
        (
            with_layer(TIME_MAJOR, Reshape("r", (LAST,), Tensor("mixed", (1, 28), 0.1, 0))),
            r"^tensor 'mixed' of the shape \[1, 28\]",
        ),
        (with_layer(TIME_MAJOR, DENSE), r"^tensor 'lstm_0_y' has the time before the batch where dense wants"),
        (
            with_layer(PAIR, sliced(PAIR.outputs[0], (1, 0, 0), (1, 5, 7), (1, 1, 1), name="s", drop=False)),
            r"^tensor 'lstm_0_y' is cut by s along the batch, axis 0: compile the model with a batch of 1$",
        ),
        (
            with_layer(TIME_MAJOR, replace(DENSE, fully_connected=False)),
            r"^tensor 'lstm_0_y' of the shape \[4, 1, 7\] is no batch of images for dense",
        ),
        (
            replace(TIME_MAJOR, inputs=TURNED.inputs, layers=(TURNED, *TIME_MAJOR.layers)),
            r"^tensor 'x' has the batch on axis 0 where lstm_0 has it on axis 1",
        ),
        (
            with_layer(replace(SQUARE, inputs=(*SQUARE.inputs, *BESIDE.inputs)), BESIDE, SUM),
            r"^tensor 'lstm_0_y' has the batch on another axis than the operand that sum adds",
        ),
    ],
)
def test_what_cannot_lie_side_by_side_is_refused_by_name(graph: Graph, sentence: str) -> None:
    with pytest.raises(CompileError, match=sentence):
        rebatch(graph, 2)


def test_a_stream_is_one() -> None:
    with pytest.raises(CompileError, match="runs one stream, not 2 side by side: compile it with a batch of 1"):
        compile_graph(rebatch(lstm_graph(1), 2), preset("tiny-4x4"), stateful=True)
