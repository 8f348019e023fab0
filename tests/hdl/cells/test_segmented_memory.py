# amaranth: UnusedElaboratable=no
"""SegmentedMemory against a list, for depths that split in every way."""

from __future__ import annotations

import random

import pytest
from support.benches.memory_bench import run_against_list

from systola_hdl.cells.segmented_memory import SegmentedMemory, segment_depths


@pytest.mark.parametrize(
    ("depth", "smallest", "expected"),
    [
        (8704, 512, [8192, 512]),
        (4096, 512, [4096]),
        (34, 512, [34]),
        (1, 512, [1]),
        (1000, 512, [512, 488]),
        (7000, 512, [4096, 2048, 512, 344]),
        (13, 1, [8, 4, 1]),
        (13, 4, [8, 4, 1]),
        (14, 8, [8, 6]),
    ],
)
def test_depths(depth: int, smallest: int, expected: list[int]) -> None:
    assert segment_depths(depth, smallest) == expected


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        SegmentedMemory(0)
    with pytest.raises(ValueError, match="smallest must be a power of two, not 3"):
        SegmentedMemory(8, smallest=3)


@pytest.mark.parametrize(("depth", "smallest"), [(2, 512), (13, 1), (13, 4), (14, 8), (16, 4), (34, 512)])
def test_against_list(depth: int, smallest: int) -> None:
    rng = random.Random(depth)
    dut = SegmentedMemory(depth, smallest=smallest)
    words = [rng.getrandbits(32) for _ in range(depth)]
    dut.fill(words)
    run_against_list(dut, words, 32, 60 * depth, rng)
