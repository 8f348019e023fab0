"""Every kernel against its definition, one output element at a time in Python's integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.layers import Add, Convolution, DepthwiseConvolution, Lookup, Pad, Pool, PoolKind, Reshape, Slice, Softmax
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.numerics.softmax import softmax
from systola_firmware.spec.isa import Rounding
from systola_sim.golden.kernels import run_layer
from systola_sim.golden.requantize import requantize, wrap32


def tensor(*shape: int, zero_point: int = 0) -> Tensor:
    return Tensor("tensor", shape, 0.1, zero_point)


def random_int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([-128, 127], shape), values).astype(np.int8)


def requantization(rng: np.random.Generator, channels: int, shift: int = -9) -> Requantization:
    return Requantization(
        rng.integers(1 << 30, 1 << 31, channels).astype(np.int32),
        rng.integers(shift, shift + 3, channels).astype(np.int32),
        Rounding.DOUBLE,
    )


def finish(value: int, layer: Any, channel: int) -> int:
    q, s = layer.requantization.multiplier, layer.requantization.shift
    index = channel if q.size > 1 else 0
    result = int(requantize(int(wrap32(value)), int(q[index]), int(s[index]), layer.requantization.rounding))
    return min(max(result + layer.output.zero_point, layer.minimum), layer.maximum)


Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, Padding, Pair]  # kernel, stride, dilation, padding, input size
GEOMETRIES: list[Geometry] = [
    ((1, 1), (1, 1), (1, 1), Padding(), (4, 5)),
    ((3, 3), (1, 1), (1, 1), Padding(1, 1, 1, 1), (5, 4)),
    ((3, 3), (2, 2), (1, 1), Padding(0, 1, 0, 1), (6, 6)),
    ((2, 5), (3, 1), (2, 1), Padding(1, 2, 0, 3), (7, 6)),
    ((3, 2), (1, 2), (2, 3), Padding(2, 0, 1, 1), (6, 9)),
    ((4, 4), (5, 4), (1, 1), Padding(), (10, 9)),  # a stride beyond the window; rows that no window reaches
]


def out_size(size: int, kernel: int, stride: int, dilation: int, border: int) -> int:
    return (size + border - (kernel - 1) * dilation - 1) // stride + 1


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions(geometry: Geometry, depthwise: bool, depth: int) -> None:
    kernel, stride, dilation, padding, size = geometry
    rng = np.random.default_rng(sum(size) + depth)
    images, inputs = 2, 3
    outputs = inputs * depth if depthwise else 2 + depth
    height = out_size(size[0], kernel[0], stride[0], dilation[0], padding.top + padding.bottom)
    width = out_size(size[1], kernel[1], stride[1], dilation[1], padding.left + padding.right)
    source, output = tensor(images, *size, inputs, zero_point=-7), tensor(images, height, width, outputs, zero_point=5)
    common: dict[str, Any] = {
        "bias": rng.integers(-3000, 3000, outputs).astype(np.int32),
        "requantization": requantization(rng, outputs if depth == 2 else 1),
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "minimum": -100,
        "maximum": 90,
    }
    layer: Convolution | DepthwiseConvolution
    if depthwise:
        layer = DepthwiseConvolution("layer", (source,), output, weights=random_int8(rng, *kernel, outputs), **common)
    else:
        layer = Convolution("layer", (source,), output, weights=random_int8(rng, outputs, *kernel, inputs), **common)
    x = random_int8(rng, *source.shape)
    result = run_layer(layer, [x])
    assert result.dtype == np.int8
    for n, row, column, o in np.ndindex(output.nhwc):
        total = int(layer.bias[o])
        for i, j in np.ndindex(*kernel):
            y, z = row * stride[0] + i * dilation[0] - padding.top, column * stride[1] + j * dilation[1] - padding.left
            if 0 <= y < size[0] and 0 <= z < size[1]:
                if depthwise:
                    total += (int(x[n, y, z, o // depth]) + 7) * int(layer.weights[i, j, o])
                else:
                    total += sum((int(x[n, y, z, c]) + 7) * int(layer.weights[o, i, j, c]) for c in range(inputs))
        assert result[n, row, column, o] == finish(total, layer, o)


def test_accumulators_wrap_at_32_bits() -> None:
    extreme = np.array([(1 << 31) - 1, -(1 << 31)], np.int32)
    layer = Convolution(
        "layer",
        (tensor(1, 1, 1, 1),),
        tensor(1, 1, 1, 2),
        weights=np.array([[[[1]]], [[[-1]]]], np.int8),
        bias=extreme,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([-23], np.int32)),
    )
    assert run_layer(layer, [np.array([[[[1]]]], np.int8)]).reshape(-1).tolist() == [-128, 127]


def test_fully_connected_reads_features_row_by_row() -> None:
    rng = np.random.default_rng(2)
    layer = Convolution(
        "layer",
        (tensor(2, 3, 2, 2, zero_point=4),),
        tensor(2, 5, zero_point=-3),
        weights=random_int8(rng, 5, 1, 1, 12),
        bias=rng.integers(-500, 500, 5).astype(np.int32),
        requantization=requantization(rng, 5),
        fully_connected=True,
    )
    x = random_int8(rng, 2, 3, 2, 2)
    result = run_layer(layer, [x])
    for row, o in np.ndindex(2, 5):
        total = int(layer.bias[o]) + sum(
            (int(a) - 4) * int(w) for a, w in zip(x[row].reshape(-1), layer.weights[o, 0, 0], strict=True)
        )
        assert result[0, 0, row, o] == finish(total, layer, o)


def test_fully_connected_may_keep_four_axes() -> None:
    rng = np.random.default_rng(6)
    layer = Convolution(
        "layer",
        (tensor(2, 3, 4, 6),),
        tensor(2, 3, 4, 5),
        weights=random_int8(rng, 5, 1, 1, 6),
        bias=rng.integers(-500, 500, 5).astype(np.int32),
        requantization=requantization(rng, 1),
        fully_connected=True,
    )
    x = random_int8(rng, 2, 3, 4, 6)
    result = run_layer(layer, [x])
    for n, row, column, o in np.ndindex(2, 3, 4, 5):
        total = int(layer.bias[o]) + sum(int(a) * int(w) for a, w in zip(x[n, row, column], layer.weights[o, 0, 0], strict=True))
        assert result[n, row, column, o] == finish(total, layer, o)


def test_slice_takes_steps_and_drops_axes() -> None:
    x = random_int8(np.random.default_rng(7), 3, 7, 5)
    layer = Slice("slice", (tensor(3, 7, 5),), tensor(2, 3), begin=(2, 1, 0), size=(1, 2, 3), step=(1, 4, 2))
    result = run_layer(layer, [x.reshape(1, 1, 21, 5)])
    assert result.tolist() == [[[[int(x[2, row, column]) for column in (0, 2, 4)] for row in (1, 5)]]]
    four = Slice("slice", (tensor(1, 4, 4, 2),), tensor(1, 2, 1, 2), begin=(0, 1, 3, 0), size=(1, 2, 1, 2), step=(1, 2, 3, 1))
    image = random_int8(np.random.default_rng(8), 1, 4, 4, 2)
    np.testing.assert_array_equal(run_layer(four, [image]), image[:, [1, 3]][:, :, [3]])


def test_add_sums_its_tables() -> None:
    rng = np.random.default_rng(3)
    tables = tuple(rng.integers(-(1 << 30), 1 << 30, 256).astype(np.int32) for _ in range(2))
    shape = (1, 16, 16, 1)
    layer = Add(
        "add",
        (tensor(*shape), tensor(*shape)),
        tensor(*shape, zero_point=9),
        tables=(tables[0], tables[1]),
        requantization=requantization(rng, 1, shift=-24),
        minimum=-110,
        maximum=100,
    )
    x0, x1 = np.arange(256, dtype=np.uint8).view(np.int8).reshape(shape), random_int8(rng, *shape)
    result = run_layer(layer, [x0, x1])
    for index in np.ndindex(shape):
        assert result[index] == finish(int(tables[0][int(x0[index]) % 256]) + int(tables[1][int(x1[index]) % 256]), layer, 0)


@dataclass(frozen=True)
class PoolCase:
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    size: tuple[int, int]


@pytest.mark.parametrize("kind", list(PoolKind))
@pytest.mark.parametrize(
    "case",
    [
        PoolCase((2, 2), (2, 2), Padding(), (6, 5)),
        PoolCase((3, 3), (1, 1), Padding(1, 1, 1, 1), (5, 5)),
        PoolCase((3, 4), (2, 3), Padding(1, 1, 1, 2), (6, 7)),
        PoolCase((6, 6), (1, 1), Padding(), (6, 6)),
        PoolCase((1, 1), (2, 3), Padding(), (6, 7)),
    ],
)
def test_pools_see_only_the_input(kind: PoolKind, case: PoolCase) -> None:
    rng = np.random.default_rng(case.size[0])
    (p, size) = (case.padding, case.size)
    height = out_size(size[0], case.window[0], case.stride[0], 1, p.top + p.bottom)
    width = out_size(size[1], case.window[1], case.stride[1], 1, p.left + p.right)
    layer = Pool(
        "pool",
        (tensor(2, *size, 3),),
        tensor(2, height, width, 3),
        kind=kind,
        window=case.window,
        stride=case.stride,
        padding=p,
        minimum=-120,
        maximum=99,
    )
    x = random_int8(rng, 2, *size, 3)
    x[0] -= x[0] % 2  # many ties of the average
    x[1, 0, 0] = -1  # the smallest sum below 0
    result = run_layer(layer, [x])
    for n, row, column, c in np.ndindex(layer.output.nhwc):
        taps = []
        for i, j in np.ndindex(*case.window):
            y, z = row * case.stride[0] + i - p.top, column * case.stride[1] + j - p.left
            if 0 <= y < size[0] and 0 <= z < size[1]:
                taps.append(int(x[n, y, z, c]))
        if kind is PoolKind.MAXIMUM:
            expected = max(taps)
        else:  # C's division, which truncates
            total, count = sum(taps), len(taps)
            expected = (total + count // 2) // count if total > 0 else -((-total + count // 2) // count)
        assert result[n, row, column, c] == min(max(expected, -120), 99)


def test_lookup_is_indexed_by_the_byte() -> None:
    table = np.random.default_rng(4).integers(-128, 128, 256).astype(np.int8)
    layer = Lookup("lookup", (tensor(1, 1, 1, 3),), tensor(1, 1, 1, 3), table=table)
    assert run_layer(layer, [np.array([[[[-1, 0, -128]]]], np.int8)]).reshape(-1).tolist() == [table[255], table[0], table[128]]


def test_pad_surrounds_pixels_and_channels() -> None:
    x = np.arange(12, dtype=np.int8).reshape(1, 2, 3, 2)
    layer = Pad("pad", (tensor(1, 2, 3, 2),), tensor(1, 5, 6, 6), padding=Padding(1, 2, 3, 0), value=-9, channels=(1, 3))
    expected = np.full((1, 5, 6, 6), -9, np.int8)
    expected[:, 1:3, 3:6, 1:3] = x
    np.testing.assert_array_equal(run_layer(layer, [x]), expected)


def test_reshape_and_softmax() -> None:
    x = random_int8(np.random.default_rng(5), 1, 2, 3, 4)
    flat = run_layer(Reshape("reshape", (tensor(1, 2, 3, 4),), tensor(3, 8)), [x])
    assert flat.shape == (1, 1, 3, 8)
    assert flat.tobytes() == x.tobytes()
    np.testing.assert_array_equal(
        run_layer(Softmax("softmax", (tensor(3, 8),), tensor(3, 8), beta=2.0), [flat]), softmax(flat, 0.1, 2.0)
    )


def test_what_cannot_be_run_is_named() -> None:
    x = np.zeros((1, 1, 1, 4), np.int8)
    with pytest.raises(TypeError, match="layer 'odd': there is no kernel for Layer"):
        run_layer(Layer("odd", (tensor(4),), tensor(4)), [x])
    with pytest.raises(ValueError, match=r"layer 'pad' makes the shape \(1, 1, 1, 4\), not \(1, 1, 1, 5\)"):
        run_layer(Pad("pad", (tensor(4),), tensor(5), padding=Padding(), value=0), [x])
