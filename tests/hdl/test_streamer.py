"""Streamer: which vector goes when, and what the array is told about it."""

from __future__ import annotations

import itertools
import random

import pytest
from amaranth.sim import Simulator

from systola_firmware.config import PRESETS
from systola_firmware.isa import ErrorCode
from systola_hdl.accumulators import AccumulatorBuffer
from systola_hdl.streamer import STREAM_LOOPS, Streamer

CONFIG = PRESETS["tiny-8x4"].replace(activation_bytes=4096)
Nest = dict[str, object]


def nest(source: int, *, recurrent: bool = False, **loops: tuple[int, int]) -> Nest:
    full = {loop: loops.get(loop, (1, 0)) for loop in STREAM_LOOPS}
    return {
        "counts": {n: c for n, (c, _) in full.items()},
        "steps": {n: [s] for n, (_, s) in full.items()},
        "base": [source],
        "tag": recurrent,
    }


def vectors(start: Nest) -> list[tuple[int, bool, int]]:
    """Address, swap and control (valid, first, pass_last, job_last) of every vector."""
    counts = [start["counts"][loop] for loop in STREAM_LOOPS]
    found = []
    for index in itertools.product(*map(range, counts)):
        last = [i == count - 1 for i, count in zip(index, counts, strict=True)]
        address = start["base"][0] + sum(i * start["steps"][loop][0] for i, loop in zip(index, STREAM_LOOPS, strict=True))
        first = not any(index[2:5])
        found.append((address, not any(index[5:]), 1 | first << 1 | all(last[5:]) << 2 | all(last[2:]) << 3))
    return found


