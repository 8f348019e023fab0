"""The importer: real and random models against TFLM tensor by tensor, and everything that it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.builder import ModelBuilder, schema
from support.models.files import DIGITS_MODEL, SUPPORTED_MODELS, model_path
from support.models.inputs import input_sets
from support.models.random_models import OPERATORS, RandomModel, graph_model, operator_model, random_model
from support.oracle.graph_agreement import assert_equal_to_tflm, check_random
from support.oracle.tflm import Oracle

from systola_firmware.errors import CompileError, ModelFileError, UnsupportedModel, UnsupportedOperator
from systola_firmware.importer import import_tflite, load_tflite


@pytest.mark.parametrize("name", SUPPORTED_MODELS)
def test_real_models_equal_tflm(name: str) -> None:
    path = model_path(name)
    graph, oracle = load_tflite(path), Oracle(path)
    assert graph.name == path.stem
    shapes, zero_points = [tensor.shape for tensor in graph.inputs], [tensor.zero_point for tensor in graph.inputs]
    for inputs in input_sets(shapes, zero_points, 9, seed=3):
        assert assert_equal_to_tflm(graph, oracle, inputs) >= len(graph.layers) - 2  # reshapes around FULLY_CONNECTED


def test_the_example_folds_its_shape_arithmetic() -> None:
    graph = load_tflite(DIGITS_MODEL)
    operators = [layer.operator for layer in graph.layers]
    assert operators == [
        "Convolution",
        "DepthwiseConvolution",
        "Convolution",
        "AveragePool",
        "Reshape",
        "FullyConnected",
        "Softmax (driver)",
    ]
    assert graph.macs == 8 * 8 * 16 * 9 * 2 + 8 * 8 * 32 * 16 + 512 * 10


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_equals_tflm(operator: str) -> None:
    for seed in range(8):
        check_random(operator_model(operator, seed), seed)


@pytest.mark.parametrize("block", range(8))
def test_random_models_equal_tflm(block: int) -> None:
    for seed in range(1000 + 50 * block, 1000 + 50 * (block + 1)):
        check_random(random_model(seed), seed)


@pytest.mark.full
@pytest.mark.parametrize("block", range(20))
def test_many_random_models_equal_tflm(block: int) -> None:
    for seed in range(10_000 + 100 * block, 10_000 + 100 * (block + 1)):
        check_random(random_model(seed), seed)


def test_random_graphs_equal_tflm() -> None:
    for seed in range(60):
        check_random(graph_model(seed), seed)


def small_convolution(**options: Any) -> tuple[ModelBuilder, int, int, int]:
    """A 1×1 convolution: builder, input, weights, output."""
    model = ModelBuilder()
    x = model.activation((1, 4, 4, 2), 0.1, 0, name="image")
    w = model.constant(np.ones((3, 1, 1, 2), np.int8), scale=np.full(3, 0.1), name="weights")
    y = model.activation((1, 4, 4, 3), 0.1, 0, name="features")
    fields = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    model.operator("CONV_2D", [x, w], [y], **(fields | options))
    return model, x, w, y


def changed(change: Callable[[ModelBuilder], None], **options: Any) -> bytes:
    model, x, _, y = small_convolution(**options)
    change(model)
    return model.finish([x], [y])


def unchanged(_model: ModelBuilder) -> None:
    """The sound model."""


def _set(tensor: int, **fields: Any) -> Callable[[ModelBuilder], None]:
    def change(model: ModelBuilder) -> None:
        for name, value in fields.items():
            setattr(model.graph.tensors[tensor], name, value)

    return change


def _quantization(tensor: int, **fields: Any) -> Callable[[ModelBuilder], None]:
    def change(model: ModelBuilder) -> None:
        for name, value in fields.items():
            setattr(model.graph.tensors[tensor].quantization, name, value)

    return change


def _second_subgraph(model: ModelBuilder) -> None:
    model.model.subgraphs.append(model.graph)


def _reversed(model: ModelBuilder) -> None:
    z = model.activation((1, 4, 4, 3), 0.1, 0)
    model.operator("RELU", [2], [z])
    model.graph.operators.reverse()


REFUSALS: list[tuple[str, Callable[[ModelBuilder], None], type[CompileError], str]] = [
    ("int16", _set(0, type=schema.TensorType.INT16), UnsupportedModel, "input 'image' is int16 where the engine takes int8"),
    (
        "float output",
        _set(2, type=schema.TensorType.FLOAT32),
        UnsupportedModel,
        "output 'features' is float32.*tf.int8",
    ),
    ("uint8", _set(0, type=schema.TensorType.UINT8), UnsupportedModel, "input 'image' is uint8"),
    ("int4 weights", _set(1, type=schema.TensorType.INT4), UnsupportedOperator, "has int4 weights 'weights'"),
    ("dynamic", _set(0, shape=[-1, 4, 4, 2]), UnsupportedModel, r"'image' .* dynamic or empty shape \[-1, 4, 4, 2\].*fixed sizes"),
    ("huge", _set(0, shape=[1, 30000, 30000, 2]), UnsupportedModel, "1800000000 elements"),
    ("weights zero point", _quantization(1, zeroPoint=[0, 1, 0]), UnsupportedOperator, "zero point that is not 0"),
    ("scales", _quantization(1, scale=[0.1, 0.1]), UnsupportedOperator, "2 scales along dimension 0 where 1 or 3"),
    ("no scale", _quantization(0, scale=[]), UnsupportedModel, "'image' .* has 0 scales"),
    ("zero scale", _quantization(2, scale=[0.0]), UnsupportedModel, "impossible scale 0"),
    ("nan scale", _quantization(2, scale=[float("nan")]), UnsupportedModel, "impossible scale nan"),
    ("tiny scale", _quantization(2, scale=[1e-30]), UnsupportedOperator, "asks? for a multiplier"),
    ("variable", _set(0, isVariable=True), UnsupportedModel, "is a variable"),
    ("sparse", _set(1, sparsity=schema.SparsityParametersT()), UnsupportedOperator, "sparse weights 'weights'"),
    ("subgraphs", _second_subgraph, UnsupportedModel, "2 subgraphs"),
    ("order", _reversed, ModelFileError, "reads tensor 'features' before it is computed"),
    ("weights shape", _set(1, shape=[3, 1, 1, 4]), ModelFileError, "holds 6 bytes where its shape .* needs 12"),
    ("output shape", _set(2, shape=[1, 4, 5, 3]), ModelFileError, "where its input makes 4×4 pixels"),
    ("buffer", _set(1, buffer=9), ModelFileError, "damaged or cut off"),
]


@pytest.mark.parametrize(("change", "error", "sentence"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refusals(change: Callable[[ModelBuilder], None], error: type[CompileError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        import_tflite(changed(change))
    assert "\n" not in str(caught.value)


def test_the_model_that_the_refusals_change_is_sound() -> None:
    assert len(import_tflite(changed(unchanged)).layers) == 1


def test_options_that_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="fused activation TANH"):
        import_tflite(changed(unchanged, fusedActivationFunction=4))
    with pytest.raises(ModelFileError, match="stride 0×1"):
        import_tflite(changed(unchanged, strideH=0))
    model = ModelBuilder()
    x, y = model.activation((1, 4, 4, 1), 0.1, 0), model.activation((1, 4, 4, 1), 0.1, 0)
    w = model.constant(np.ones((1, 3, 3, 1), np.int8), scale=0.1)
    fields = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1 << 24, "dilationWFactor": 1}
    model.operator("CONV_2D", [x, w], [y], **fields)
    with pytest.raises(UnsupportedOperator, match="with a border"):
        import_tflite(model.finish([x], [y]))


def test_an_unknown_operator_is_named() -> None:
    model = ModelBuilder()
    x, y, z = (model.activation((1, 4), 0.1, 0, name=name) for name in ("in", "middle", "angle"))
    model.operator("RELU", [x], [y])
    model.operator("COS", [y], [z])
    with pytest.raises(UnsupportedOperator, match=r"operator COS \(number 1, output tensor 'angle'\) is not supported") as caught:
        import_tflite(model.finish([x], [z]))
    assert (caught.value.operator, caught.value.index, caught.value.tensor) == ("COS", 1, "angle")


def test_a_float_model_gets_advice() -> None:
    model = ModelBuilder()
    x, y = model.tensor((1, 4), np.float32), model.tensor((1, 4), np.float32)
    model.operator("RELU", [x], [y])
    with pytest.raises(UnsupportedModel, match=r"computes in float32 and has no int8 tensor: convert .* inference_input_type"):
        import_tflite(model.finish([x], [y]))


def test_softmax_must_be_last() -> None:
    model = ModelBuilder()
    x, y, z = (model.activation((1, 4), 1 / 256, -128) for _ in range(3))
    model.operator("SOFTMAX", [x], [y], beta=1.0)
    model.operator("RELU", [y], [z])
    with pytest.raises(UnsupportedModel, match="SOFTMAX before the model's end"):
        import_tflite(model.finish([x], [z]))


def test_broadcast_of_two_activations_is_refused() -> None:
    model = ModelBuilder()
    x, small = model.activation((1, 4, 4, 2), 0.1, 0), model.activation((1, 1, 1, 2), 0.1, 0, name="small")
    y = model.activation((1, 4, 4, 2), 0.2, 0)
    model.operator("ADD", [x, small], [y])
    with pytest.raises(UnsupportedOperator, match="broadcasts the activation 'small'"):
        import_tflite(model.finish([x, small], [y]))


def test_repeated_names_become_unique() -> None:
    model = ModelBuilder()
    x, y, z = (model.activation((1, 4), 0.1, 0, name="same") for _ in range(3))
    model.operator("RELU", [x], [y])
    model.operator("TANH", [y], [z])
    graph = import_tflite(model.finish([x], [z]))
    assert [graph.inputs[0].name, *(layer.output.name for layer in graph.layers)] == ["same", "same #1", "same #2"]


def test_shape_arithmetic_is_folded_and_checked() -> None:
    def build(width: int) -> bytes:
        model = ModelBuilder()
        x, y = model.activation((1, 4, 4, 2), 0.1, 0), model.activation((1, 32), 0.1, 0)
        one, two = model.constant(np.array([0], np.int32)), model.constant(np.array([1], np.int32))
        shape, batch, packed = (model.tensor(size, np.int32) for size in ((4,), (), (2,)))
        half = model.constant(np.array(width // 2, np.int32))
        whole = model.tensor((), np.int32)
        model.operator("SHAPE", [x], [shape])
        model.operator("STRIDED_SLICE", [shape, one, two, two], [batch], shrinkAxisMask=1)
        model.operator("ADD", [half, half], [whole])
        model.operator("PACK", [batch, whole], [packed], valuesCount=2, axis=0)
        model.operator("RESHAPE", [x, packed], [y])
        return model.finish([x], [y])

    assert [layer.operator for layer in import_tflite(build(32)).layers] == ["Reshape"]
    with pytest.raises(ModelFileError, match=r"shape operand \[1, 30\] and an output of \[1, 32\]"):
        import_tflite(build(30))


def test_grouped_convolution_equals_tflm() -> None:
    model = ModelBuilder()
    generator = np.random.default_rng(1)
    x, y = model.activation((1, 5, 5, 6), 0.1, 7), model.activation((1, 3, 3, 4), 1.0, -3)
    w = model.constant(generator.integers(-127, 128, (4, 3, 3, 3), dtype=np.int8), scale=np.full(4, 0.01))
    fields = {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    model.operator("CONV_2D", [x, w], [y], **fields)
    check_random(RandomModel("grouped", model.finish([x], [y]), [(1, 5, 5, 6)], [7]), 1)


def test_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is not a \.tflite file"):
        import_tflite(b"PK\x03\x04 something else")
    with pytest.raises(ModelFileError, match=r"is not a \.tflite file"):
        import_tflite(b"")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_tflite(tmp_path / "absent.tflite")


def test_damaged_files_give_one_sentence() -> None:
    """Cut and flipped files: a model (the damage is in the weights, say) or a CompileError, never anything else, and
    soon."""
    data = DIGITS_MODEL.read_bytes()
    generator = np.random.default_rng(20)
    for _ in range(150):
        with pytest.raises(CompileError):
            import_tflite(data[: generator.integers(0, len(data) * 9 // 10)])
    messages = []
    for number in range(600):
        damaged = bytearray(data)
        # Most of the file is weights; half of the damage goes where the structure is.
        area = len(data) if number % 2 else 5000
        for position in generator.integers(0, area, generator.integers(1, 9)):
            damaged[len(data) - 1 - position] = generator.integers(0, 256)
        try:
            import_tflite(bytes(damaged))
        except CompileError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
