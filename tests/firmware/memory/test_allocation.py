"""Packing of buffers by lifetime."""

from __future__ import annotations

import itertools
import random

import pytest

from systola_firmware.errors import DoesNotFit
from systola_firmware.memory import allocation
from systola_firmware.memory.allocation import Buffer, allocate, busiest_step


def assert_sound(buffers: list[Buffer], starts: dict[str, int], capacity: int) -> None:
    """Inside the memory, and no two that live together overlap."""
    for buffer in buffers:
        assert 0 <= starts[buffer.name] <= capacity - buffer.size
    for a, b in itertools.combinations(buffers, 2):
        if a.meets(b):
            assert starts[a.name] + a.size <= starts[b.name] or starts[b.name] + b.size <= starts[a.name]


def test_random_lifetimes_never_overlap() -> None:
    generator = random.Random(1)
    for _ in range(100):
        buffers = []
        for index in range(generator.randint(1, 20)):
            first = generator.randint(0, 15)
            buffers.append(Buffer(str(index), 16 * generator.randint(1, 40), first, first + generator.randint(0, 5)))
        capacity = busiest_step(buffers)[1] * 13 // 10 + 64
        assert_sound(buffers, allocate(buffers, capacity), capacity)


def test_a_packing_that_largest_first_misses_is_found() -> None:
    # The first layers of MobileNetV1-0.25 at 96 × 96 in 64 KiB: largest first needs 66,660 bytes.
    sizes = (28_240, 20_000, 18_432, 38_416, 9_216)
    buffers = [Buffer(str(step), size, step, step + 1) for step, size in enumerate(sizes)]
    assert_sound(buffers, allocate(buffers, 65_536), 65_536)


def test_a_packing_that_no_simple_order_finds_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = [(160, 3, 5), (48, 2, 3), (176, 6, 6), (144, 2, 5), (32, 4, 6), (160, 4, 4), (112, 5, 6), (128, 5, 8)]
    buffers = [Buffer(str(index), *life) for index, life in enumerate(lives)]
    assert_sound(buffers, allocate(buffers, 576), 576)
    monkeypatch.setattr(allocation, "ATTEMPTS", 0)
    with pytest.raises(DoesNotFit):
        allocate(buffers, 576)


def test_what_cannot_fit_names_the_layer_and_the_bytes() -> None:
    buffers = [Buffer("a", 100, 0, 1), Buffer("b", 200, 1, 2), Buffer("c", 50, 2, 3)]
    with pytest.raises(DoesNotFit, match=r"layer conv 1 needs 300 bytes of activation memory but there are 299"):
        allocate(buffers, 299, {0: "layer conv 0", 1: "layer conv 1", 2: "layer conv 2"})


def test_addresses_keep_the_alignment_of_the_sizes() -> None:
    buffers = [Buffer(str(i), 16 * (i + 1), i, i + 2) for i in range(6)]
    assert all(start % 16 == 0 for start in allocate(buffers, 1024).values())
