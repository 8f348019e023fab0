"""STRIDED_SLICE of activations: random ones against TFLM, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.models.builder import ModelBuilder
from support.models.random_slices import slice_model
from support.oracle.graph_agreement import check_random

from systola_firmware.errors import CompileError, ModelFileError, UnsupportedOperator
from systola_firmware.importer import import_tflite
from systola_firmware.ir.layers import Reshape, Slice
from systola_firmware.ir.passes import fold_constants


@pytest.mark.parametrize("block", range(4))
def test_random_slices_equal_tflm(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check_random(slice_model(seed), seed, sets=8)


def test_random_slices_are_of_all_kinds() -> None:
    kinds = [type(import_tflite(slice_model(seed).data).layers[0]) for seed in range(100)]
    assert kinds.count(Slice) > 60
    assert kinds.count(Reshape) > 5


def sliced(change: Callable[[ModelBuilder], None] | None = None, target: tuple[int, ...] = (2, 4), **changes: Any) -> bytes:
    """The slice [:, 7] of a (2, 8, 4) tensor, with other limits, other masks, or another change."""
    limits = {"begin": [0, 7, 0], "end": [0, 8, 0], "strides": [1, 1, 1]}
    masks = {"beginMask": 5, "endMask": 5, "shrinkAxisMask": 2}
    model = ModelBuilder()
    x, y = model.activation((2, 8, 4), 0.1, 0, name="sequence"), model.activation(target, 0.1, 0, name="last")
    operands = [model.constant(np.array(changes.pop(name, values), np.int32)) for name, values in limits.items()]
    model.operator("STRIDED_SLICE", [x, *operands], [y], **(masks | changes))
    if change is not None:
        change(model)
    return model.finish([x], [y])


def _runtime_begin(model: ModelBuilder) -> None:
    begin = model.graph.tensors[model.graph.operators[0].inputs[1]]
    begin.buffer, begin.isVariable = 0, True


def test_the_last_time_step() -> None:
    for begin in (7, -1):
        (layer,) = import_tflite(sliced(begin=[5, begin, -3])).layers
        assert isinstance(layer, Slice)
        assert (layer.begin, layer.size, layer.step) == ((0, 7, 0), (2, 1, 4), (1, 1, 1))


def test_limits_beyond_the_axis_end_at_it() -> None:
    data = sliced(begin=[0, -20, 1], end=[9, 90, 4], strides=[1, 3, 2], beginMask=0, endMask=0, shrinkAxisMask=0, target=(2, 3, 2))
    (layer,) = import_tflite(data).layers
    assert isinstance(layer, Slice)
    assert (layer.begin, layer.size, layer.step) == ((0, 0, 1), (2, 3, 2), (1, 3, 2))


def test_a_slice_of_everything_is_a_reshape() -> None:
    (layer,) = import_tflite(sliced(begin=[0, 0, 0], beginMask=7, endMask=7, shrinkAxisMask=0, target=(2, 8, 4))).layers
    assert isinstance(layer, Reshape)


REFUSALS: list[tuple[str, dict[str, Any], type[CompileError], str]] = [
    ("ellipsis", {"ellipsisMask": 1}, UnsupportedOperator, "slices with an ellipsis, which is not supported"),
    ("new axis", {"newAxisMask": 1}, UnsupportedOperator, "slices with a new axis, which is not supported"),
    ("offset", {"offset": True}, UnsupportedOperator, "slices with ends counted from the begins, which is not supported"),
    ("backwards", {"strides": [1, 1, -1]}, UnsupportedOperator, "takes axis 2 backwards, which is not supported"),
    ("stride 0", {"strides": [0, 1, 1]}, ModelFileError, "has the stride 0 along axis 0"),
    ("too far", {"begin": [0, 8, 0]}, ModelFileError, "takes the element 8 of axis 1, which has 8"),
    ("too far back", {"begin": [0, -9, 0]}, ModelFileError, "takes the element -1 of axis 1, which has 8"),
    ("short begin", {"begin": [0, 7]}, UnsupportedOperator, "has 2 values of begin where its input has 3 axes"),
    ("short strides", {"strides": [1]}, UnsupportedOperator, "has 1 values of strides where its input has 3 axes"),
    ("shape", {"target": (2, 5)}, ModelFileError, r"has an output of the shape \[2, 5\] where \[2, 4\] is what it takes"),
    ("empty", {"end": [0, 0, 0], "shrinkAxisMask": 0, "target": (2, 1, 4)}, ModelFileError, r"where \[2, 0, 4\] is what it takes"),
    ("run time", {"change": _runtime_begin}, UnsupportedOperator, "computes its begin at run time: the engine wants constants"),
]


@pytest.mark.parametrize(("changes", "error", "sentence"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refusals(changes: dict[str, Any], error: type[CompileError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        import_tflite(sliced(**changes))
    assert "\n" not in str(caught.value)


def test_five_axes_are_refused() -> None:
    model = ModelBuilder()
    x, y = model.activation((1, 2, 2, 2, 2), 0.1, 0), model.activation((1, 2, 2, 2, 1), 0.1, 0)
    operands = [model.constant(np.array([value] * 5, np.int32)) for value in (0, 1, 1)]
    model.operator("STRIDED_SLICE", [x, *operands], [y], endMask=15)
    with pytest.raises(UnsupportedOperator, match="slices 5 axes: the kernels slice up to 4"):
        import_tflite(model.finish([x], [y]))


def test_a_slice_of_a_constant_is_a_constant() -> None:
    """Added to the input, so that the constant is used: [3:9:2] of a vector."""
    values = np.arange(12, dtype=np.int8)
    model = ModelBuilder()
    x, y, part = model.activation((3,), 0.1, 0), model.activation((3,), 0.2, 0), model.activation((3,), 0.1, 0)
    constant = model.constant(values, scale=0.1)
    operands = [model.constant(np.array([value], np.int32)) for value in (3, 9, 2)]
    model.operator("STRIDED_SLICE", [constant, *operands], [part])
    model.operator("ADD", [x, part], [y])
    (layer,) = fold_constants(import_tflite(model.finish([x], [y]))).layers
    assert layer.inputs[1].constant is not None
    assert layer.inputs[1].constant.tolist() == [3, 5, 7]
