"""Borders, pitches and shared buffers."""

from __future__ import annotations

import numpy as np
import pytest

from systola_firmware.errors import CompileError, UnsupportedModel
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Add, Convolution, Lookup, Reshape, Softmax
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.memory.layout import TensorLayout, plan_layouts
from systola_firmware.memory.sharing import Share, share_buffers
from systola_firmware.numerics.requantization import Requantization

REQUANTIZATION = Requantization(np.array([1 << 30], np.int32), np.array([-5], np.int32))


def tensor(name: str, *shape: int, zero_point: int = 3) -> Tensor:
    return Tensor(name, shape, 0.5, zero_point)


def convolution(x: Tensor, y: Tensor, kernel: int, padding: Padding, stride: int = 1) -> Convolution:
    return Convolution(
        f"to {y.name}",
        (x,),
        y,
        weights=np.ones((y.shape[3], kernel, kernel, x.shape[3]), np.int8),
        bias=np.zeros(y.shape[3], np.int32),
        requantization=REQUANTIZATION,
        stride=(stride, stride),
        padding=padding,
    )


def lookup(x: Tensor, y: Tensor) -> Lookup:
    return Lookup(f"to {y.name}", (x,), y, table=np.zeros(256, np.int8))


def add(x: Tensor, y: Tensor, z: Tensor) -> Add:
    table = np.zeros(256, np.int32)
    return Add(f"to {z.name}", (x, y), z, tables=(table, table), requantization=REQUANTIZATION)


def test_pitches_and_origin_count_the_border() -> None:
    layout = TensorLayout((2, 4, 5, 3), Padding(top=1, bottom=2, left=3, right=4), -7)
    assert (layout.pixel_pitch, layout.row_pitch, layout.image_pitch) == (3, 12 * 3, 7 * 36)
    assert layout.size == 2 * 7 * 36
    placement = layout.placed_at(100, 512)
    assert placement.address == 100 + 36 + 9
    values = np.arange(2 * 4 * 5 * 3, dtype=np.int8)
    region = np.frombuffer(placement.pack(values), np.int8)
    assert np.array_equal(placement.unpack(region.tobytes()).ravel(), values)
    image = region[: 7 * 36].reshape(7, 12, 3)
    assert np.all(image[0] == -7)
    assert np.all(image[5:] == -7)
    assert np.all(image[:, :3] == -7)
    assert np.all(image[:, 8:] == -7)
    assert image[1, 3, 1] == 1


def test_a_border_is_the_maximum_over_its_readers() -> None:
    x = tensor("x", 1, 6, 6, 2)
    first = convolution(x, tensor("a", 1, 6, 6, 4), 3, Padding(1, 1, 1, 1))
    second = convolution(x, tensor("b", 1, 6, 6, 4), 4, Padding(1, 2, 1, 2))
    graph = Graph("g", (x,), (first.output, second.output), (first, second))
    layouts = plan_layouts(graph)
    assert layouts["x"].border == Padding(1, 2, 1, 2)
    assert layouts["x"].fill == 3
    assert not layouts["a"].border


def test_a_stride_can_need_less_than_the_padding() -> None:
    # SAME for 6 pixels, kernel 3, stride 2 pads (0, 1); a padding of 2 after the end is never reached.
    layer = convolution(tensor("x", 1, 6, 6, 1), tensor("y", 1, 3, 3, 1), 3, Padding(0, 2, 0, 2), stride=2)
    assert layer.traits.border(layer) == Padding(0, 1, 0, 1)


def test_reshape_shares_only_without_border() -> None:
    x, y, z = tensor("x", 1, 4, 4, 2), tensor("y", 1, 2, 8, 2), tensor("z", 1, 2, 8, 4)
    reshape = Reshape("reshape", (x,), y)
    plain = Graph("g", (x,), (y,), (reshape,))
    assert share_buffers(plain, plan_layouts(plain), in_place=True)["y"] == Share("x")
    bordered = Graph("g", (x,), (z,), (reshape, convolution(y, z, 3, Padding(1, 1, 1, 1))))
    assert share_buffers(bordered, plan_layouts(bordered), in_place=True)["y"] == Share("y")


def test_add_takes_over_an_operand_that_dies() -> None:
    x, a, y, z = (tensor(name, 1, 4, 4, 2) for name in "xayz")
    layers = (lookup(x, a), add(a, x, y), lookup(y, z))
    graph = Graph("g", (x,), (z,), layers)
    buffers = share_buffers(graph, plan_layouts(graph), in_place=True)
    assert len({buffers[name].buffer for name in "ayz"}) == 1
    assert buffers["x"] == Share("x")  # read again by the ADD when a is made
    assert share_buffers(graph, plan_layouts(graph), in_place=False) == {name: Share(name) for name in "xayz"}


def test_an_output_is_never_taken_over() -> None:
    x, a, y = (tensor(name, 1, 4, 4, 2) for name in "xay")
    graph = Graph("g", (x,), (a, y), (lookup(x, a), lookup(a, y)))
    buffers = share_buffers(graph, plan_layouts(graph), in_place=True)
    assert buffers["y"].buffer != buffers["a"].buffer


def test_softmax_is_refused_except_as_the_last_layer() -> None:
    x, a, y = (tensor(name, 1, 4) for name in "xay")
    softmax = Softmax("softmax 0", (x,), a)
    assert "a" not in plan_layouts(Graph("g", (x,), (a,), (softmax,)))
    with pytest.raises(UnsupportedModel, match="softmax 0 is not the model's last operator"):
        plan_layouts(Graph("g", (x,), (y,), (softmax, lookup(a, y))))


def test_a_tensor_computed_twice_is_refused() -> None:
    x, a = tensor("x", 1, 4), tensor("a", 1, 4)
    with pytest.raises(CompileError, match="'a' is computed twice"):
        plan_layouts(Graph("g", (x,), (a,), (lookup(x, a), lookup(x, a))))
