"""The activation streamer against the loops of MATMUL: order, flags, waiting for weights, halves and the memory, errors."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import cocotb
from bench_support import DelayLine, StreamRule, bench_config, pack, start
from cocotb.triggers import FallingEdge, ReadOnly

from systola_firmware.isa import ErrorCode
from systola_hdl.accumulators import AccumulatorBuffer
from systola_hdl.streamer import STREAM_LOOPS, Streamer
from systola_hdl.systolic_array import VECTOR_CONTROL

CONFIG = bench_config()
START = Streamer(CONFIG).nest.start_layout
EVENTS = ("issued", "wait_weights", "wait_activations", "wait_post")
HALVES = 2


@dataclass(frozen=True)
class Vector:
    """What the array must get."""

    address: int
    swap: bool
    control: int
    job_first: bool
    position: int
    last: bool  # of the instruction


@dataclass(frozen=True)
class Instruction:
    """Base address, and (count, step) of each loop."""

    base: int
    loops: dict[str, tuple[int, int]]

    def payload(self) -> int:
        return pack(
            START,
            {
                "counts": {name: count for name, (count, _) in self.loops.items()},
                "steps": {name: [step] for name, (_, step) in self.loops.items()},
                "base": [self.base],
            },
        )

    def vectors(self) -> list[Vector]:
        vectors = []
        for index in itertools.product(*(range(self.loops[name][0]) for name in STREAM_LOOPS)):
            at = dict(zip(STREAM_LOOPS, index, strict=True))
            address = self.base + sum(at[name] * self.loops[name][1] for name in STREAM_LOOPS)
            first = {name: at[name] == 0 for name in STREAM_LOOPS}
            last = {name: at[name] == self.loops[name][0] - 1 for name in STREAM_LOOPS}
            first_tile, last_tile = (all(flags[name] for name in ("k2", "k1", "k0")) for flags in (first, last))
            pass_first, pass_last = (flags["y"] and flags["x"] for flags in (first, last))
            control = {"valid": 1, "first": first_tile, "pass_last": pass_last, "job_last": pass_last and last_tile}
            position = at["y"] * self.loops["x"][0] + at["x"]
            job_first = pass_first and first_tile
            vectors.append(Vector(address, pass_first, pack(VECTOR_CONTROL, control), job_first, position, all(last.values())))
        return vectors


def random_instruction(rng: random.Random) -> Instruction:
    """Any loops whose addresses stay inside the memory."""
    while True:
        loops = {name: (rng.choice((1, 1, 2)), rng.randint(-100, 100)) for name in STREAM_LOOPS}
        loops["x"] = (rng.choice((1, 2, 3, 7)), rng.randint(-9, 9))
        instruction = Instruction(rng.randrange(CONFIG.activation_bytes), loops)
        if all(0 <= vector.address < CONFIG.activation_bytes for vector in instruction.vectors()):
            return instruction


def data_at(address: int) -> int:
    """The word a memory of pseudo-random bytes has at ``address``."""
    return random.Random(address).getrandbits(8 * CONFIG.rows)


class Bench:
    """Surroundings of the streamer; ``stall`` is the chance that the memory, a tile or a free half is late."""

    def __init__(self, dut: Any, rng: random.Random, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.issued: list[int] = []  # cycles
        self.leaving: list[tuple[int, int, int]] = []  # vector, swap, control
        self.events: list[str | None] = []  # a cycle
        self.done: list[int] = []
        self.errors: list[tuple[int, ErrorCode]] = []

    async def run(self, instructions: list[Instruction], *, tiles: int | None = None, watchdog: int = 8000) -> None:
        """Until every instruction is done or one has failed. ``tiles``: weights that exist, any number unless told."""
        dut, rng = self.dut, self.rng
        expected = [vector for instruction in instructions for vector in instruction.vectors()]
        await start(dut, start__valid=0, activation__ready=0, activation__data_valid=0, shadow_full=0, bad_weights=0, half_free=0)
        line, rule = DelayLine(Streamer.latency), StreamRule("activation")
        waiting = list(instructions)
        offered = shadow_full = False
        halves, passes, quiet = HALVES, 0, 0
        for cycle in range(watchdog):
            # A tile that is loaded and a half that is free stay so; an instruction once offered stays.
            offered = bool(waiting) and (offered or rng.random() >= self.stall)
            shadow_full = shadow_full or (passes != tiles and rng.random() >= self.stall)
            if halves < HALVES and (self.stall == 0 or rng.random() < 0.05):  # draining takes long
                halves += 1
            ready = rng.random() >= self.stall
            answer = line.take()
            dut.start__valid.value = offered
            dut.start__payload.value = waiting[0].payload() if offered else rng.getrandbits(START.size)
            dut.activation__ready.value = ready
            dut.activation__data_valid.value = answer is not None
            dut.activation__data.value = rng.getrandbits(8 * CONFIG.rows) if answer is None else answer
            dut.shadow_full.value = shadow_full
            dut.bad_weights.value = passes == tiles
            dut.half_free.value = halves > 0
            await ReadOnly()
            address, valid = int(dut.activation__address.value), bool(dut.activation__valid.value)
            rule.check(valid, ready, address)
            line.put(data_at(address) if valid and ready else None)
            high = [name for name in EVENTS if getattr(dut, name).value]
            assert len(high) <= 1
            self.events.append(high[0] if high else None)
            assert (high == ["issued"]) == (valid and ready)
            pass_start, claim = bool(dut.pass_start.value), bool(dut.claim.value)
            if valid and ready:
                vector = expected[len(self.issued)]
                assert (address, pass_start, claim) == (vector.address, vector.swap, vector.job_first)
                self.issued.append(cycle)
            assert not pass_start or shadow_full
            assert not claim or halves > 0
            passes, halves = passes + pass_start, halves - claim
            shadow_full = shadow_full and not pass_start
            control = int(dut.control.value)
            assert bool(control & 1) == (answer is not None)
            if answer is not None:
                self.leaving.append((int(dut.vector.value), int(dut.swap.value), control))
            else:
                assert not dut.swap.value
            if offered and dut.start__ready.value:
                waiting.pop(0)
                offered = False
            if dut.done.value:
                self.done.append(cycle)
            if dut.error.value:
                self.errors.append((len(self.issued), ErrorCode(int(dut.error_code.value))))
            await FallingEdge(dut.clk)
            quiet = quiet + 1 if self.errors or len(self.leaving) == len(expected) else 0
            if quiet == 40:
                break
        else:
            raise AssertionError(f"still running after {watchdog} cycles")
        self._check(expected)

    def _check(self, expected: list[Vector]) -> None:
        sent = expected[: len(self.issued)]
        assert self.leaving == [(data_at(vector.address), int(vector.swap), vector.control) for vector in sent]
        assert self.done == [cycle + 1 for cycle, vector in zip(self.issued, sent, strict=True) if vector.last]
        assert self.errors or len(sent) == len(expected)
        previous: dict[int, int] = {}
        for cycle, vector in zip(self.issued, sent, strict=True):
            if vector.job_first:
                previous = {}
            earlier = previous.get(vector.position, cycle - AccumulatorBuffer.shortest_pass)
            assert cycle - earlier >= AccumulatorBuffer.shortest_pass, f"position {vector.position} came again too early"
            previous[vector.position] = cycle


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def random_loops_with_stalls(dut: Any) -> None:
    for seed, stall in enumerate((0.0, 0.3, 0.7)):
        rng = random.Random(seed)
        bench = Bench(dut, rng, stall)
        await bench.run([random_instruction(rng) for _ in range(12)])
        assert not bench.errors
        if stall:
            assert set(bench.events) == {None, *EVENTS}


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def long_passes_have_no_bubble(dut: Any) -> None:
    loops = dict.fromkeys(STREAM_LOOPS, (2, 3)) | {"x": (5, 1)}
    bench = Bench(dut, random.Random(3), 0.0)
    await bench.run([Instruction(100, loops), Instruction(200, loops)])
    vectors = 2 * 5 * 2 ** (len(STREAM_LOOPS) - 1)
    assert bench.issued == list(range(bench.issued[0], bench.issued[0] + vectors))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def short_jobs_of_one_tile_have_no_pause(dut: Any) -> None:
    """Positions come again in another half of the accumulators: the shortest pass is a rule within a job only."""
    loops = dict.fromkeys(STREAM_LOOPS, (1, 0)) | {"block": (3, 9), "group": (2, 4)}
    bench = Bench(dut, random.Random(6), 0.0)
    await bench.run([Instruction(100, loops)])
    assert bench.issued == list(range(bench.issued[0], bench.issued[0] + 6))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def stops_at_an_address_outside(dut: Any) -> None:
    for base, step in ((CONFIG.activation_bytes - 3, 1), (2, -1)):
        loops = dict.fromkeys(STREAM_LOOPS, (1, 0)) | {"x": (9, step)}
        bench = Bench(dut, random.Random(4), 0.3)
        await bench.run([Instruction(50, loops | {"x": (4, 1)}), Instruction(base, loops)])
        assert bench.errors == [(4 + 3, ErrorCode.ACTIVATION_ADDRESS)]


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def stops_at_weights_that_do_not_exist(dut: Any) -> None:
    loops = dict.fromkeys(STREAM_LOOPS, (1, 0)) | {"x": (6, 1), "k1": (4, 7)}
    bench = Bench(dut, random.Random(5), 0.3)
    await bench.run([Instruction(50, loops)], tiles=3)
    assert bench.errors == [(3 * 6, ErrorCode.WEIGHT_ADDRESS)]
