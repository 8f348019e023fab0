"""SOFTMAX against TFLM's own kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.models.builder import ModelBuilder
from support.oracle.tflm import Oracle

from systola_firmware.numerics.softmax import softmax


def oracle(rows: int, classes: int, scale: float, beta: float) -> Oracle:
    builder = ModelBuilder()
    source = builder.activation((rows, classes), scale, 3)
    answer = builder.activation((rows, classes), 1 / 256, -128)
    builder.operator("SOFTMAX", [source], [answer], beta=beta)
    return Oracle(builder.finish([source], [answer]))


def rows_of(rng: np.random.Generator, rows: int, classes: int, factor: float) -> np.ndarray:
    """Random rows: wide, narrow, one hot, all equal, and extremes; one hot too in place of rows that make TFLM
    abort."""
    values = rng.integers(-128, 128, (rows, classes))
    narrow = rng.integers(-3, 4, (rows, classes)) + rng.integers(-120, 120, (rows, 1))
    values = np.where(rng.random((rows, 1)) < 0.5, values, narrow)
    values[0] = 127
    values[1] = -128
    values[2, 1:] = -128
    values[2, 0] = 127
    sums = np.exp(factor * (values - values.max(axis=1, keepdims=True))).sum(axis=1)
    values[sums > 500] = values[2]
    return values.astype(np.int8)


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 12, 64, 257, 1000])
def test_equals_tflm(classes: int) -> None:
    rng = np.random.default_rng(classes)
    rows = 40
    for scale in (0.0001, 0.004, 0.05, 0.0978, 0.25, 1.0, 3.5, 40.0):
        for beta in (1.0, 0.5, 2.3):
            if classes > 500 and scale * beta < 0.01:
                continue  # TFLM aborts in any row
            real_scale = float(np.float32(scale * rng.uniform(0.8, 1.2)))
            reference = oracle(rows, classes, real_scale, beta)
            for _ in range(2):
                values = rows_of(rng, rows, classes, real_scale * beta)
                (expected,) = reference.run(values)
                np.testing.assert_array_equal(softmax(values, real_scale, beta), expected, err_msg=f"{real_scale} {beta}")


def test_beta_is_float32_and_its_product_with_the_scale_a_double() -> None:
    """Two classes whose share lies near a tie: a product rounded to float32 gives another answer."""
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(25):
        share, distance, beta = generator.integers(20, 120) + 0.5, int(generator.integers(20, 255)), generator.uniform(0.3, 3)
        centre = np.float32(math.log((256 - share) / share) / distance / beta)
        row = np.array([[127, 127 - distance]], np.int8)
        for ulps in range(-20, 20):
            scale = float(centre + np.float32(ulps) * np.spacing(centre))
            answer = softmax(row, scale, beta)
            narrow = softmax(row, float(np.float32(beta) * np.float32(scale)))
            if not np.array_equal(answer, narrow):
                (expected,) = oracle(1, 2, scale, beta).run(row)
                np.testing.assert_array_equal(answer, expected)
                assert not np.array_equal(narrow, expected)
                found += 1
                break
    assert found > 4


def test_more_than_512_equal_classes_share_nothing() -> None:
    """TFLM aborts here; a 700th part is nearer to 0 than to 1/256."""
    assert (softmax(np.full((1, 700), 5, np.int8), 0.1) == -128).all()


def test_every_axis_but_the_last_is_a_row() -> None:
    values = np.random.default_rng(0).integers(-128, 128, (2, 3, 4, 5), dtype=np.int8)
    result = softmax(values, 0.1)
    assert result.shape == values.shape
    assert result.dtype == np.int8
    np.testing.assert_array_equal(result[1, 2, 3], softmax(values[1, 2, 3], 0.1))


def test_a_scale_that_tflm_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="is not defined: it must be at least"):
        softmax(np.zeros((1, 4), np.int8), 2.0**-28)
