# amaranth: UnusedElaboratable=no
"""AddressGenerator against nested loops: several kinds of nest, several addresses, pauses, rows without bubbles."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from support.benches.simulate import simulator_of

from systola_hdl.compact.address_generator import AddressGenerator, Nest

#: Seven loops and one address, as MATMUL has them.
DEEP = (Nest((0,), tuple((entry,) for entry in range(1, 8))),)
#: Two kinds of nest over three addresses: taps that move the first alone, and elements that move all by the same step.
WIDE = (
    Nest((0, 1, 2), ((3, None, None), (4, None, None), (5, 5, 5), (6, 7, 8), (9, 10, 11))),
    Nest((2, None, None), ((3, None, None), (9, None, None))),
    Nest((0, 2, 1), ((5, 5, 5), (6, 8, 7), (9, 11, 10))),
)
Words = dict[int, tuple[int, bool]]
Item = tuple[tuple[int | None, ...], int, int]


def random_nest(rng: random.Random, nest: Nest, most: int) -> tuple[Words, list[Item]]:
    """Words by entry (and whether they are low ones), and the items of the nest: addresses, first and last flags."""
    counts = [rng.choice((1, 1, 2, 3, 5)) for _ in nest.loops]
    while math.prod(counts) > most:
        counts[rng.randrange(len(counts))] = 1
    steps = {entry: rng.randrange(-(1 << 10), 1 << 10) for row in nest.loops for entry in row if entry is not None}
    bases = {entry: rng.randrange(1 << 16) for entry in nest.bases if entry is not None}
    words: Words = {entry: ((step & 0xFFFFF) | rng.getrandbits(12) << 20, True) for entry, step in (steps | bases).items()}
    for row, count in zip(nest.loops, counts, strict=True):
        words[row[0]] = ((steps[row[0]] & 0xFFFFF) << 12 | count, False)
    items = []
    for indices in itertools.product(*(range(count) for count in reversed(counts))):
        index = indices[::-1]
        addresses = []
        for number, base in enumerate(nest.bases):
            moved = sum(i * steps[row[number]] for i, row in zip(index, nest.loops, strict=True) if row[number] is not None)
            addresses.append(None if base is None else bases[base] + moved)
        first = sum((i == 0) << level for level, i in enumerate(index))
        last = sum((i == count - 1) << level for level, (i, count) in enumerate(zip(index, counts, strict=True)))
        items.append((tuple(addresses), first, last))
    return words, items


def run(
    dut: AddressGenerator, jobs: list[tuple[int, Words, list[Item]]], rng: random.Random, ready: float = 1.0
) -> list[list[int]]:
    """Check every item; the cycles in which they were taken."""
    taken: list[list[int]] = []

    async def bench(ctx: object) -> None:
        cycle, item = 0, dut.o.payload
        for kind, words, items in jobs:
            ctx.set(dut.nest, kind)
            ctx.set(dut.words.valid, 1)
            for entry, (word, low) in words.items():
                ctx.set(dut.words.payload, {"entry": entry, "word": word, "low": low})
                await ctx.tick()
                cycle += 1
            ctx.set(dut.words.valid, 0)
            ctx.set(dut.start, 1)
            await ctx.tick()
            cycle += 1
            ctx.set(dut.start, 0)
            loops = len(dut.nests[kind].loops)
            beyond = (1 << dut.levels) - (1 << loops)
            taken.append([])
            for addresses, first, last in items:
                while True:
                    ctx.set(dut.o.ready, rng.random() < ready)
                    valid, accepted = ctx.get(dut.o.valid), ctx.get(dut.o.ready)
                    if valid:
                        for number, expected in enumerate(addresses):
                            if expected is not None:
                                assert ctx.get(item.address[number]) == (expected + (1 << 19)) % (1 << 20) - (1 << 19)
                        assert (ctx.get(item.first), ctx.get(item.last)) == (first | beyond, last | beyond)
                    await ctx.tick()
                    cycle += 1
                    if valid and accepted:
                        taken[-1].append(cycle)
                        break
                    assert cycle < 20_000
            ctx.set(dut.o.ready, 1)
            for _ in range(rng.randrange(3)):
                assert not ctx.get(dut.o.valid)
                await ctx.tick()
                cycle += 1

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return taken


@pytest.mark.parametrize("ready", [1.0, 0.4])
@pytest.mark.parametrize("all_ahead", [True, False])
@pytest.mark.parametrize("nests", [DEEP, WIDE], ids=["deep", "wide"])
def test_random_nests(nests: tuple[Nest, ...], all_ahead: bool, ready: float) -> None:
    rng = random.Random(f"{len(nests)} {ready}")
    jobs = []
    for _ in range(12):
        kind = rng.randrange(len(nests))
        jobs.append((kind, *random_nest(rng, nests[kind], 100)))
    run(AddressGenerator(nests, all_ahead=all_ahead), jobs, rng, ready)


def test_rows_follow_each_other() -> None:
    """A row as long as making the next takes is followed at once; a shorter one by what is missing."""
    dut = AddressGenerator(DEEP)
    for count in (1, dut.row_cycles(1) - 1, dut.row_cycles(1), dut.row_cycles(2), dut.row_cycles(6)):
        words: Words = {0: (0, True)} | dict.fromkeys(range(1, 8), (2, False))
        words[1] = (1 << 12 | count, False)
        items = [
            ((i[-1],), sum((x == 0) << n for n, x in enumerate(i[::-1])), _last(i, count))
            for i in itertools.product(*[range(2)] * 6, range(count))
        ]
        (taken,) = run(dut, [(0, words, items)], random.Random(0))
        for number, (before, after) in enumerate(itertools.pairwise(taken)):
            row, index = divmod(number + 1, count)
            stepped = (row ^ (row - 1)).bit_length() if index == 0 else 0
            assert after - before == (max(1, dut.row_cycles(stepped) - count + 1) if stepped else 1)


def _last(indices: tuple[int, ...], count: int) -> int:
    return sum((i == (count if n == 0 else 2) - 1) << n for n, i in enumerate(indices[::-1]))


@pytest.mark.parametrize(
    ("bases", "loops", "message"),
    [
        ((0,), ((1,), (None,)), "address 0"),
        ((0, 1), ((2, None), (3,)), "as many addresses"),
        ((0, 1), ((2, 2), (3, None)), "loops around it"),
        ((0, 1, 2), ((3, None, 3), (4, 5, 6)), "come before"),
        ((0, 1), ((2, 3), (4, 4)), "one step"),
    ],
)
def test_bad_nests(bases: tuple[int, ...], loops: tuple[tuple[int | None, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nest(bases, loops)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="2 to 8 loops, not 1 and 1"):
        AddressGenerator([Nest((0,), ((1,),))])
    with pytest.raises(ValueError, match="needs a nest"):
        AddressGenerator([])
