# amaranth: UnusedElaboratable=no
"""CompactMatmulUnit with its two memories against the instruction's loops: shapes, stalls on all ports, throughput, errors."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from systola_firmware.config import PRESETS
from systola_firmware.isa import ErrorCode, Opcode, Operation
from systola_hdl.compact.activation_memory import CompactActivationMemory
from systola_hdl.compact.matmul_unit import CompactMatmulUnit
from systola_hdl.compact.single_port_memory import SinglePortMemory
from systola_hdl.compact.weight_memory import CompactWeightMemory
from systola_sim.blocks.matmul_unit import matmul_jobs

CONFIG = PRESETS["icebreaker"].replace(activation_bytes=1024, weight_bytes=2048 + 1024, program_words=64, accumulator_depth=32)
LOOPS = ("x", "y", "k0", "k1", "k2", "group", "block")
EVENTS = ("array_busy", "wait_weights", "wait_activations", "wait_post")


def fill(banks: list[SinglePortMemory], content: np.ndarray) -> None:
    for index, bank in enumerate(banks):
        bank.data.init = content.view("<u2")[index::2].tolist()


class Bench(Elaboratable):
    """The unit and its memories, filled."""

    def __init__(self, seed: int) -> None:
        self.unit = CompactMatmulUnit(CONFIG)
        self.activation, self.weight = CompactActivationMemory(CONFIG), CompactWeightMemory(CONFIG)
        rng = np.random.default_rng(seed)
        corners = np.array([-128, 127, -1, 0], dtype=np.int8)
        self.activations = rng.integers(-128, 128, CONFIG.activation_bytes, dtype=np.int8)
        self.weights = rng.integers(-128, 128, (CONFIG.weight_words, CONFIG.weight_word_bytes), dtype=np.int8)
        for values in (self.activations, self.weights.reshape(-1)):
            chosen = rng.random(values.shape) < 0.3
            values[chosen] = rng.choice(corners, int(chosen.sum()))
        fill(self.activation.banks, self.activations)
        fill(self.weight.banks, self.weights.reshape(-1))

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.unit, m.submodules.activation, m.submodules.weight = self.unit, self.activation, self.weight
        connect(m, self.unit.activation, self.activation.read_stream)
        connect(m, self.unit.weights, self.weight.read_loader)
        return m


@dataclass
class Outcome:
    """What happened, in cycles where a name says so."""

    halves: list[np.ndarray] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    errors: list[ErrorCode] = field(default_factory=list)
    events: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in EVENTS})


def run(
    bench: Bench,
    operations: list[Operation],
    *,
    competition: Callable[[], bool] = lambda: False,
    drain_pause: Callable[[], int] = lambda: 0,
    start_pause: Callable[[], int] = lambda: 0,
    cycles: int = 20_000,
) -> Outcome:
    """Execute; ``competition`` says each cycle whether another client takes a memory, the pauses are before each position that is
    drained and before each push of the sequencer."""
    outcome, unit = Outcome(), bench.unit
    control, drain = unit.control, unit.drain
    halves = [operation["x_count"] * operation["y_count"] for operation in operations for _ in range(jobs(operation))]

    async def push(ctx: object) -> None:
        for operation in operations:
            for index, word in enumerate(operation.encode()[1:]):
                await ctx.tick().repeat(start_pause() + 1)
                ctx.set(control.word_valid, 1)
                ctx.set(control.word, word)
                ctx.set(control.word_index, index)
                await ctx.tick()
                ctx.set(control.word_valid, 0)
            await ctx.tick().repeat(start_pause() + 1)
            assert not ctx.get(control.busy)
            ctx.set(control.start, 1)
            ctx.set(control.opcode, operation.opcode)
            await ctx.tick()
            ctx.set(control.start, 0)
            for _ in range(cycles):
                assert ctx.get(control.busy)
                done = ctx.get(control.done)
                await ctx.tick()
                if done:
                    break

    async def take(ctx: object) -> None:
        for positions in halves:
            columns = []
            while not ctx.get(drain.full):
                await ctx.tick()
            for position in range(positions):
                await ctx.tick().repeat(drain_pause() + 1)
                ctx.set(drain.position, position)
                ctx.set(drain.valid, 1)
                while not ctx.get(drain.ready):
                    await ctx.tick()
                await ctx.tick()
                ctx.set(drain.valid, 0)
                for _ in range(unit.drain_latency - 1):
                    await ctx.tick()
                assert ctx.get(drain.data_valid)
                columns.append([ctx.get(value) for value in drain.data])
            outcome.halves.append(np.array(columns, dtype=np.uint32).astype(np.int32))
            ctx.set(drain.release, 1)
            await ctx.tick()
            ctx.set(drain.release, 0)

    async def compete(ctx: object) -> None:
        clients = (bench.activation.write, bench.activation.read_post, bench.weight.fetch, bench.weight.read_post)
        while True:  # writes have an empty mask
            for client in clients:
                ctx.set(client.valid, competition())
            await ctx.tick()

    async def watch(ctx: object) -> None:
        for cycle in range(cycles):
            values = {name: ctx.get(getattr(unit, name)) for name in EVENTS}
            assert sum(values.values()) <= 1
            for name, value in values.items():
                if value:
                    outcome.events[name].append(cycle)
            if ctx.get(control.error):
                outcome.errors.append(ErrorCode(ctx.get(control.error_code)))
            if ctx.get(control.done):
                outcome.done.append(cycle)
            if len(outcome.halves) == len(halves) or (outcome.errors and cycle % 64 == 63):
                return
            await ctx.tick()
        raise AssertionError(f"still running after {cycles} cycles")

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    for process in (push, take, compete):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    return outcome


def jobs(operation: Operation) -> int:
    return operation["block_count"] * operation["group_count"]


def check(bench: Bench, operations: list[Operation], outcome: Outcome) -> None:
    expected = [half for operation in operations for half in matmul_jobs(CONFIG, operation, bench.activations, bench.weights)]
    assert not outcome.errors
    assert len(outcome.done) == len(operations)
    assert len(outcome.halves) == len(expected)
    for found, half in zip(outcome.halves, expected, strict=True):
        np.testing.assert_array_equal(found, half)
    vectors = sum(int(np.prod([operation[f"{loop}_count"] for loop in LOOPS])) for operation in operations)
    assert len(outcome.events["array_busy"]) == vectors


def matmul(source: int, weights: int, diagonal: int = 0, recurrent: int = 0, **loops: tuple[int, int]) -> Operation:
    """A MATMUL; each loop is (count, step), (1, 0) if not given."""
    fields = {"source": source, "weights": weights, "diagonal": diagonal, "recurrent": recurrent}
    for loop in LOOPS:
        fields[f"{loop}_count"], fields[f"{loop}_step"] = loops.get(loop, (1, 0))
    return Operation(Opcode.MATMUL, fields)


def random_matmul(rng: random.Random) -> Operation:
    """Any loops that stay inside the memories."""
    while True:
        loops = {loop: (rng.choice((1, 1, 2, 3)), rng.randint(-40, 60)) for loop in LOOPS}
        loops["x"] = (rng.choice((1, 2, 3, 5, 9)), rng.randint(-3, 20))
        loops["y"] = (rng.choice((1, 1, 2, 3)), rng.randint(-3, 20))
        reach = [(count - 1) * step for count, step in loops.values()]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
        source = rng.randrange(CONFIG.activation_bytes)
        diagonal = rng.randrange(2)
        tiles = loops["k0"][0] * loops["k1"][0] * loops["k2"][0] * loops["group"][0]
        words = tiles if diagonal else tiles * CONFIG.tile_words
        vectors = tiles * loops["block"][0] * loops["x"][0] * loops["y"][0]
        if source + low >= 0 and source + high < CONFIG.activation_bytes and words < CONFIG.weight_words and vectors < 160:
            return matmul(source, rng.randint(0, CONFIG.weight_words - words), diagonal, **loops)


@pytest.mark.parametrize("stalls", [0, 0.1, 0.4])
def test_random_instructions(stalls: float) -> None:
    rng = random.Random(f"compact {stalls}")
    bench = Bench(rng.randrange(1 << 32))
    operations = [random_matmul(rng) for _ in range(16)]
    pauses = (0, 0, 0, 1, 3, 9) if stalls else (0,)
    outcome = run(
        bench,
        operations,
        competition=lambda: rng.random() < stalls,
        drain_pause=lambda: rng.choice(pauses),
        start_pause=lambda: rng.choice(pauses),
    )
    check(bench, operations, outcome)


def test_pointwise_convolution() -> None:
    """Passes of 20 positions in rows of 5: what is lost is the drains' pauses and the longer way to a new group."""
    bench = Bench(7)
    layer = matmul(4, 1, x=(5, 16), y=(4, 80), k0=(16, 4), group=(3, 0))
    outcome = run(bench, [layer], drain_pause=lambda: 7)
    check(bench, [layer], outcome)
    busy, walker = outcome.events["array_busy"], bench.unit
    print(busy[-1] - busy[0] + 1, 3 * 16 * 20, {k: len(v) for k, v in outcome.events.items()}, outcome.done)
    bench = Bench(8)
    layer = matmul(4, 1, 1, x=(5, 16), y=(4, 80), k0=(3, 4), k1=(3, 40), group=(8, 0))
    outcome = run(bench, [layer], drain_pause=lambda: 7)
    check(bench, [layer], outcome)
    busy, walker = outcome.events["array_busy"], bench.unit
    print(busy[0], busy[-1] - busy[0] + 1, 8 * 9 * 20, {k: len(v) for k, v in outcome.events.items()}, outcome.done)
