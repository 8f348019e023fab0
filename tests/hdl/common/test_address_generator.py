# amaranth: UnusedElaboratable=no
"""AddressGenerator against plain Python loops, with stalls on both sides and without."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from support.benches.simulate import simulator_of

from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.memory_ports import ADDRESS_BITS

Nest = dict[str, object]


def wrap(value: int) -> int:
    half = 1 << (ADDRESS_BITS - 1)
    return (value + half) % (2 * half) - half


def items(loops: tuple[str, ...], nest: Nest) -> Iterator[tuple[list[int], list[int], list[int], int]]:
    counts, steps, base = nest["counts"], nest["steps"], nest["base"]
    for index in itertools.product(*(range(counts[loop]) for loop in loops)):
        address = [wrap(b + sum(i * steps[loop][a] for i, loop in zip(index, loops, strict=True))) for a, b in enumerate(base)]
        last = [int(i == counts[loop] - 1) for i, loop in zip(index, loops, strict=True)]
        yield address, [int(i == 0) for i in index], last, nest.get("tag", 0)


def random_nest(rng: random.Random, loops: tuple[str, ...], addresses: int) -> Nest:
    corner = (-(1 << 19), (1 << 19) - 1, 0, 1)
    return {
        "counts": {loop: rng.choice((1, 1, 2, 3)) for loop in loops},
        "steps": {
            loop: [rng.choice(corner) if rng.random() < 0.3 else rng.randint(-50, 50) for _ in range(addresses)] for loop in loops
        },
        "base": [rng.choice((0, (1 << 20) - 1, rng.randrange(1 << 19))) for _ in range(addresses)],
        "tag": rng.randrange(4),
    }


def run(
    dut: AddressGenerator, nests: list[Nest], stall: float, rng: random.Random, *, held: bool = False
) -> tuple[list[tuple], list[int]]:
    """Feed ``nests``, collect every item and the cycle it left in; ``stall`` is the chance of a pause on either side.

    With ``held`` each nest waits for the last item of the one before; else its payload is gone when it was taken.
    """
    expected = sum(1 for nest in nests for _ in items(dut.loops, nest))
    found: list[tuple] = []
    cycles: list[int] = []

    async def feed(ctx: object) -> None:
        before = 0
        for nest in nests:
            while held and len(found) < before:
                await ctx.tick()
            before += sum(1 for _ in items(dut.loops, nest))
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(dut.start.payload, nest)
            ctx.set(dut.start.valid, 1)
            await ctx.tick().until(dut.start.ready)
            ctx.set(dut.start.valid, 0)
            if not held:
                ctx.set(dut.start.payload, random_nest(rng, dut.loops, dut.addresses))

    async def collect(ctx: object) -> None:
        cycle = 0
        while len(found) < expected:
            ready = rng.random() >= stall
            ctx.set(dut.o.ready, ready)
            _, _, valid, raw = await ctx.tick().sample(dut.o.valid, dut.o.payload.as_value())
            cycle += 1
            assert cycle < 40 * expected + 200, "no progress"
            if valid and ready:
                item = dut.item_layout.from_bits(raw)
                found.append(
                    (
                        [item.address[a] for a in range(dut.addresses)],
                        [item.first[loop] for loop in dut.loops],
                        [item.last[loop] for loop in dut.loops],
                        item.tag,
                    )
                )
                cycles.append(cycle)
        ctx.set(dut.o.ready, 1)
        for _ in range(6):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(feed)
    simulator.add_testbench(collect)
    simulator.run()
    return found, cycles


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize(
    ("loops", "addresses"), [(("x",), 1), (("y", "x"), 3), (("k", "x"), 0), (("block", "group", "k2", "k1", "k0", "y", "x"), 1)]
)
def test_items_match_loops(loops: tuple[str, ...], addresses: int, stall: float) -> None:
    rng = random.Random(f"{loops} {addresses} {stall}")
    nests = [random_nest(rng, loops, addresses) for _ in range(12)]
    found, cycles = run(AddressGenerator(loops, addresses, tag_bits=2), nests, stall, rng)
    assert found == [item for nest in nests for item in items(loops, nest)]
    if not stall:  # one item a cycle, also from nest to nest, if the nest is not too short
        expected, begin = [], 1 + AddressGenerator.latency
        for nest in nests:
            count = sum(1 for _ in items(loops, nest))
            expected += range(begin, begin + count)
            begin += max(count, AddressGenerator.shortest_nest)
        assert cycles == expected


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_a_held_payload_is_not_copied(stall: float) -> None:
    loops, rng = ("y", "x", "t"), random.Random(f"held {stall}")
    nests = [random_nest(rng, loops, 2) for _ in range(12)]
    found, _ = run(AddressGenerator(loops, 2, tag_bits=2, held=True), nests, stall, rng, held=True)
    assert found == [item for nest in nests for item in items(loops, nest)]


def test_long_count() -> None:
    nest: Nest = {"counts": {"y": 2, "x": 4095}, "steps": {"y": [5], "x": [-3]}, "base": [7]}
    found, _ = run(AddressGenerator(("y", "x")), [nest], 0.0, random.Random(1))
    assert found == list(items(("y", "x"), nest))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="different names, at least one, not \\('x', 'x'\\)"):
        AddressGenerator(("x", "x"))
    with pytest.raises(ValueError, match="addresses must not be negative, not -1"):
        AddressGenerator(("x",), -1)
