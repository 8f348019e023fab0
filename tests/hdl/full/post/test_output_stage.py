# amaranth: UnusedElaboratable=no
"""OutputStage: results, order and addresses when the write port stalls, the end of the memory, sustained rate."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Rounding
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.post.output_stage import OutputForm, OutputStage
from systola_sim.golden.requantize import requantize, wrap32

CONFIG = PRESETS["tiny-8x4"].replace(activation_bytes=512)
LANES = CONFIG.requantize_lanes
CORNERS = (2**31 - 1, -(2**31), 0, -1, 1)


def random_item(rng: random.Random, *, forms: bool = False) -> dict[str, Any]:
    count = rng.randint(1, LANES)
    factors = [{"multiplier": rng.randrange(1 << 30, 1 << 31), "shift": rng.choice((0, -5, 1, 6))} for _ in range(LANES)]
    rounding = rng.choice((Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP))
    if rng.random() < 0.4:  # the identity: sums with the zero point need a 33rd bit
        factors, rounding = [{"multiplier": 1 << 30, "shift": 1}] * LANES, Rounding.SINGLE
    return {
        "value": [rng.choice((*CORNERS, rng.randint(-5000, 5000))) for _ in range(LANES)],
        "bias": [rng.choice((*CORNERS, rng.randint(-5000, 5000))) for _ in range(LANES)],
        "factor": factors,
        "rounding": rounding,
        "form": rng.choice(list(OutputForm)) if forms else OutputForm.INT8,
        "address": rng.randint(0, CONFIG.activation_bytes - count),
        "count": count,
    }


def saturated(item: dict[str, Any]) -> np.ndarray:
    """The requantized values in int16."""
    return np.clip(requantized(item), -(1 << 15), (1 << 15) - 1).astype("<i2")


def result(item: dict[str, Any], zero_point: int, minimum: int, maximum: int) -> tuple[int, int, list[int]]:
    """Address, mask and masked bytes of the write."""
    if item["form"] is OutputForm.INT8:
        data = np.clip(requantized(item).astype(np.int64) + zero_point, minimum, maximum)
    else:
        data = np.split(saturated(item).view(np.int8), 2)[item["form"] is OutputForm.INT16_HIGH]
    return item["address"], (1 << item["count"]) - 1, [int(byte) & 0xFF for byte in data[: item["count"]]]


def requantized(item: dict[str, Any]) -> np.ndarray:
    value = wrap32(np.array(item["value"], np.int64) + item["bias"])
    factors = item["factor"]
    return requantize(value, [f["multiplier"] for f in factors], [f["shift"] for f in factors], item["rounding"])


@pytest.mark.parametrize("stall", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("zero_point", "minimum", "maximum"), [(-128, -128, 127), (127, -128, 127), (3, -5, 100), (0, 10, -10)])
def test_items(stall: float, zero_point: int, minimum: int, maximum: int) -> None:
    rng = random.Random(7)
    items = [random_item(rng, forms=stall == 0.5) for _ in range(200)]
    written = [item for item in items if item["form"] is not OutputForm.GATES]
    dut = OutputStage(CONFIG, write_latency=3)
    found: list[tuple[int, int, list[int]]] = []
    cycles: list[int] = []
    due: deque[dict[str, Any] | None] = deque()  # of each cycle, the item for `gates`
    gates: list[dict[str, Any]] = []

    async def produce(ctx: Any) -> None:
        ctx.set(dut.range, {"zero_point": zero_point, "minimum": minimum, "maximum": maximum})
        assert ctx.get(dut.idle)
        under_way: list[dict[str, Any] | None] = [None] * 5  # the producer's own pipeline
        left = list(items)
        while left or any(under_way):
            starts = bool(left and ctx.get(dut.free) and rng.random() >= stall / 2)
            ctx.set(dut.reserve, starts and left[0]["form"] is not OutputForm.GATES)
            under_way.append(left.pop(0) if starts else None)
            item = under_way.pop(0)
            ctx.set(dut.i.valid, item is not None)
            due.append(item if item is not None and item["form"] is OutputForm.GATES else None)
            if item is not None:
                ctx.set(dut.i.payload, item)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.reserve, 0)
        assert not ctx.get(dut.idle)
        await ctx.tick().until(dut.idle)
        assert len(found) == len(written)

    async def watch_gates(ctx: Any) -> None:
        await ctx.tick().repeat(dut.gates_latency)
        while True:
            _, _, valid, values = await ctx.tick().sample(dut.gates.valid, dut.gates.payload.as_value())
            item = due.popleft() if due else None
            assert valid == (item is not None)
            if item is not None:
                gates.append(item)
                assert values.to_bytes(2 * LANES, "little") == saturated(item).tobytes()

    async def accept(ctx: Any) -> None:
        cycle = 0
        while True:
            ready = rng.random() >= stall
            ctx.set(dut.write.ready, ready)
            port = dut.write
            _, _, valid, idle, *payload = await ctx.tick().sample(
                port.valid, dut.idle, port.address, port.mask, port.data.as_value()
            )
            cycle += 1
            assert cycle < 6000
            if cycles and cycle - cycles[-1] <= 3:
                assert not idle  # the last write cannot be read yet
            if valid and ready:
                address, mask, data = payload
                found.append((address, mask, [data >> 8 * lane & 0xFF for lane in range(LANES) if mask >> lane & 1]))
                cycles.append(cycle)

    simulator = simulator_of(dut)
    simulator.add_testbench(produce)
    simulator.add_testbench(accept, background=True)
    simulator.add_testbench(watch_gates, background=True)
    simulator.run()
    assert found == [result(item, zero_point, minimum, maximum) for item in written]
    assert len(gates) == len(items) - len(written)
    if stall == 0:
        assert cycles[-1] - cycles[0] == len(items) - 1


@pytest.mark.parametrize(
    ("address", "count", "is_outside"),
    [
        (508, 4, False),
        (509, 4, True),
        (509, 3, False),
        (511, 1, False),
        (512, 1, True),
        (-1, 1, True),
        (-1, 2, True),
        (0, 4, False),
    ],
)
def test_outside(address: int, count: int, is_outside: bool) -> None:
    """An item outside is not written, and nothing after it."""
    rng = random.Random(1)
    items = [random_item(rng) for _ in range(3)]
    items[1] |= {"address": address, "count": count}
    dut = OutputStage(CONFIG)
    writes: list[int] = []

    async def produce(ctx: Any) -> None:
        ctx.set(dut.write.ready, 1)
        for item in items:
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.reserve, 1)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.reserve, 0)
        for _ in range(30):
            _, _, valid, where = await ctx.tick().sample(dut.write.valid, dut.write.address)
            if valid:
                writes.append(where)
        assert ctx.get(dut.outside) == is_outside
        assert ctx.get(dut.idle) == (not is_outside)

    simulator = simulator_of(dut)
    simulator.add_testbench(produce)
    simulator.run()
    assert writes == [item["address"] for item in (items[:1] if is_outside else items)]


def test_direct_items() -> None:
    """They are written as they are, in order; one outside stops the queue."""
    rng = random.Random(5)
    dut = OutputStage(CONFIG)
    items = [
        {"data": [rng.randrange(256) for _ in range(LANES)], "address": rng.randrange(500), "count": rng.randint(1, LANES)}
        for _ in range(20)
    ]
    items[15] |= {"address": 510, "count": 3}
    found = []

    async def produce(ctx: Any) -> None:
        for item in items:
            ctx.set(dut.direct.payload, item)
            ctx.set(dut.direct.valid, 1)
            ctx.set(dut.reserve, 1)
            await ctx.tick()
            ctx.set(dut.direct.valid, 0)
            ctx.set(dut.reserve, 0)
            await ctx.tick().repeat(rng.randrange(1, 3))
        await ctx.tick().repeat(60)
        assert not ctx.get(dut.idle)
        assert ctx.get(dut.outside)

    async def accept(ctx: Any) -> None:
        port = dut.write
        while True:
            ready = rng.random() < 0.7
            ctx.set(port.ready, ready)
            _, _, valid, address, mask, data = await ctx.tick().sample(port.valid, port.address, port.mask, port.data.as_value())
            if valid and ready:
                found.append((address, mask, [data >> 8 * lane & 0xFF for lane in range(LANES)]))

    simulator = simulator_of(dut)
    simulator.add_testbench(produce)
    simulator.add_testbench(accept, background=True)
    simulator.run()
    assert found == [(item["address"], (1 << item["count"]) - 1, item["data"]) for item in items[:15]]


@pytest.mark.parametrize("latency", [-1])
def test_rejects_a_negative_latency(latency: int) -> None:
    with pytest.raises(ValueError, match="write_latency must not be negative, not -1"):
        OutputStage(CONFIG, write_latency=latency)
