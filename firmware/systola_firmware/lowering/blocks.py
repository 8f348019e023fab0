"""Cutting a layer's output positions into blocks that fit one half of the accumulators.

The positions of a layer are a nest of axes (images, rows, columns of pixels), each with a step in the source and one in
the destination. Axes that are contiguous in both are merged first. Then the innermost axis stays whole in a block, and
the axis around it (or the innermost itself if it is too long) is cut into equal blocks; a remainder takes a second
instruction. How large a block should be is a compromise, which the cost model decides: with large blocks there are
fewer jobs; with small ones the last drain, which overlaps nothing, is shorter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from systola_firmware.lowering.cost import COMPACT_ROW, array_cycles, drain_cycles, pair_cycles
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_LIMIT

#: How many numbers of blocks are compared, from the smallest possible number on.
CANDIDATES = 32


@dataclass(frozen=True)
class Axis:
    """``count`` positions, ``source`` bytes apart in the input and ``destination`` bytes apart in the output."""

    count: int
    source: int = 0
    destination: int = 0

    def times(self, factor: int, count: int) -> Axis:
        """An axis of ``count`` positions whose steps are ``factor`` times those of this axis."""
        return Axis(count, self.source * factor, self.destination * factor)


ONE = Axis(1)


@dataclass(frozen=True)
class Tiling:
    """Loops of one MATMUL and its POST, and the byte offsets at which they start."""

    source: int
    destination: int
    x: Axis
    y: Axis
    block: Axis

    @property
    def positions(self) -> int:
        """Positions of a block."""
        return self.x.count * self.y.count


@dataclass(frozen=True)
class Work:
    """What decides the cost of a block size: ``passes`` over the array, ``groups`` of output channels."""

    passes: int
    groups: int
    within: int = 1  #: positions that one unit of the cut axis has
    repeats: int = 1  #: how often the cut axis is walked


def merge_axes(axes: Sequence[Axis]) -> list[Axis]:
    """The same positions in the same order with as few axes as possible, outermost first; axes of one position
    vanish."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.count == 1:
            continue
        if merged:
            outer = merged[-1]
            if (outer.source, outer.destination) == (axis.count * axis.source, axis.count * axis.destination):
                merged[-1] = Axis(outer.count * axis.count, axis.source, axis.destination)
                continue
        merged.append(axis)
    return merged


def _block_cost(rows: int, cut: Axis, work: Work, config: Config) -> tuple[int, int]:
    """A key to compare block sizes: predicted cycles with ``rows`` units of the cut axis in a block, then a preference
    for larger blocks."""
    full, remainder = divmod(cut.count, rows)
    cycles = 0
    last = 0
    for jobs, units in ((full, rows), (1, remainder)):
        if units:
            last = drain_cycles(units * work.within, config)
            row, _ = _rows(work.within, units, config)
            busy = max(array_cycles(work.passes, units * work.within, config, row=row), last)
            cycles += jobs * busy * work.groups * work.repeats + pair_cycles(config)
    return cycles + last, -rows


def _rows(within: int, units: int, config: Config) -> tuple[int, int]:
    """Counts of x and y for ``within`` positions of the inner axis and ``units`` of the one around it, in either order.

    The outer axis becomes the inner loop x if the inner axis would be a loop of one iteration or, in a compact engine,
    rows that are too short.
    """
    if within == 1 or (config.compact and within < min(units, COMPACT_ROW)):
        return units, within
    return within, units


def cut_positions(axes: Sequence[Axis], work: Work, config: Config) -> list[Tiling]:
    """Tilings that cover every position exactly once, none larger than ``accumulator_depth``; steps and counts fit
    their fields."""
    limit = min(config.accumulator_depth, COUNT_LIMIT)
    merged = merge_axes(axes) or [ONE]
    if len(merged) > 1 and merged[-1].count <= limit:
        within, cut, outer = merged[-1], merged[-2], merged[:-2]
    else:
        within, cut, outer = ONE, merged[-1], merged[:-1]
    most = min(limit // within.count, cut.count)
    fewest_blocks = -(-cut.count // most)
    sizes = {-(-cut.count // blocks) for blocks in range(fewest_blocks, min(fewest_blocks + CANDIDATES, cut.count + 1))}
    work = replace(work, within=within.count, repeats=math.prod(axis.count for axis in outer))
    rows = min(sizes, key=lambda size: _block_cost(size, cut, work, config))

    full, remainder = divmod(cut.count, rows)
    parts = [(0, rows, cut.times(rows, full))]
    if remainder:
        parts.append((full * rows, remainder, ONE))
    tilings = []
    for first, count, blocks in parts:
        # The instruction has one loop over blocks: it takes the longer of the cut axis and the axis outside it.
        loops = [axis for axis in (*outer, blocks) if axis.count > 1] or [ONE]
        loops.sort(key=lambda axis: axis.count)
        *listed, block = loops
        x, y = within, Axis(count, cut.source, cut.destination)
        if _rows(within.count, count, config) != (within.count, count):
            x, y = y, within
        for indices in itertools.product(*(range(axis.count) for axis in listed)):
            source = first * cut.source + sum(i * axis.source for i, axis in zip(indices, listed, strict=True))
            destination = first * cut.destination + sum(i * axis.destination for i, axis in zip(indices, listed, strict=True))
            for start in range(0, block.count, COUNT_LIMIT):
                count_of_blocks = min(COUNT_LIMIT, block.count - start)
                tilings.append(
                    Tiling(
                        source + start * block.source,
                        destination + start * block.destination,
                        x,
                        y,
                        Axis(count_of_blocks, block.source, block.destination),
                    )
                )
    return tilings
