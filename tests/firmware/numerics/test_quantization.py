"""Multipliers, ranges and tables against TFLM's kernels and against exact arithmetic.

The last bit of multipliers and ranges: ``test_convolution_multipliers.py``, ``test_elementwise_multipliers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from support.models.builder import ModelBuilder
from support.oracle.tflm import Oracle

from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics import lookup_tables
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import (
    Activation,
    QuantizationError,
    activation_range,
    add_parameters,
    convolution_requantization,
    quantize_multiplier,
    requantize,
    round_half_away,
)

ALL_INT8 = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)


def tflm_table(operator: str, source: Tensor, target: Tensor) -> Int8Array:
    """What TFLM's kernel answers for each of the 256 values."""
    model = ModelBuilder()
    x = model.activation((1, 256), source.scale, source.zero_point)
    y = model.activation((1, 256), target.scale, target.zero_point)
    model.operator(operator, [x], [y])
    return Oracle(model.finish([x], [y])).run(ALL_INT8)[0].reshape(-1)


def tensor(scale: float, zero_point: int) -> Tensor:
    return Tensor("x", (1, 256), float(np.float32(scale)), zero_point)


@pytest.mark.parametrize(("value", "expected"), [(0.5, 1), (-0.5, -1), (1.5, 2), (-1.5, -2), (2.4, 2), (-2.6, -3), (0.0, 0)])
def test_rounding_is_half_away_from_zero(value: float, expected: int) -> None:
    assert round_half_away(value) == expected


@pytest.mark.parametrize("seed", range(4))
def test_multiplier_is_the_nearest(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for real in 10 ** generator.uniform(-8, 2, 200):
        multiplier, shift = quantize_multiplier(float(real))
        assert 1 << 30 <= multiplier < 1 << 31
        step = Fraction(2) ** (shift - 31)
        assert abs(multiplier * step - Fraction(float(real))) <= step / 2


def test_multiplier_at_the_edges() -> None:
    assert quantize_multiplier(0.0) == (0, 0)
    assert quantize_multiplier(1.0) == (1 << 30, 1)
    assert quantize_multiplier(math.nextafter(1.0, 0.0)) == (1 << 30, 1)  # the mantissa rounds up to 2^31
    assert quantize_multiplier(2.0**-32) == (1 << 30, -31)
    assert quantize_multiplier(2.0**-33) == (0, 0)
    for real in (-1.0, math.inf, math.nan):
        with pytest.raises(QuantizationError, match="make the multiplier"):
            quantize_multiplier(real)


def test_requantize_rounds_twice() -> None:
    # 2^30 · 2^(s-31): one half, a quarter … ties go away from zero in the second rounding.
    values = np.array([-3, -2, -1, 0, 1, 2, 3])
    assert requantize(values, 1 << 30, 1).tolist() == values.tolist()
    assert requantize(values, 1 << 30, 0).tolist() == [-1, -1, 0, 0, 1, 1, 2]  # the first rounding is half up
    assert requantize(values * 2, 1 << 30, -1).tolist() == [-2, -1, -1, 0, 1, 1, 2]  # the second half away from zero


def test_a_multiplier_beyond_the_engine_is_refused() -> None:
    assert convolution_requantization(1.0, [63.0], 1.0).shift[0] == 6
    with pytest.raises(QuantizationError, match="multiplier of 64, and the engine's largest is 64"):
        convolution_requantization(1.0, [64.0], 1.0)


def test_activation_ranges() -> None:
    assert activation_range(Activation.NONE, 0.1, 3) == (-128, 127)
    assert activation_range(Activation.RELU, 0.1, 3) == (3, 127)
    assert activation_range(Activation.RELU6, 0.1, 3) == (3, 63)
    assert activation_range(Activation.RELU6, 0.01, 3) == (3, 127)
    assert activation_range(Activation.RELU_N1_TO_1, 0.1, 3) == (-7, 13)
    assert activation_range(Activation.RELU_N1_TO_1, 2.0, 0) == (-1, 1)  # half away from zero
    with pytest.raises(QuantizationError, match="too small for an activation bounded by 6"):
        activation_range(Activation.RELU6, 1e-40, 0)


def test_add_refuses_what_tflm_refuses() -> None:
    with pytest.raises(QuantizationError, match="output scale of 1e-07, too small"):
        add_parameters((0.1, 0.1), (0, 0), 1e-7)


TABLES: list[tuple[str, Callable[[Tensor, Tensor], Int8Array]]] = [
    ("LOGISTIC", lookup_tables.logistic_table),
    ("TANH", lookup_tables.tanh_table),
    ("RELU", lookup_tables.relu_table),
    ("RELU6", lookup_tables.relu6_table),
    ("QUANTIZE", lookup_tables.quantize_table),
]


@pytest.mark.parametrize(("operator", "table"), TABLES, ids=[name for name, _ in TABLES])
def test_tables_equal_tflm(operator: str, table: Callable[[Tensor, Tensor], Int8Array]) -> None:
    generator = np.random.default_rng(11)
    fixed = {"LOGISTIC": tensor(1 / 256, -128), "TANH": tensor(1 / 128, 0)}
    powers = 2.0 ** np.arange(-20, 7)
    scales = [*(10 ** generator.uniform(-5, 1.3, 100)), *powers, *np.nextafter(powers, 0, dtype=np.float32), 7.99, 15.9, 40.0]
    for scale in scales:
        source = tensor(scale, int(generator.choice([-128, 127, 0, *generator.integers(-128, 128, 3)])))
        other = tensor(scale * 2 ** generator.uniform(-6, 6), int(generator.integers(-128, 128)))
        for target in (fixed.get(operator, other), fixed.get(operator, source)):
            assert np.array_equal(table(source, target), tflm_table(operator, source, target)), (source, target)


def test_logistic_wants_its_zero_point() -> None:
    with pytest.raises(QuantizationError, match="zero point 3 where TFLM demands -128"):
        lookup_tables.logistic_table(tensor(0.1, 0), tensor(1 / 256, 3))
    with pytest.raises(QuantizationError, match="below 2"):
        lookup_tables.logistic_table(tensor(1e-10, 0), tensor(1 / 256, -128))


def test_relu_n1_to_1_clamps_real_values() -> None:
    """TFLM has no kernel for it; the definition, at a scale where nothing is rounded."""
    table = lookup_tables.relu_n1_to_1_table(tensor(1 / 32, 5), tensor(1 / 64, -20))
    for value in range(-128, 128):
        expected = -20 + 2 * (value - 5)
        assert table[value & 0xFF] == min(max(expected, -84), 44)
