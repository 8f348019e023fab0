"""Inputs that hit ties, saturation and borders, beside random ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Int8Array = npt.NDArray[np.int8]


def corner_inputs(shape: tuple[int, ...], zero_point: int) -> list[Int8Array]:
    """All -128, all 127, all ``zero_point``, alternating extremes (elements and rows), a ramp and its reverse."""
    elements = int(np.prod(shape))
    position = np.arange(elements)
    row = position // shape[-1] if shape else position
    ramp = (position % 256 - 128).astype(np.int8)
    flat = [
        np.full(elements, -128),
        np.full(elements, 127),
        np.full(elements, zero_point),
        np.where(position % 2, 127, -128),
        np.where(row % 2, 127, -128),
        ramp,
        ramp[::-1],
    ]
    return [values.astype(np.int8).reshape(shape) for values in flat]


def random_input(shape: tuple[int, ...], generator: np.random.Generator) -> Int8Array:
    """Uniform over all int8."""
    return generator.integers(-128, 128, shape, dtype=np.int8)


def input_sets(shapes: list[tuple[int, ...]], zero_points: list[int], count: int, seed: int) -> Iterator[list[Int8Array]]:
    """``count`` sets of one array for each input: corner values first, then random ones."""
    generator = np.random.default_rng(seed)
    corners = [corner_inputs(shape, zero_point) for shape, zero_point in zip(shapes, zero_points, strict=True)]
    for number in range(count):
        if number < len(corners[0]):
            # Neighbouring inputs get different corners, so that two operands are not always alike.
            yield [values[(number + position) % len(values)] for position, values in enumerate(corners)]
        else:
            yield [random_input(shape, generator) for shape in shapes]
