"""Passes: the same answers before and after, and the rewriting that each is for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.models.builder import ModelBuilder
from support.models.files import SUPPORTED_MODELS, model_path
from support.models.inputs import input_sets
from support.models.random_models import graph_model, random_model
from support.oracle.evaluation import evaluate, tensor_key

from systola_firmware.importer import import_tflite, load_tflite
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Convolution, Lookup, Reshape
from systola_firmware.ir.passes import (
    PASSES,
    drop_reshapes,
    fold_constants,
    fuse_activation,
    fuse_pad,
    remove_dead_layers,
    run_passes,
)
from systola_firmware.ir.tensor import Padding

CONVOLUTION = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def assert_same_answers(before: Graph, after: Graph, sets: int = 9) -> None:
    assert before.inputs == after.inputs
    assert before.outputs == after.outputs
    shapes, zero_points = [tensor.shape for tensor in before.inputs], [tensor.zero_point for tensor in before.inputs]
    for inputs in input_sets(shapes, zero_points, sets, seed=5):
        expected, actual = evaluate(before, *inputs), evaluate(after, *inputs)
        common = [key for key in expected if key in actual]
        for tensor in before.outputs:
            assert tensor_key(tensor) in actual or tensor_key(tensor) not in expected
        for key in common:
            assert np.array_equal(expected[key], actual[key]), key


def names(graph: Graph) -> list[str]:
    return [layer.operator for layer in graph.layers]


class Chain:
    """A model of operators one after the other, on images of 2 channels."""

    def __init__(self, scale: float = 0.1, zero_point: int = 5) -> None:
        self.model = ModelBuilder()
        self.scale, self.zero_point = scale, zero_point
        self.first = self.last = self.model.activation((1, 6, 5, 2), scale, zero_point)
        self.shape: tuple[int, ...] = (1, 6, 5, 2)

    def add(self, operator: str, shape: tuple[int, ...], *operands: int, scale: float | None = None, **options: int) -> Chain:
        target = self.model.activation(shape, self.scale if scale is None else scale, self.zero_point)
        self.model.operator(operator, [self.last, *operands], [target], **options)
        self.last, self.shape = target, shape
        return self

    def pad(self, top: int, left: int, *, value: int | None = None, channels: int = 0) -> Chain:
        amounts = np.array([[0, 0], [top, 1], [left, 0], [channels, 0]], np.int32)
        operands = [self.model.constant(amounts)]
        if value is not None:
            operands.append(self.model.constant(np.array([value], np.int8), scale=self.scale, zero_point=self.zero_point))
        shape = tuple(int(size) for size in np.array(self.shape) + amounts.sum(axis=1))
        return self.add("PAD" if value is None else "PADV2", shape, *operands)

    def convolve(self) -> Chain:
        weights = np.random.default_rng(1).integers(-127, 128, (3, 3, 3, self.shape[3]), dtype=np.int8)
        constant = self.model.constant(weights, scale=np.full(3, 0.01))
        return self.add("CONV_2D", (1, self.shape[1] - 2, self.shape[2] - 2, 3), constant, **CONVOLUTION)

    def reshape(self, *shape: int) -> Chain:
        return self.add("RESHAPE", shape, self.model.constant(np.array(shape, np.int32)))

    def graph(self, *outputs: int) -> Graph:
        return import_tflite(self.model.finish([self.first], [*outputs, self.last]))


def test_pad_becomes_the_convolutions_border() -> None:
    before = Chain().pad(2, 1).pad(1, 0).convolve().graph()
    after = remove_dead_layers(fuse_pad(before))
    (layer,) = after.layers
    assert isinstance(layer, Convolution)
    assert layer.padding == Padding(3, 2, 1, 0)
    assert layer.operators == (0, 1, 2)
    assert_same_answers(before, after)


@pytest.mark.parametrize("arguments", [{"value": 6}, {"channels": 1}])
def test_a_pad_that_is_no_border_stays(arguments: dict[str, int]) -> None:
    before = Chain().pad(1, 1, **arguments).convolve().graph()
    assert names(fuse_pad(before)) == ["Pad", "Convolution"]
    assert fuse_pad(before).layers[1].inputs[0].name == before.layers[0].output.name


def test_a_pad_that_is_an_output_stays_but_is_not_waited_for() -> None:
    chain = Chain().pad(1, 1)
    before = chain.convolve().graph(1 + 1)
    after = run_passes(before)
    assert names(after) == ["Pad", "Convolution"]
    assert after.layers[1].inputs == before.inputs
    assert_same_answers(before, after)


@pytest.mark.parametrize("operator", ["RELU", "RELU6", "QUANTIZE"])
def test_an_activation_of_the_same_quantization_is_fused(operator: str) -> None:
    chain = Chain().convolve()
    before = chain.add(operator, chain.shape).graph()
    after = fuse_activation(before)
    assert names(after) == ["Convolution"]
    assert after.layers[0].operators == (0, 1)
    assert_same_answers(before, after)


def test_a_chain_of_activations_is_fused() -> None:
    chain = Chain().convolve()
    before = chain.add("RELU", chain.shape).add("RELU6", chain.shape).graph()
    after = fuse_activation(before)
    assert names(after) == ["Convolution"]
    assert (after.layers[0].minimum, after.layers[0].maximum) == (5, 65)  # type: ignore[attr-defined]
    assert_same_answers(before, after)


def test_an_activation_that_requantizes_stays() -> None:
    chain = Chain().convolve()
    before = chain.add("RELU", chain.shape, scale=0.05).graph()
    assert names(fuse_activation(before)) == ["Convolution", "Relu"]


def test_an_activation_of_a_tensor_with_other_readers_stays() -> None:
    chain = Chain().convolve()
    inner = chain.last
    before = chain.add("RELU", chain.shape).graph(inner)
    assert names(fuse_activation(before)) == ["Convolution", "Relu"]


def test_reshapes_that_move_nothing_are_dropped() -> None:
    before = Chain().reshape(1, 1, 30, 2).reshape(30, 2).reshape(5, 6, 2).add("TANH", (5, 6, 2)).graph()
    after = drop_reshapes(before)
    # (6, 5) pixels to one row of 30 moves the row structure once; the rest are the same rows.
    assert names(after) == ["Reshape", "Tanh"]
    assert_same_answers(before, after)


def test_an_output_reshape_stays_and_reads_the_start_of_its_chain() -> None:
    before = Chain().reshape(60, 1).reshape(1, 60).graph()
    after = drop_reshapes(before)
    assert names(after) == ["Reshape"]
    assert after.layers[0].inputs == before.inputs
    assert_same_answers(before, after)


def test_dead_layers_are_removed() -> None:
    chain = Chain().add("TANH", (1, 6, 5, 2))
    unused = chain.last
    chain.last = chain.first
    before = chain.add("RELU", (1, 6, 5, 2)).graph()
    after = remove_dead_layers(before)
    assert names(after) == ["Relu"]
    assert unused not in [layer.output.index for layer in after.layers]


def test_constants_are_folded() -> None:
    model = ModelBuilder()
    generator = np.random.default_rng(3)
    x, y = model.activation((1, 3, 4, 2), 0.1, 1), model.activation((1, 3, 4, 2), 0.2, 2)
    constant = model.constant(generator.integers(-128, 128, (4, 2), dtype=np.int8), scale=0.1, zero_point=-7)
    shaped, padded, doubled, mapped = (
        model.activation(shape, 0.1, -7) for shape in ((1, 2, 2, 2), (1, 3, 4, 2), (1, 3, 4, 2), (1, 3, 4, 2))
    )
    model.operator("RESHAPE", [constant, model.constant(np.array([1, 2, 2, 2], np.int32))], [shaped])
    model.operator("PAD", [shaped, model.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32))], [padded])
    model.operator("ADD", [padded, padded], [doubled])
    model.operator("RELU", [doubled], [mapped])
    model.operator("ADD", [x, mapped], [y])
    before = import_tflite(model.finish([x], [y]))
    after = fold_constants(before)
    assert names(before) == ["Reshape", "Pad", "Add", "Relu", "Add"]
    assert names(after) == ["Add"]
    assert after.layers[0].inputs[1].constant is not None
    assert_same_answers(before, after)


@pytest.mark.parametrize("swapped", [False, True])
def test_add_of_one_value_becomes_a_table(swapped: bool) -> None:
    model = ModelBuilder()
    x, y = model.activation((1, 16, 16, 1), 0.1, 1), model.activation((1, 16, 16, 1), 0.15, 2)
    constant = model.constant(np.array([77], np.int8), scale=0.05, zero_point=-7)
    model.operator("ADD", [constant, x] if swapped else [x, constant], [y], fusedActivationFunction=1)
    before = import_tflite(model.finish([x], [y]))
    after = fold_constants(before)
    assert names(after) == ["Add"]
    assert isinstance(after.layers[0], Lookup)
    assert_same_answers(before, after)


@pytest.mark.parametrize("rewrite", [*dict.fromkeys(PASSES), run_passes], ids=lambda rewrite: rewrite.__name__)
def test_random_models_answer_the_same(rewrite: Callable[[Graph], Graph]) -> None:
    for seed in range(40):
        for model in (random_model(seed), graph_model(seed)):
            before = import_tflite(model.data)
            assert_same_answers(before, rewrite(before))


@pytest.mark.parametrize("name", SUPPORTED_MODELS)
def test_real_models_answer_the_same(name: str) -> None:
    before = load_tflite(model_path(name))
    after = run_passes(before)
    assert len(after.layers) <= len(before.layers)
    assert_same_answers(before, after, sets=8)


def test_passes_settle() -> None:
    """A second run changes nothing more."""
    for seed in range(30):
        once = run_passes(import_tflite(graph_model(seed).data))
        assert names(run_passes(once)) == names(once)
        assert not any(isinstance(layer, Reshape) and layer.inputs[0].nhwc == layer.output.nhwc for layer in once.layers[:-2])
