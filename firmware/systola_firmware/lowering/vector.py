"""Element-wise layers and copies as VECTOR, and the loops of every VECTOR.

Every such operation is a nest of axes over contiguous runs of bytes. Runs that follow each other without a gap in all
operands are merged, so that a dense tensor is one long run and no lane is wasted on its channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_LIMIT, Opcode, Operation
from systola_firmware.spec.program import Placement

#: Position of the destination in :attr:`Span.steps` and in addresses: after the two operands.
DESTINATION = 2


@dataclass(frozen=True)
class Span:
    """An axis: ``count`` iterations and the steps in bytes of operand 0, operand 1 and the destination."""

    count: int
    steps: tuple[int, int, int]


Addresses = tuple[int, int, int]


def _advance(addresses: Addresses, steps: tuple[int, int, int], count: int) -> Addresses:
    a, b, d = (address + step * count for address, step in zip(addresses, steps, strict=True))
    return a, b, d


def _merge(spans: Sequence[Span], run: int, used: Sequence[int]) -> tuple[list[Span], int]:
    """Fewest axes and longest run for the same bytes; ``used`` are the operands that count."""
    merged: list[Span] = []
    for span in (s for s in spans if s.count > 1):
        if merged and all(merged[-1].steps[i] == span.count * span.steps[i] for i in used):
            merged[-1] = Span(merged[-1].count * span.count, span.steps)
        else:
            merged.append(span)
    while merged and all(merged[-1].steps[i] == run for i in used):
        run *= merged.pop().count
    return merged, run


def vectors(
    addresses: Addresses, spans: Sequence[Span], run: int, fields: Mapping[str, int], config: Config, *, merge: bool = True
) -> list[Operation]:
    """VECTOR instructions that do ``fields`` (sources, table, requantization … and taps) on runs of ``run`` bytes.

    ``merge`` must be off when operand 0 is read by taps, because a run of outputs is then not a run of its bytes.
    Counts beyond 12 bits and axes beyond two become several instructions.
    """
    sources = int(fields["sources"])
    used = [*range(sources), DESTINATION]
    if merge:
        spans, run = _merge(spans, run, used)
    else:
        spans = [span for span in spans if span.count > 1]
    longest = COUNT_LIMIT * config.requantize_lanes
    if run > longest:
        whole, rest = divmod(run, longest)
        step = (longest, longest, longest)
        result = vectors(addresses, [*spans, Span(whole, step)], longest, fields, config, merge=False)
        if rest:
            result += vectors(_advance(addresses, step, whole), spans, rest, fields, config, merge=False)
        return result
    for index, span in enumerate(spans):
        if span.count > COUNT_LIMIT:
            whole, rest = divmod(span.count, COUNT_LIMIT)
            a, b, d = (step * COUNT_LIMIT for step in span.steps)
            cut = [*spans[:index], Span(whole, (a, b, d)), Span(COUNT_LIMIT, span.steps), *spans[index + 1 :]]
            result = vectors(addresses, cut, run, fields, config, merge=False)
            if rest:
                tail = [*spans[:index], Span(rest, span.steps), *spans[index + 1 :]]
                result += vectors(_advance(addresses, span.steps, whole * COUNT_LIMIT), tail, run, fields, config, merge=False)
            return result
    # The two longest axes are loops of the instruction; each iteration of the others takes an instruction of its own.
    by_length = sorted(range(len(spans)), key=lambda i: spans[i].count)
    listed, looped = sorted(by_length[:-2]), sorted(by_length[-2:])
    one = Span(1, (0, 0, 0))
    loops = [one, one, *(spans[i] for i in looped)]
    y, x = loops[-2], loops[-1]
    lanes = config.requantize_lanes
    groups = -(-run // lanes)
    result = []
    for indices in itertools.product(*(range(spans[i].count) for i in listed)):
        start = addresses
        for i, iteration in zip(listed, indices, strict=True):
            start = _advance(start, spans[i].steps, iteration)
        result.append(
            Operation(
                Opcode.VECTOR,
                {
                    "t0_count": 1,
                    "t1_count": 1,
                    "minimum": -128,
                    "maximum": 127,
                    **fields,
                    "source": start[0] if sources >= 1 else 0,
                    "source1": start[1] if sources == 2 else 0,
                    "destination": start[DESTINATION],
                    "last_lanes": run - (groups - 1) * lanes,
                    "group_count": groups,
                    "group_step": lanes if groups > 1 else 0,
                    "x_count": x.count,
                    "x_step": x.steps[0] if sources >= 1 else 0,
                    "x_step1": x.steps[1] if sources == 2 else 0,
                    "x_step_out": x.steps[DESTINATION],
                    "y_count": y.count,
                    "y_step": y.steps[0] if sources >= 1 else 0,
                    "y_step1": y.steps[1] if sources == 2 else 0,
                    "y_step_out": y.steps[DESTINATION],
                },
            )
        )
    return result


def pixel_spans(shape: tuple[int, int, int, int], a: Placement, b: Placement, d: Placement) -> list[Span]:
    """Axes over images, rows and pixels of three placements of one shape."""
    n, h, w, _ = shape
    return [
        Span(n, (a.image_pitch, b.image_pitch, d.image_pitch)),
        Span(h, (a.row_pitch, b.row_pitch, d.row_pitch)),
        Span(w, (a.pixel_pitch, b.pixel_pitch, d.pixel_pitch)),
    ]


def reshaped(placement: Placement, shape: tuple[int, int, int, int]) -> Placement:
    """A dense placement seen under another shape of as many elements."""
    _, h, w, c = shape
    return Placement(shape, placement.address, h * w * c, w * c, c, placement.start, placement.size, placement.fill)


def is_dense(placement: Placement) -> bool:
    """Whether all elements are one run of bytes."""
    _, h, w, c = placement.shape
    return (placement.image_pitch, placement.row_pitch, placement.pixel_pitch) == (h * w * c, w * c, c)


def lower_copy(source: Placement, destination: Placement, config: Config, *, table: int = 0) -> list[Operation]:
    """Copy all elements in row-major order, whatever the two shapes, through T0 if ``table``."""
    fields = {"sources": 1, "table": table}
    if source.shape != destination.shape:
        if is_dense(source):
            source = reshaped(source, destination.shape)
        elif is_dense(destination):
            destination = reshaped(destination, source.shape)
        else:
            offsets = [placement.pixel_offsets().ravel() + placement.start for placement in (source, destination)]
            return copy_elements(offsets[0], offsets[1], fields, config)
    spans = pixel_spans(source.shape, source, source, destination)
    return vectors((source.address, source.address, destination.address), spans, source.shape[3], fields, config)


def copy_elements(
    sources: npt.NDArray[np.int64], destinations: npt.NDArray[np.int64], fields: Mapping[str, int], config: Config
) -> list[Operation]:
    """Copy each byte from its source to its destination. Bytes that are contiguous in both are copied as one run, and
    equal runs at equal distances by one instruction."""
    runs: list[tuple[int, int, int]] = []  # source, destination, bytes
    for a, d in zip(sources.tolist(), destinations.tolist(), strict=True):
        if runs and (a, d) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((a, d, 1))
    result, first = [], 0
    while first < len(runs):
        a, d, size = runs[first]
        last, step = first, (0, 0)
        if first + 1 < len(runs):
            step = (runs[first + 1][0] - a, runs[first + 1][1] - d)
        while last + 1 < len(runs) and runs[last + 1] == (runs[last][0] + step[0], runs[last][1] + step[1], size):
            last += 1
        result += vectors((a, a, d), [Span(last - first + 1, (step[0], step[0], step[1]))], size, fields, config)
        first = last + 1
    return result
