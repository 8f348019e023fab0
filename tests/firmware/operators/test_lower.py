"""The parts of lowering by themselves: blocks, windows, division by a window, long loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from systola_firmware.lowering.blocks import Axis, Tiling, Work, cut_positions
from systola_firmware.lowering.fill import fill
from systola_firmware.lowering.matmul import kernel_rows_together, split_chunks
from systola_firmware.lowering.vector import Span, vectors
from systola_firmware.operators.pool import average_multiplier, clip_windows
from systola_firmware.spec.isa import Operation, Rounding
from systola_firmware.spec.presets import preset
from systola_sim.golden.requantize import requantize

CONFIG = preset("ulx3s-85f")


def positions(tiling: Tiling) -> list[tuple[int, int]]:
    return [
        tuple(
            getattr(tiling, end) + sum(i * getattr(axis, end) for i, axis in zip(indices, axes, strict=True))
            for end in ("source", "destination")
        )
        for axes in [(tiling.block, tiling.y, tiling.x)]
        for indices in itertools.product(*(range(axis.count) for axis in axes))
    ]


@pytest.mark.parametrize(
    "counts", [(1, 1, 1), (1, 32, 32), (3, 7, 5), (2, 1, 700), (1, 3, 1100), (5, 40, 40), (1, 1, 6000), (2, 9, 513), (1, 600, 2)]
)
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", ["ulx3s-85f", "icebreaker"])
def test_blocks_cover_every_position_once(counts: tuple[int, int, int], dense: bool, name: str) -> None:
    config = preset(name)
    n, h, w = counts
    gap = 0 if dense else 3
    row, out_row = w * 2 + gap, w * 3 + gap
    axes = [Axis(n, h * row, h * out_row), Axis(h, row, out_row), Axis(w, 2, 3)]
    tilings = cut_positions(axes, Work(9, 4), config)
    found = sorted(position for tiling in tilings for position in positions(tiling))
    expected = [
        (i * h * row + j * row + k * 2, i * h * out_row + j * out_row + k * 3)
        for i, j, k in itertools.product(range(n), range(h), range(w))
    ]
    assert found == sorted(expected)
    assert all(tiling.positions <= config.accumulator_depth for tiling in tilings)
    assert all(axis.count <= 4095 for tiling in tilings for axis in (tiling.x, tiling.y, tiling.block))
    # Images are listed if they cannot be merged; anything else is at most a block loop and a remainder an axis.
    assert len(tilings) <= 2 * n + 4


def test_rows_of_the_compact_engine_are_long() -> None:
    """Its rows take four cycles at least, so that of two short axes the longer is inside; elsewhere the order does not
    matter."""
    axes = [Axis(6, 100, 50), Axis(2, 4, 4)]
    (tiling,) = cut_positions(axes, Work(9, 4), preset("icebreaker"))
    assert (tiling.x, tiling.y) == (Axis(6, 100, 50), Axis(2, 4, 4))
    (tiling, *_) = cut_positions(axes, Work(9, 4), CONFIG)
    assert tiling.x == Axis(2, 4, 4)
    # Rows of five are long enough, and 25 of them are five equal blocks.
    (tiling,) = cut_positions([Axis(25, 320, 448), Axis(5, 64, 64)], Work(16, 16), preset("icebreaker"))
    assert (tiling.x, tiling.y) == (Axis(5, 64, 64), Axis(5, 320, 448))
    assert tiling.block == Axis(5, 1600, 2240)


@pytest.mark.parametrize("count", [1, 5, 4095, 4096, 4097, 8191, 10_007, 32_768])
def test_chunks_beyond_the_count_field_are_all_covered(count: int) -> None:
    inner, outer, apart = split_chunks(count)
    assert inner <= 4095
    assert outer <= 4095
    covered = {repeat * apart + chunk for repeat in range(outer) for chunk in range(inner)}
    assert covered == set(range(count))


def test_kernel_rows_share_a_chunk_when_they_fit() -> None:
    assert kernel_rows_together(10, 4, 12, CONFIG) == 2  # bytes 0 to 3 and 12 to 15
    assert kernel_rows_together(10, 5, 12, CONFIG) == 1
    assert kernel_rows_together(3, 40, 40, CONFIG) == 3  # the kernel is as wide as the image
    assert kernel_rows_together(3, 20, 40, CONFIG) == 1
    assert kernel_rows_together(2, 1, 3, CONFIG) == 2


def divided(sums: np.ndarray, taps: int) -> np.ndarray:
    """C's ``(s ± n/2) / n``, which truncates: the reference kernels' average."""
    return np.where(sums > 0, (sums + taps // 2) // taps, -((-sums + taps // 2) // taps))


def test_the_average_is_a_division_half_away_from_zero() -> None:
    """Every window up to 4096 taps at every sum where the rounding changes, one less and one more; small windows at
    every sum."""
    halves = 2 * np.arange(-128, 128) + 1
    for taps in range(1, 4097):
        multiplier, shift = average_multiplier(taps)
        assert 1 << 30 <= multiplier < 1 << 31
        assert -31 <= shift <= 6
        if taps <= 16:
            sums = np.arange(-128 * taps, 127 * taps + 1)
        else:
            edges = halves * taps // 2
            sums = np.concatenate([edges - 1, edges, edges + 1, [-128 * taps, 127 * taps, -1, 0, 1]])
            sums = np.clip(sums, -128 * taps, 127 * taps)
        assert np.array_equal(requantize(sums, multiplier, shift, Rounding.SINGLE), divided(sums, taps)), taps


def test_the_average_is_exact_for_the_largest_windows() -> None:
    generator = np.random.default_rng(3)
    for taps in [*generator.integers(4097, 1 << 19, 200).tolist(), 1 << 19]:
        halves = (2 * np.arange(-128, 128, dtype=np.int64) + 1) * taps // 2
        sums = np.clip(np.concatenate([halves - 1, halves, halves + 1]), -128 * taps, 127 * taps)
        multiplier, shift = average_multiplier(taps)
        assert np.array_equal(requantize(sums, multiplier, shift, Rounding.SINGLE), divided(sums, taps)), taps


@pytest.mark.parametrize(
    ("outputs", "window", "stride", "before", "size"),
    [(5, 3, 1, 1, 5), (3, 9, 2, 4, 5), (4, 2, 2, 0, 8), (3, 4, 3, 1, 7)],
)
def test_windows_are_clipped_piece_by_piece(outputs: int, window: int, stride: int, before: int, size: int) -> None:
    found = {
        clipped.first + i: (clipped.start + i * clipped.step, clipped.taps)
        for clipped in clip_windows(outputs, window, stride, before, size)
        for i in range(clipped.count)
    }
    for output in range(outputs):
        valid = [p for p in range(output * stride - before, output * stride - before + window) if 0 <= p < size]
        assert found[output] == (valid[0], len(valid))
    assert len(found) == outputs


def written(operations: list[Operation], lanes: int) -> list[tuple[int, int]]:
    """``(source, destination)`` of every byte that VECTORs of one source move."""
    moved = []
    for o in operations:
        for y, x, g in itertools.product(range(o["y_count"]), range(o["x_count"]), range(o["group_count"])):
            width = o["last_lanes"] if g == o["group_count"] - 1 else lanes
            source = o["source"] + y * o["y_step"] + x * o["x_step"] + g * o["group_step"]
            target = o["destination"] + y * o["y_step_out"] + x * o["x_step_out"] + g * o["group_step"]
            moved += [(source + lane, target + lane) for lane in range(width)]
    return moved


@pytest.mark.parametrize(
    ("counts", "run"), [((), 40_000), ((5000,), 3), ((2, 3, 4), 5), ((3, 4200), 2), ((1, 1, 7), 9), ((2, 3, 4, 5), 1)]
)
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("lanes", [1, 8])
def test_vectors_move_every_byte_once_whatever_the_counts(counts: tuple[int, ...], run: int, gap: int, lanes: int) -> None:
    config = CONFIG.replace(requantize_lanes=lanes)
    spans: list[Span] = []
    step, out = run + gap, run
    for count in reversed(counts):
        spans.insert(0, Span(count, (step, 0, out)))
        step, out = step * count + gap, out * count
    if step >= 1 << 19:
        pytest.skip("longer than the largest memory")
    operations = vectors((7, 0, 11), spans, run, {"sources": 1}, config)
    for operation in operations:
        operation.encode()
    expected = []
    for indices in itertools.product(*(range(count) for count in counts)):
        source = 7 + sum(i * span.steps[0] for i, span in zip(indices, spans, strict=True))
        target = 11 + sum(i * span.steps[2] for i, span in zip(indices, spans, strict=True))
        expected += [(source + byte, target + byte) for byte in range(run)]
    assert sorted(written(operations, lanes)) == sorted(expected)


def test_dense_fills_are_one_instruction_of_full_lanes() -> None:
    (operation,) = fill(100, 24, -5, CONFIG, [Span(4, (0, 0, 24))])
    assert (operation["group_count"], operation["last_lanes"], operation["x_count"]) == (12, 8, 1)
    assert operation["bias"] == -5
