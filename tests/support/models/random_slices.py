"""Seeded random STRIDED_SLICE models: any axes, strides, masks, negative and too large limits."""

from __future__ import annotations

import numpy as np

from support.models.builder import ModelBuilder
from support.models.random_models import RandomModel


def _whole(axis: int, values: int) -> bool:
    return bool(values >> axis & 1)


def slice_model(seed: int) -> RandomModel:
    """A slice of an input of one to four axes; the output has the shape that Python's slicing gives."""
    generator = np.random.default_rng(seed)
    rank = int(generator.integers(1, 5))
    shape = tuple(int(size) for size in generator.choice([1, 2, 3, 4, 5, 8, 13], rank))
    while True:
        begin, end = (generator.integers(-15, 16, rank).astype(np.int32) for _ in range(2))
        step = generator.choice([1, 1, 1, 2, 3, 20], rank).astype(np.int32)
        begin_mask, end_mask, dropped = (int(generator.integers(0, 1 << rank)) * int(generator.integers(0, 2)) for _ in range(3))
        taken: list[int | slice] = []
        for axis, size in enumerate(shape):
            first = None if _whole(axis, begin_mask) else int(begin[axis])
            if _whole(axis, dropped):
                taken.append(0 if first is None else first)
            else:
                taken.append(slice(first, None if _whole(axis, end_mask) else int(end[axis]), int(step[axis])))
            if first is not None and _whole(axis, dropped) and not -size <= first < size:
                break
        else:
            target_shape = np.zeros(shape)[tuple(taken)].shape
            if 0 not in target_shape:
                break
    model = ModelBuilder()
    x = model.activation(shape, 0.05, 3)
    y = model.activation(target_shape, 0.05, 3)
    operands = [model.constant(values) for values in (begin, end, step)]
    model.operator("STRIDED_SLICE", [x, *operands], [y], beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=dropped)
    return RandomModel(f"slice seed {seed}: {taken} of {shape}", model.finish([x], [y]), [shape], [3])
