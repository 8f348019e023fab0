"""Evaluation of whole graphs: order, shapes, constants, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Add, Lookup, Reshape
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.requantization import Requantization
from systola_sim.golden.graph_model import evaluate

IDENTITY = np.arange(256, dtype=np.uint8).view(np.int8)


def small_graph() -> Graph:
    source = Tensor("source", (1, 2, 3), 1.0, 0)
    negated = Tensor("negated", (1, 2, 3), 1.0, 0)
    shifted = Tensor("shifted", (1, 2, 3), 1.0, 0)
    flat = Tensor("flat", (6,), 1.0, 0)
    constant = Tensor("constant", (1, 2, 3), 1.0, 0, constant=np.arange(6, dtype=np.int8).reshape(1, 2, 3))
    identity = IDENTITY.astype(np.int32)
    one = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))
    return Graph(
        "small",
        (source,),
        (flat,),
        (
            Lookup("negate", (source,), negated, table=np.where(IDENTITY == -128, 127, -IDENTITY).astype(np.int8)),
            Add("shift", (negated, constant), shifted, tables=(identity, identity), requantization=one),
            Reshape("reshape", (shifted,), flat),
        ),
    )


def test_every_tensor_by_name_in_the_models_own_shape() -> None:
    x = np.array([[[5, -6, 7], [-128, 0, 1]]], np.int8)
    values = evaluate(small_graph(), [x])
    assert list(values) == ["source", "negated", "shifted", "flat"]
    assert values["negated"].tolist() == [[[-5, 6, -7], [127, 0, -1]]]
    assert values["shifted"].tolist() == [[[-5, 7, -5], [127, 4, 4]]]
    assert values["flat"].tolist() == [-5, 7, -5, 127, 4, 4]
    assert all(array.dtype == np.int8 for array in values.values())


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="the graph has 1 inputs, not 0"):
        evaluate(small_graph(), [])
    with pytest.raises(ValueError, match=r"input 'source' must be int8 \(1, 2, 3\), not int8 \(2, 3\)"):
        evaluate(small_graph(), [np.zeros((2, 3), np.int8)])
    with pytest.raises(ValueError, match="not float32"):
        evaluate(small_graph(), [np.zeros((1, 2, 3), np.float32)])  # type: ignore[list-item]
