# amaranth: UnusedElaboratable=no
"""Credits and CreditQueue: never more taken than there are, every entry used, order, the promised rate, arguments."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from support.benches.simulate import simulator_of

from systola_hdl.common.credit_queue import CreditQueue, Credits


@pytest.mark.parametrize("count", [2, 5, 8])
def test_places(count: int) -> None:
    rng = random.Random(count)
    dut = Credits(count)
    most = 0

    async def use(ctx: Any) -> None:
        nonlocal most
        taken = previous = 0
        for cycle in range(600):
            gives = bool(taken) and rng.random() < (0.2, 0.8)[cycle // 100 % 2]
            free, empty = ctx.get(dut.free), ctx.get(dut.empty)
            assert not (empty and taken)
            assert empty or taken or previous
            assert free or taken + 2 > count or previous + 2 > count
            takes = bool(free) and rng.random() < 0.9
            ctx.set(dut.take, takes)
            ctx.set(dut.give, gives)
            previous, taken = taken, taken + takes - gives
            most = max(most, taken)
            assert taken <= count
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(use)
    simulator.run()
    assert most == count


@pytest.mark.parametrize(("pipeline", "stall"), [(0, 0.0), (1, 0.5), (4, 0.0), (5, 0.8)])
def test_queue(pipeline: int, stall: float) -> None:
    """Items that enter a pipeline as credits are taken leave in order, at one a cycle if nothing stalls."""
    rng = random.Random(pipeline)
    dut = CreditQueue(16, 8)
    items = [rng.getrandbits(16) for _ in range(200)]
    found: list[tuple[int, int]] = []

    async def produce(ctx: Any) -> None:
        left = deque(items)
        under_way: deque[int | None] = deque([None] * pipeline)
        while left or any(item is not None for item in under_way):
            takes = bool(left and ctx.get(dut.free) and rng.random() >= stall / 4)
            ctx.set(dut.take, takes)
            under_way.append(left.popleft() if takes else None)
            item = under_way.popleft()
            ctx.set(dut.i.valid, item is not None)
            ctx.set(dut.i.payload, rng.getrandbits(16) if item is None else item)
            await ctx.tick()
        ctx.set(dut.take, 0)
        ctx.set(dut.i.valid, 0)

    async def consume(ctx: Any) -> None:
        cycle = 0
        while len(found) < len(items):
            ready = rng.random() >= stall
            ctx.set(dut.o.ready, ready)
            _, _, valid, item = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                found.append((cycle, item))
            cycle += 1
            assert cycle < 4000

    simulator = simulator_of(dut)
    simulator.add_testbench(produce, background=True)
    simulator.add_testbench(consume)
    simulator.run()
    assert [item for _, item in found] == items
    if stall == 0:
        assert found[0][0] == pipeline + dut.latency
        assert found[-1][0] - found[0][0] == len(items) - 1


def test_rejects_a_single_place() -> None:
    with pytest.raises(ValueError, match="count must be at least 2, not 1"):
        Credits(1)