@pytest.mark.parametrize("stalls", [False, True], ids=["free", "stalls"])
def test_order_and_rules(stalls: bool) -> None:
    rng = random.Random(stalls)
    starts = [
        nest(100, x=(3, 5), y=(2, 30), k0=(2, 8), k1=(2, 64), k2=(2, 200), group=(2, 1), block=(2, 300)),
        nest(4095, x=(1, 0), k0=(5, -8)),
        nest(0, x=(2, 8), k0=(4, 8), group=(2, 0)),
        nest(0, x=(3, 8), k0=(3, 8)),
        nest(7, group=(3, 1), block=(2, 8)),
    ]
    expected = [vector for start in starts for vector in vectors(start)]
    dut = Streamer(CONFIG)
    issued: list[int] = []
    delivered: list[tuple[int, bool, int]] = []
    done: list[int] = []

    async def offer(ctx: object) -> None:
        for start in starts:
            ctx.set(dut.start.payload, start)
            ctx.set(dut.start.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.start.ready)
            ctx.set(dut.start.valid, 0)

    async def bench(ctx: object) -> None:
        answers: dict[int, int] = {}
        cycle, shadow = 0, False
        while len(delivered) < len(expected):
            assert cycle < 5000
            shadow = shadow or not stalls or rng.random() < 0.5
            ctx.set(dut.shadow_full, shadow)
            ctx.set(dut.half_free, not stalls or rng.random() < 0.5)
            ctx.set(dut.activation.ready, not stalls or rng.random() < 0.6)
            due = cycle in answers
            ctx.set(dut.activation.data_valid, due)
            ctx.set(dut.activation.data.as_value(), answers.get(cycle, 0))
            if ctx.get(dut.control.valid):
                delivered.append((ctx.get(dut.vector.as_value()), bool(ctx.get(dut.swap)), ctx.get(dut.control.as_value())))
            assert ctx.get(dut.control.valid) == due
            events = (dut.issued, dut.wait_weights, dut.wait_activations, dut.wait_post, dut.wait_step)
            waits = [ctx.get(signal) for signal in events]
            assert sum(waits) <= 1
            if waits[0]:
                address, first, control = expected[len(issued)]
                assert ctx.get(dut.activation.address) == address
                assert ctx.get(dut.pass_start) == first
                assert not first or shadow
                job_first = first and control >> 1 & 1
                assert ctx.get(dut.claim) == job_first
                assert not job_first or ctx.get(dut.half_free)
                answers[cycle + Streamer.latency] = address
                issued.append(cycle)
                shadow = shadow and not first
            else:
                assert not ctx.get(dut.pass_start)
                assert not ctx.get(dut.claim)
            if ctx.get(dut.done):
                done.append(len(issued))
                assert issued[-1] == cycle or issued[-1] == cycle - 1 or issued[-2] == cycle - 1
            assert not ctx.get(dut.error)
            await ctx.tick()
            cycle += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(offer, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert delivered == expected
    assert len(done) == len(starts)
    # No position comes again too early; without stalls, not later than it must, and a job follows at once.
    number = 0
    for start in starts:
        positions = start["counts"]["x"] * start["counts"]["y"]
        tiles = start["counts"]["k0"] * start["counts"]["k1"] * start["counts"]["k2"]
        job_before = None
        for _ in range(start["counts"]["group"] * start["counts"]["block"]):
            job = issued[number : number + positions * tiles]
            gaps = [after - before for before, after in zip(job, job[positions:], strict=False)]
            assert all(gap >= AccumulatorBuffer.shortest_pass for gap in gaps)
            if not stalls:
                assert gaps == [max(positions, AccumulatorBuffer.shortest_pass)] * len(gaps)
                assert job_before in (None, job[0] - 1)
            number, job_before = number + positions * tiles, job[-1]


@pytest.mark.parametrize("seed", range(4))
def test_time_steps(seed: int) -> None:
    """A recurrent block begins after the step before it, be that long ago; what came before its instruction is forgotten."""
    rng = random.Random(seed)
    starts = [
        nest(0, recurrent=True, x=(2, 8), k0=(2, 8), group=(2, 0), block=(5, 1)),
        nest(0, x=(2, 8), group=(2, 0), block=(3, 1)),
        nest(0, recurrent=True, block=(4, 1)),
        nest(0, recurrent=True, x=(2, 1)),
        nest(0, recurrent=True, group=(3, 0), block=(3, 1)),
    ]
    # Of each vector: its instruction, and the block it begins, if any.
    begins = [
        (number, index[0] if not any(index[1:]) else None)
        for number, start in enumerate(starts)
        for index in itertools.product(*(range(start["counts"][loop]) for loop in STREAM_LOOPS))
    ]
    dut = Streamer(CONFIG)
    waited = 0

    async def offer(ctx: object) -> None:
        for start in starts:
            ctx.set(dut.start.payload, start)
            ctx.set(dut.start.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.start.ready)
            ctx.set(dut.start.valid, 0)

    async def bench(ctx: object) -> None:
        nonlocal waited
        ctx.set(dut.activation.ready, 1)
        ctx.set(dut.half_free, 1)
        ctx.set(dut.shadow_full, 1)
        issued = steps = given = blocks = 0  # steps: since the instruction began; given, blocks: of the instruction
        for _ in range(1500):
            instruction, block = begins[issued]
            recurrent = starts[instruction]["tag"]
            # Steps may come early, and while other instructions run, any number.
            step = rng.random() < 0.1 and (not recurrent or given < blocks + 2)
            ctx.set(dut.step_done, step)
            blocked = recurrent and bool(block) and steps < block
            if ctx.get(dut.issued):
                assert not blocked
                issued += 1
                if block == 0:
                    steps = given = blocks = 0
                blocks += block is not None
                if issued == len(begins):
                    return
            assert not ctx.get(dut.wait_step) or blocked
            waited += ctx.get(dut.wait_step)
            steps, given = steps + step, given + step
            await ctx.tick()
        raise AssertionError("a step was lost")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(offer, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert waited > 0


@pytest.mark.parametrize(
    ("start", "bad_weights", "code", "good"),
    [
        (nest(4096), 0, ErrorCode.ACTIVATION_ADDRESS, 0),
        (nest(4095, x=(2, 1)), 0, ErrorCode.ACTIVATION_ADDRESS, 1),
        (nest(0, y=(2, -1)), 0, ErrorCode.ACTIVATION_ADDRESS, 1),
        (nest((1 << 20) - 1, x=(2, 1)), 0, ErrorCode.ACTIVATION_ADDRESS, 0),
        (nest(0), 1, ErrorCode.WEIGHT_ADDRESS, 0),
        (nest(5000), 1, ErrorCode.WEIGHT_ADDRESS, 0),
    ],
)
def test_errors(start: Nest, bad_weights: int, code: ErrorCode, good: int) -> None:
    dut = Streamer(CONFIG)
    codes: list[ErrorCode] = []
    issued: list[int] = []

    async def bench(ctx: object) -> None:
        ctx.set(dut.start.payload, start)
        ctx.set(dut.start.valid, 1)
        ctx.set(dut.activation.ready, 1)
        ctx.set(dut.half_free, 1)
        ctx.set(dut.shadow_full, not bad_weights)
        ctx.set(dut.bad_weights, bad_weights)
        await ctx.tick().until(dut.start.ready)
        ctx.set(dut.start.valid, 0)
        for _ in range(30):
            if ctx.get(dut.error):
                codes.append(ErrorCode(ctx.get(dut.error_code)))
            issued.append(ctx.get(dut.issued))
            assert not ctx.get(dut.done)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert codes == [code]
    assert sum(issued) == good
