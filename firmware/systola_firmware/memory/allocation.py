"""Addresses in the activation memory by lifetime.

Two buffers may share bytes when no layer needs both. Placing buffers one after the other, each at the lowest address
that is free over its whole lifetime, finds every packing for *some* order of the buffers; so the search is over orders:
largest first and a few other rules, then seeded random changes of the best order, until one fits.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from systola_firmware.errors import DoesNotFit

#: Random changes that are tried before a model is refused.
ATTEMPTS = 3000


@dataclass(frozen=True)
class Buffer:
    """``size`` bytes that are needed from step ``first`` to step ``last``, both inclusive."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


def _first_fit(order: Sequence[Buffer]) -> tuple[dict[str, int], int]:
    """Put each buffer at the lowest free address, in order. Return the addresses and the end of the highest."""
    taken: list[tuple[int, int, Buffer]] = []
    starts: dict[str, int] = {}
    for buffer in order:
        address = 0
        for start, end, other in taken:  # sorted by start
            if not buffer.meets(other) or end <= address:
                continue
            if start - address >= buffer.size:
                break
            address = end
        starts[buffer.name] = address
        taken.append((address, address + buffer.size, buffer))
        taken.sort(key=lambda entry: entry[:2])
    return starts, max((end for _, end, _ in taken), default=0)


def busiest_step(buffers: Sequence[Buffer]) -> tuple[int, int]:
    """The step that needs most bytes, and how many: no packing can use less."""
    steps = sorted({buffer.first for buffer in buffers}) or [0]
    load = {step: sum(b.size for b in buffers if b.first <= step <= b.last) for step in steps}
    step = max(steps, key=lambda candidate: load[candidate])
    return step, load[step]


def allocate(buffers: Sequence[Buffer], capacity: int, step_names: Mapping[int, str] | None = None) -> dict[str, int]:
    """Start address of every buffer, such that buffers needed at the same step never overlap.

    Sizes are used as they are: sizes that are multiples of some alignment give addresses that are, too. Deterministic.
    Raises :class:`DoesNotFit` with the bytes needed and, from ``step_names``, the layer that needs most.
    """
    step, bound = busiest_step(buffers)
    where = (step_names or {}).get(step, "")
    if bound > capacity:
        raise DoesNotFit("activation memory", bound, capacity, where=where)
    orders = [
        sorted(buffers, key=lambda b: (-b.size, b.first)),
        sorted(buffers, key=lambda b: (-b.size * (b.last - b.first + 1), b.first)),
        sorted(buffers, key=lambda b: (b.first - b.last, -b.size)),
        sorted(buffers, key=lambda b: (b.first, -b.size)),
        sorted(buffers, key=lambda b: (-b.last, -b.size)),
    ]
    results = [(*_first_fit(order), order) for order in orders]
    starts, end, order = min(results, key=lambda result: result[1])
    generator = random.Random(0)
    for _ in range(ATTEMPTS):
        if end <= capacity:
            return starts
        changed = list(order)
        changed.insert(generator.randrange(len(changed)), changed.pop(generator.randrange(len(changed))))
        new_starts, new_end = _first_fit(changed)
        if new_end <= end:  # if equal too: a better order may be found from an equally good one
            starts, end, order = new_starts, new_end, changed
    if end <= capacity:
        return starts
    raise DoesNotFit("activation memory", end, capacity, where=where)
