"""Streamer: which vector goes when, and what the array is told about it."""

from __future__ import annotations

import itertools
import random

import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import ErrorCode
from systola_firmware.spec.presets import PRESETS
from systola_hdl.common.layouts import STREAM_LOOPS
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer

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
    ends = set(itertools.accumulate(len(vectors(start)) for start in starts))

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
        cycle = tiles = told = 0
        free = AccumulatorBuffer.count
        held = None
        before: tuple[bool, bool] = (False, False)  # a pass began, an instruction ended
        while len(delivered) < len(expected) or len(done) < len(starts):
            assert cycle < 5000
            loaded = tiles < 8 // CONFIG.row_groups and (not stalls or rng.random() < 0.3)
            freed = free < AccumulatorBuffer.count and (not stalls or rng.random() < 0.2)
            tiles, free = tiles + loaded, free + freed
            ctx.set(dut.tile_loaded, loaded)
            ctx.set(dut.half_freed, freed)
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
            told += waits[0]
            assert (ctx.get(dut.pass_start), ctx.get(dut.done)) == before
            before = (False, False)
            valid, address = ctx.get(dut.activation.valid), ctx.get(dut.activation.address)
            assert held is None or (valid and held == address)  # neither falls before the transfer
            held = address if valid and not ctx.get(dut.activation.ready) else None
            if valid and held is None:
                found, first, control = expected[len(issued)]
                assert address == found
                job_first = bool(first and control >> 1 & 1)
                tiles, free = tiles - first, free - job_first
                assert tiles >= 0
                assert free >= 0
                answers[cycle + Streamer.latency] = address
                issued.append(cycle)
                if len(issued) in ends:
                    done.append(cycle)
                before = (first, len(issued) in ends)
            assert not ctx.get(dut.error)
            await ctx.tick()
            cycle += 1
        assert told == len(issued)

    simulator = simulator_of(dut)
    simulator.add_testbench(offer, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert delivered == expected
    assert len(done) == len(starts)
    # No position comes again too early, nor a tile; without stalls, not later than they must, and a job follows at
    # once.
    number, groups = 0, CONFIG.row_groups
    for start in starts:
        positions = start["counts"]["x"] * start["counts"]["y"]
        tiles = start["counts"]["k0"] * start["counts"]["k1"] * start["counts"]["k2"]
        job_before = None
        for _ in range(start["counts"]["group"] * start["counts"]["block"]):
            job = issued[number : number + positions * tiles]
            gaps = [after - before for before, after in zip(job, job[positions:], strict=False)]
            assert all(gap >= AccumulatorBuffer.shortest_pass for gap in gaps)
            assert all(after - before >= groups for before, after in zip(job[::positions], job[positions::positions], strict=False))
            if not stalls:
                assert gaps == [max(positions, AccumulatorBuffer.shortest_pass, groups)] * len(gaps)
                assert job_before in (None, job[0] - max(1, groups - positions + 1))
            number, job_before = number + positions * tiles, job[-1]


@pytest.mark.parametrize("seed", range(4))
def test_time_steps(seed: int) -> None:
    """A recurrent block begins after the step before it, be that long ago; what came before its instruction is
    forgotten."""
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
    every = [vector for start in starts for vector in vectors(start)]
    swaps = [first for _, first, _ in every]
    jobs = [first and bool(control >> 1 & 1) for _, first, control in every]
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
        owed_tiles, owed_halves, before = 2, 0, False
        issued = steps = given = blocks = 0  # steps: since the instruction began; given, blocks: of the instruction
        for _ in range(1500):
            instruction, block = begins[issued]
            recurrent = starts[instruction]["tag"]
            # Steps may come early, and while other instructions run, any number.
            step = rng.random() < 0.1 and (not recurrent or given < blocks + 2)
            ctx.set(dut.step_done, step)
            # Weights and halves are never what is missing.
            ctx.set(dut.tile_loaded, owed_tiles > 0)
            ctx.set(dut.half_freed, owed_halves > 0)
            owed_tiles, owed_halves = max(owed_tiles - 1, 0), max(owed_halves - 1, 0)
            blocked = recurrent and bool(block) and steps < block
            if ctx.get(dut.activation.valid):
                assert not blocked
                owed_tiles, owed_halves = owed_tiles + swaps[issued], owed_halves + jobs[issued]
                issued += 1
                if block == 0:  # it was decided in the cycle before, whose step counts
                    steps, given, blocks = before, before, 0
                blocks += block is not None
                if issued == len(begins):
                    return
            waited += ctx.get(dut.wait_step)
            steps, given, before = steps + step, given + step, step
            await ctx.tick()
        raise AssertionError("a step was lost")

    simulator = simulator_of(dut)
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
        ctx.set(dut.tile_loaded, not bad_weights)
        ctx.set(dut.bad_weights, bad_weights)
        await ctx.tick().until(dut.start.ready)
        ctx.set(dut.start.valid, 0)
        ctx.set(dut.tile_loaded, 0)
        for _ in range(30):
            if ctx.get(dut.error):
                codes.append(ErrorCode(ctx.get(dut.error_code)))
            issued.append(ctx.get(dut.activation.valid))
            assert not ctx.get(dut.done)
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert codes == [code]
    assert sum(issued) == good
