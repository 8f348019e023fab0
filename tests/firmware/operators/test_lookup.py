"""Operators by a table: every value of the input, many quantizations, against their reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from support.models.builder import ModelBuilder
from support.oracle.tflm import Oracle

import systola
from systola_firmware.errors import UnsupportedOperator
from systola_firmware.importer import import_tflite
from systola_firmware.ir.layers import Lookup

#: Every int8, in the order of a table.
EVERY = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)


def unary(name: str, source: tuple[float, int], target: tuple[float, int]) -> bytes:
    """A model of one operator over 256 values; scale and zero point of both sides."""
    model = ModelBuilder()
    tensors = [model.activation((1, 256), float(np.float32(scale)), zero_point) for scale, zero_point in (source, target)]
    model.operator(name, tensors[:1], tensors[1:])
    return model.finish(tensors[:1], tensors[1:])


def table_of(data: bytes) -> np.ndarray:
    """The table that the importer makes of such a model."""
    (layer,) = import_tflite(data).layers
    assert isinstance(layer, Lookup)
    return layer.table.reshape(1, 256)


@pytest.mark.parametrize("seed", range(100))
def test_abs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.uniform(-10, 4)
    ratio = 1.0 if seed % 5 == 0 else 2.0 ** rng.uniform(-5, 5)
    data = unary("ABS", (scale, int(rng.integers(-128, 128))), (scale * ratio, int(rng.integers(-128, 128))))
    np.testing.assert_array_equal(table_of(data), Oracle(data).run(EVERY)[0])


def test_abs_on_the_device() -> None:
    data = unary("ABS", (0.1, 3), (0.07, -90))
    with systola.open("golden:tiny-4x4") as device:
        np.testing.assert_array_equal(device.load(data).run(EVERY), Oracle(data).run(EVERY)[0])


def test_a_ratio_that_the_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"ABS .* times its output scale"):
        import_tflite(unary("ABS", (2.0**20, 0), (2.0**-9, 0)))


def test_neg() -> None:
    """LiteRT 2.3.0's reference kernel, transcribed: what it answered for every byte is ``-x`` in eight bits."""
    data = unary("NEG", (0.1, 0), (0.1, 0))
    expected = [-x if x > -128 else -128 for x in EVERY.reshape(-1).tolist()]
    assert table_of(data).reshape(-1).tolist() == expected
    with systola.open("golden:tiny-4x4") as device:
        assert device.load(data).run(EVERY).reshape(-1).tolist() == expected


@pytest.mark.parametrize(("source", "target"), [((0.1, 0), (0.2, 0)), ((0.1, 1), (0.1, 0)), ((0.1, 0), (0.1, -1))])
def test_neg_of_another_quantization_is_refused(source: tuple[float, int], target: tuple[float, int]) -> None:
    with pytest.raises(UnsupportedOperator, match=r"NEG .* one scale and the zero point 0"):
        import_tflite(unary("NEG", source, target))
