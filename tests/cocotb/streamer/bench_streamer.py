"""The activation streamer against the loops of MATMUL: order, flags, waiting for weights, halves and the memory,
errors."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import cocotb
from bench_support import DelayLine, bench_config, pack, start
from cocotb.triggers import FallingEdge, ReadOnly
from support.benches.stream_rules import StreamRule

from systola_firmware.spec.isa import ErrorCode
from systola_hdl.common.layouts import STREAM_LOOPS
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer
from systola_hdl.full.matmul.systolic_array import VECTOR_CONTROL

CONFIG = bench_config()
START = Streamer(CONFIG).nest.start_layout
EVENTS = ("issued", "wait_weights", "wait_activations", "wait_post")
AHEAD = 3  # tiles loaded before they are wanted, at most


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
        await start(
            dut,
            start__valid=0,
            activation__ready=0,
            activation__data_valid=0,
            tile_loaded=0,
            bad_weights=0,
            half_freed=0,
            step_done=0,
        )
        line, rule = DelayLine(Streamer.latency), StreamRule("activation")
        waiting = list(instructions)
        offered = False
        halves, loaded, passes, quiet = AccumulatorBuffer.count, 0, 0, 0
        told = 0  # vectors that went, as the events tell
        before = (False, False)  # of the cycle before: a pass began, an instruction ended
        for cycle in range(watchdog):
            offered = bool(waiting) and (offered or rng.random() >= self.stall)  # once offered it stays
            tile_loaded = loaded != tiles and loaded < passes + AHEAD and rng.random() >= self.stall
            half_freed = halves < AccumulatorBuffer.count and (self.stall == 0 or rng.random() < 0.05)  # draining takes long
            loaded, halves = loaded + tile_loaded, halves + half_freed
            ready = rng.random() >= self.stall
            answer = line.take()
            dut.start__valid.value = offered
            dut.start__payload.value = waiting[0].payload() if offered else rng.getrandbits(START.size)
            dut.activation__ready.value = ready
            dut.activation__data_valid.value = answer is not None
            dut.activation__data.value = rng.getrandbits(8 * CONFIG.rows) if answer is None else answer
            dut.tile_loaded.value = tile_loaded
            dut.bad_weights.value = loaded == tiles and not tile_loaded
            dut.half_freed.value = half_freed
            await ReadOnly()
            address, valid = int(dut.activation__address.value), bool(dut.activation__valid.value)
            rule.check(valid, ready, address)
            line.put(data_at(address) if valid and ready else None)
            high = [name for name in EVENTS if getattr(dut, name).value]
            assert len(high) <= 1
            self.events.append(high[0] if high else None)
            told += high == ["issued"]
            assert (bool(dut.pass_start.value), bool(dut.done.value)) == before
            before = (False, False)
            if valid and ready:
                vector = expected[len(self.issued)]
                assert address == vector.address
                self.issued.append(cycle)
                passes, halves = passes + vector.swap, halves - vector.job_first
                before = (vector.swap, vector.last)
            assert passes <= loaded
            assert halves >= 0
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
        assert told == len(self.issued)
        self._check(expected)

    def _check(self, expected: list[Vector]) -> None:
        sent = expected[: len(self.issued)]
        assert self.leaving == [(data_at(vector.address), int(vector.swap), vector.control) for vector in sent]
        assert self.done == [cycle + 1 for cycle, vector in zip(self.issued, sent, strict=True) if vector.last]
        assert self.errors or len(sent) == len(expected)
        previous: dict[int, int] = {}
        starts = [cycle for cycle, vector in zip(self.issued, sent, strict=True) if vector.swap]
        assert all(after - before >= CONFIG.row_groups for before, after in itertools.pairwise(starts)), "a tile came too early"
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
async def short_jobs_of_one_tile_wait_for_weights_only(dut: Any) -> None:
    """Positions come again in another half of the accumulators: the shortest pass is a rule within a job only."""
    loops = dict.fromkeys(STREAM_LOOPS, (1, 0)) | {"block": (3, 9), "group": (2, 4), "x": (CONFIG.row_groups - 1, 1)}
    bench = Bench(dut, random.Random(6), 0.0)
    await bench.run([Instruction(100, loops)])
    starts = bench.issued[:: CONFIG.row_groups - 1]
    assert starts == list(range(starts[0], starts[0] + 6 * CONFIG.row_groups, CONFIG.row_groups))


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
