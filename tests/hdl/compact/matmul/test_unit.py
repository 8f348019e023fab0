# amaranth: UnusedElaboratable=no
"""MatmulUnit with its two memories against the instruction's loops: shapes, stalls on all ports, throughput, errors."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from support.benches.simulate import simulator_of
from support.programs.field_borders import borders

from systola_firmware.spec.isa import ErrorCode, Opcode, Operation
from systola_firmware.spec.presets import PRESETS
from systola_hdl.cells.single_port_memory import SinglePortMemory
from systola_hdl.compact.address_generator import AddressGenerator
from systola_hdl.compact.matmul.accumulators import Accumulators
from systola_hdl.compact.matmul.dot_array import DotArray
from systola_hdl.compact.matmul.unit import MatmulUnit
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.memory.weight_memory import WeightMemory
from systola_sim.blocks.matmul_unit import matmul_jobs

CONFIG = PRESETS["icebreaker"].replace(activation_bytes=1024, weight_bytes=2048 + 1024, program_words=64, accumulator_depth=32)
LOOPS = ("x", "y", "k0", "k1", "k2", "group", "block")
EVENTS = ("array_busy", "wait_weights", "wait_activations", "wait_post")


def fill(banks: list[SinglePortMemory], content: np.ndarray) -> None:
    for index, bank in enumerate(banks):
        bank.data.init = content.view("<u2")[index::2].tolist()


#: The loader reads ahead; where a block begins elsewhere, it gives up the request it had.
EXEMPT = {"unit.weights": "restart changes the address of a request that waits, and the memory keeps none that it refused"}


class Bench(Elaboratable):
    """The unit and its memories, filled."""

    def __init__(self, seed: int) -> None:
        self.unit, self.reset = MatmulUnit(CONFIG), Signal()
        self.activation, self.weight = ActivationMemory(CONFIG), WeightMemory(CONFIG)
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
        m.submodules.unit = ResetInserter(self.reset)(self.unit)
        m.submodules.activation, m.submodules.weight = self.activation, self.weight
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
    fails: int = -1,
    waits: list[int] | None = None,
    until: int | None = None,
    cycles: int = 20_000,
) -> Outcome:
    """Execute until ``until`` halves (all of them) are drained, and a little longer.

    ``competition`` says each cycle whether another client takes a memory; the pauses are before each position that is
    drained and before each push of the sequencer. Operation number ``fails`` breaks a rule: the unit is reset after it.
    ``waits`` collects how long each drain request waited.
    """
    outcome, unit = Outcome(), bench.unit
    control, drain = unit.control, unit.drain
    sound = [operation for number, operation in enumerate(operations) if number != fails]
    halves = [operation["x_count"] * operation["y_count"] for operation in sound for _ in range(jobs(operation))]

    async def push(ctx: object) -> None:
        for number, operation in enumerate(operations):
            for index, word in enumerate(operation.encode()[1:]):
                await ctx.tick().repeat(start_pause() + 1)
                ctx.set(control.words.valid, 1)
                ctx.set(control.words.payload, {"word": word, "index": index})
                await ctx.tick()
                ctx.set(control.words.valid, 0)
            await ctx.tick().repeat(start_pause() + 1)
            assert not ctx.get(control.busy)
            ctx.set(control.start, 1)
            ctx.set(control.opcode, operation.opcode)
            await ctx.tick()
            ctx.set(control.start, 0)
            for _ in range(cycles):
                assert ctx.get(control.busy)
                ended = ctx.get(control.error if number == fails else control.done)
                await ctx.tick()
                if ended:
                    break
            if number == fails:
                await ctx.tick().repeat(50)
                assert ctx.get(control.error_code) == outcome.errors[-1]
                ctx.set(bench.reset, 1)
                await ctx.tick().repeat(2)
                ctx.set(bench.reset, 0)

    async def take(ctx: object) -> None:
        for positions in halves:
            columns = []
            while not ctx.get(drain.full):
                await ctx.tick()
            for position in range(positions):
                await ctx.tick().repeat(drain_pause() + 1)
                ctx.set(drain.position, position)
                ctx.set(drain.valid, 1)
                waited = 0
                while not ctx.get(drain.ready):
                    waited += 1
                    await ctx.tick()
                if waits is not None:
                    waits.append(waited)
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
        left = 0
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
            left = 50 if len(outcome.halves) < (len(halves) if until is None else until) else left - 1
            if left == 0:
                return
            await ctx.tick()
        raise AssertionError(f"still running after {cycles} cycles")

    simulator = simulator_of(bench, {"unit": bench.unit}, unless=bench.reset, exempt=EXEMPT)
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
    operations = [random_matmul(rng) for _ in range(12)]
    pauses = (0, 0, 0, 1, 3, 9) if stalls else (0,)
    outcome = run(
        bench,
        operations,
        competition=lambda: rng.random() < stalls,
        drain_pause=lambda: rng.choice(pauses),
        start_pause=lambda: rng.choice(pauses),
    )
    check(bench, operations, outcome)


def cycles_of_rows(layer: Operation, walker: AddressGenerator) -> list[int]:
    """Cycles of the vectors from the first on, if nothing but making rows takes time."""
    cycles, now, row = [], 0, 0
    counts = [layer[f"{loop}_count"] for loop in LOOPS]
    for index in itertools.product(*(range(count) for count in reversed(counts))):
        if index[-1] == 0 and cycles:
            level = next(level for level, count in enumerate(index[::-1]) if count)
            now = max(now, row + walker.row_cycles(level))
        if index[-1] == 0:
            row = now
        cycles.append(now)
        now += 1
    return cycles


@pytest.mark.parametrize("diagonal", [0, 1])
def test_convolutions_keep_array_busy(diagonal: int) -> None:
    """Passes of 20 positions in rows of 5: only the longer way to a new group, or to a new row of taps, costs a few
    cycles."""
    bench = Bench(7)
    loops = {"k0": (3, 4), "k1": (3, 40), "group": (2, 4)} if diagonal else {"k0": (16, 4), "group": (2, 0)}
    layer = matmul(4, 1, diagonal, x=(5, 16), y=(4, 80), **loops)
    pauses = iter([1000] + [0] * 39)
    outcome = run(bench, [layer], drain_pause=lambda: next(pauses))  # both halves are full by then
    check(bench, [layer], outcome)
    busy = outcome.events["array_busy"]
    assert [cycle - busy[0] for cycle in busy] == cycles_of_rows(layer, bench.unit.streamer.generator)
    assert len(busy) / (busy[-1] + 1 - busy[0]) > 0.97
    assert outcome.done == [busy[-1] + 1]


def test_fully_connected() -> None:
    """One position: the loader, or the walker, is the limit."""
    bench = Bench(8)
    layer = matmul(2, 0, k0=(20, 4), group=(2, 0))
    outcome = run(bench, [layer])
    check(bench, [layer], outcome)
    gaps = {after - before for before, after in itertools.pairwise(outcome.events["array_busy"][:20])}
    assert gaps == {max(bench.unit.streamer.generator.row_cycles(2), CONFIG.rows + 1)}


def test_drain_pauses_the_array() -> None:
    """A drain that comes when every vector is added to old sums waits for no longer than its patience and the way to
    the array."""
    bench = Bench(9)
    layer = matmul(4, 1, x=(16, 16), y=(2, 256), k0=(8, 4), group=(4, 0))
    waits: list[int] = []
    outcome = run(bench, [layer], drain_pause=lambda: 6, waits=waits)
    check(bench, [layer], outcome)
    limit = Accumulators.patience + ActivationMemory.read_latency + DotArray.latency - 1
    assert max(waits) == limit
    paused = sum(wait == limit for wait in waits)
    assert len(outcome.events["wait_post"]) >= paused


def test_events_name_the_cause() -> None:
    layer = matmul(0, 0, x=(8, 8), k0=(4, 8), block=(4, 0))
    blocked = iter([False] * 200 + [True] * 2000)
    bench = Bench(10)
    outcome = run(bench, [layer], drain_pause=lambda: 60)
    check(bench, [layer], outcome)
    assert len(outcome.events["wait_post"]) > 500
    bench = Bench(10)
    outcome = run(bench, [layer], competition=lambda: next(blocked, False))  # four clients: 50 cycles, then 500 blocked ones
    check(bench, [layer], outcome)
    waits = outcome.events["wait_activations"] + outcome.events["wait_weights"]
    assert 450 < len(waits) < 550


def test_recurrent_instruction_stops_after_its_first_block() -> None:
    """There is no LSTM to complete a time step; one block is an instruction like any other."""
    bench = Bench(11)
    layers = [matmul(0, 0, recurrent=1, x=(8, 8), k0=(2, 8), group=(2, 0)), matmul(0, 0, recurrent=1, x=(3, 8), block=(2, 8))]
    outcome = run(bench, layers, cycles=1000, until=3)
    assert len(outcome.halves) == 3
    assert len(outcome.done) == 1
    assert len(outcome.events["array_busy"]) == 2 * 2 * 8 + 3


def broken(operation: Operation, **fields: int) -> Operation:
    return Operation(operation.opcode, dict(operation.fields) | fields)


GOOD = matmul(4, 2, x=(3, 8), k0=(2, 4))


@pytest.mark.parametrize(
    ("operation", "code", "vectors"),
    [
        *((broken(GOOD, **changes), ErrorCode.BAD_FIELD, 0) for changes, legal in borders(Opcode.MATMUL, CONFIG) if not legal),
        (broken(GOOD, x_count=11, y_count=3), ErrorCode.BAD_FIELD, 0),  # 33 of 32
        (broken(GOOD, x_count=33), ErrorCode.BAD_FIELD, 0),
        (broken(GOOD, x_count=64), ErrorCode.BAD_FIELD, 0),
        (broken(GOOD, y_count=2048), ErrorCode.BAD_FIELD, 0),
        (broken(GOOD, x_count=4095, y_count=4095), ErrorCode.BAD_FIELD, 0),
        (broken(GOOD, source=1024), ErrorCode.ACTIVATION_ADDRESS, 0),
        (broken(GOOD, source=(1 << 20) - 1), ErrorCode.ACTIVATION_ADDRESS, 0),
        (broken(GOOD, source=1000, x_count=4), ErrorCode.ACTIVATION_ADDRESS, 3),
        (broken(GOOD, source=15, x_step=-8), ErrorCode.ACTIVATION_ADDRESS, 2),
        (broken(GOOD, y_count=2, y_step=-(1 << 19)), ErrorCode.ACTIVATION_ADDRESS, 3),
        (broken(GOOD, k0_step=(1 << 19) - 1), ErrorCode.ACTIVATION_ADDRESS, 3),
        (broken(GOOD, weights=(1 << 24) - 1), ErrorCode.WEIGHT_ADDRESS, 0),
        (broken(GOOD, weights=1024), ErrorCode.WEIGHT_ADDRESS, 0),
        (broken(GOOD, weights=CONFIG.weight_words - 7), ErrorCode.WEIGHT_ADDRESS, 3),  # the second tile's last word
        (broken(GOOD, weights=CONFIG.weight_words - 7, source=2000), ErrorCode.ACTIVATION_ADDRESS, 0),
        (broken(GOOD, weights=CONFIG.weight_words, source=2000), ErrorCode.WEIGHT_ADDRESS, 0),
    ],
)
def test_errors(operation: Operation, code: ErrorCode, vectors: int) -> None:
    """The error is reported once, no vector is read after it, and after a reset the unit is as new."""
    bench, before = Bench(12), 1
    outcome = run(bench, [GOOD] * before + [operation, GOOD], fails=before)
    assert outcome.errors == [code]
    outcome.errors.clear()
    busy = outcome.events["array_busy"]
    assert len(busy) == 6 * before + vectors + 6
    del busy[6 * before : -6]
    check(bench, [GOOD] * (before + 1), outcome)


def test_exact_limits_are_no_errors() -> None:
    bench = Bench(13)
    operations = [
        matmul(0, 0, x=(32, 1)),
        matmul(0, 0, y=(32, 1)),
        matmul(1023, CONFIG.weight_words - 4, x=(8, -1), y=(4, -100)),
        matmul(1023, CONFIG.weight_words - 1, 1, x=(1, 0), k0=(2, -1023)),
        matmul(1020, CONFIG.weight_words - 4, x=(1, 0), block=(5, -7)),
    ]
    operations[3] = broken(operations[3], weights=CONFIG.weight_words - 2)
    check(bench, operations, run(bench, operations))


def test_blocks_of_the_last_tile() -> None:
    """The loader stands at the end of its memory when a block's first item already waits: that is no error."""
    blocked = iter([True] * 400)  # four clients: the first 100 cycles
    bench = Bench(14)
    operations = [matmul(0, CONFIG.weight_words - 4, block=(5, 7))]
    check(bench, operations, run(bench, operations, competition=lambda: next(blocked, False)))
