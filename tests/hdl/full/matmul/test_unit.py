"""MatmulUnit with its two memories against the instruction's loops: shapes, stalls, throughput, errors."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect
from support.benches.simulate import simulator_of
from support.programs.field_borders import borders

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer
from systola_hdl.full.matmul.unit import MatmulUnit
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_sim.blocks.matmul_unit import matmul_jobs

SMALL = {"activation_bytes": 1024, "weight_bytes": 8192, "accumulator_depth": 32}
CONFIGS = {
    "4x4": PRESETS["tiny-4x4"].replace(**SMALL),
    "8x4": PRESETS["tiny-8x4"].replace(**SMALL),
    "16x8": PRESETS["ulx3s-85f"].replace(**SMALL),
    "16x16": PRESETS["wide-16x16"].replace(**SMALL),
    "8x4, two registers a hop": PRESETS["tiny-8x4"].replace(**SMALL, hop_registers=2),
    "16x8, two rows a cycle": PRESETS["ulx3s-85f"].replace(**SMALL, weight_rows_per_cycle=2, hop_registers=2),
}
LOOPS = ("x", "y", "k0", "k1", "k2", "group", "block")


class Bench(Elaboratable):
    """The unit and its memories, filled."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.config = config
        self.unit, self.activation, self.weight = MatmulUnit(config), ActivationMemory(config), WeightMemory(config)
        corners = np.array([-128, 127, -1, 0], dtype=np.int8)
        self.activations = rng.integers(-128, 128, config.activation_bytes, dtype=np.int8)
        self.weights = rng.integers(-128, 128, (config.weight_words, config.weight_word_bytes), dtype=np.int8)
        for values in (self.activations, self.weights.reshape(-1)):
            chosen = rng.random(values.shape) < 0.3
            values[chosen] = rng.choice(corners, int(chosen.sum()))
        for index, lane in enumerate(self.activation.lanes):
            lane.data.init = [int(v) & 0xFF for v in self.activations[index :: config.rows]]
        for index, bank in enumerate(self.weight.banks):
            bank.fill(self.weights[:, 4 * index : 4 * index + 4].copy().view("<u4").reshape(-1).tolist())

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.unit, m.submodules.activation, m.submodules.weight = self.unit, self.activation, self.weight
        connect(m, self.unit.activation, self.activation.read_stream)
        connect(m, self.unit.weights, self.weight.read_loader)
        return m


@dataclass
class Outcome:
    """What happened, cycle by cycle where a name says so."""

    halves: list[np.ndarray] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    errors: list[tuple[ErrorCode, int]] = field(default_factory=list)  # code, instructions done before
    events: dict[str, list[int]] = field(default_factory=dict)  # cycles in which an event was high


def run(
    bench: Bench,
    operations: list[Operation],
    *,
    competition: Callable[[], bool] = lambda: False,
    drain_pause: Callable[[], int] = lambda: 0,
    step_done: Callable[[], bool] = lambda: False,
    cycles: int = 6000,
) -> Outcome:
    """Execute; ``competition`` says each cycle whether the post-processor takes a port, ``drain_pause`` the drain's
    wait, ``step_done`` whether a time step is complete."""
    outcome, unit = Outcome(), bench.unit
    jobs = [operation["block_count"] * operation["group_count"] for operation in operations]
    positions = [operation["x_count"] * operation["y_count"] for operation in operations]
    names = ("array_busy", "wait_weights", "wait_activations", "wait_post", "wait_step")
    outcome.events = {name: [] for name in names}

    async def offer(ctx: object) -> None:
        port = unit.control.instruction
        for operation in operations:
            words = sum(word << 32 * index for index, word in enumerate(operation.encode()[1:]))
            ctx.set(port.payload, {"opcode": operation.opcode, "words": words})
            ctx.set(port.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(port.ready)
            ctx.set(port.valid, 0)

    async def drain(ctx: object) -> None:
        port = unit.drain
        for count, length in zip(jobs, positions, strict=True):
            for _ in range(count):
                while not ctx.get(port.full):
                    await ctx.tick()
                await ctx.tick().repeat(drain_pause() + 1)
                raw = []
                for address in range(length + AccumulatorBuffer.read_latency):
                    ctx.set(port.address, min(address, length - 1))
                    ctx.set(port.release, address == length - 1)
                    if address >= AccumulatorBuffer.read_latency:
                        raw.append(ctx.get(port.data.as_value()))
                    await ctx.tick()
                half = b"".join(value.to_bytes(4 * bench.config.columns, "little") for value in raw)
                outcome.halves.append(np.frombuffer(half, dtype="<i4").reshape(length, -1))

    async def compete(ctx: object) -> None:
        while True:
            ctx.set(bench.activation.read_post.valid, competition())
            ctx.set(bench.weight.read_post.valid, competition())
            ctx.set(unit.step_done, step_done())
            await ctx.tick()

    async def watch(ctx: object) -> None:
        signals = [getattr(unit, name) for name in names]
        control = unit.control
        for cycle in range(cycles):
            values = [ctx.get(signal) for signal in signals]
            assert sum(values) <= 1
            for name, value in zip(names, values, strict=True):
                if value:
                    outcome.events[name].append(cycle)
            assert len(outcome.done) == len(operations) or outcome.errors or cycle < 4 or ctx.get(control.busy)
            if ctx.get(control.error):
                outcome.errors.append((ErrorCode(ctx.get(control.error_code)), len(outcome.done)))
            if ctx.get(control.done):
                outcome.done.append(cycle)
            if len(outcome.halves) == sum(jobs) or (outcome.errors and cycle % 64 == 63):
                return
            await ctx.tick()
        raise AssertionError(f"still running after {cycles} cycles")

    simulator = simulator_of(bench, {"unit": bench.unit})
    simulator.add_testbench(offer, background=True)
    simulator.add_testbench(drain, background=True)
    simulator.add_testbench(compete, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    return outcome


def check(bench: Bench, operations: list[Operation], outcome: Outcome) -> None:
    expected = [half for operation in operations for half in matmul_jobs(bench.config, operation, bench.activations, bench.weights)]
    assert not outcome.errors
    assert len(outcome.done) == len(operations)
    assert len(outcome.halves) == len(expected)
    for found, half in zip(outcome.halves, expected, strict=True):
        np.testing.assert_array_equal(found, half)
    vectors = sum(int(np.prod([operation[f"{loop}_count"] for loop in LOOPS])) for operation in operations)
    assert len(outcome.events["array_busy"]) == vectors


def matmul(source: int, weights: int, diagonal: int = 0, **loops: tuple[int, int]) -> Operation:
    """A MATMUL; each loop is (count, step), (1, 0) if not given."""
    fields = {"source": source, "weights": weights, "diagonal": diagonal}
    for loop in LOOPS:
        fields[f"{loop}_count"], fields[f"{loop}_step"] = loops.get(loop, (1, 0))
    return Operation(Opcode.MATMUL, fields)


def random_matmul(rng: random.Random, config: Config) -> Operation:
    """Any loops that stay inside the memories."""
    while True:
        loops = {loop: (rng.choice((1, 1, 2, 3)), rng.randint(-40, 60)) for loop in LOOPS}
        loops["x"] = (rng.choice((1, 2, 3, 5, 9)), rng.randint(-3, 20))
        loops["y"] = (rng.choice((1, 1, 2, 3)), rng.randint(-3, 20))
        reach = [(count - 1) * step for count, step in loops.values()]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
        source = rng.randrange(config.activation_bytes)
        diagonal = rng.randrange(2)
        tiles = loops["k0"][0] * loops["k1"][0] * loops["k2"][0] * loops["group"][0]
        words = -(-tiles // config.weight_rows_per_cycle) if diagonal else tiles * config.tile_words
        vectors = tiles * loops["block"][0] * loops["x"][0] * loops["y"][0]
        if source + low >= 0 and source + high < config.activation_bytes and words < config.weight_words and vectors < 120:
            return matmul(source, rng.randint(0, config.weight_words - words), diagonal, **loops)


@pytest.mark.parametrize("stalls", [False, True], ids=["free", "stalls"])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_instructions(name: str, stalls: bool) -> None:
    config = CONFIGS[name]
    rng = random.Random(f"{name} {stalls}")
    bench = Bench(config, np.random.default_rng(rng.randrange(1 << 32)))
    operations = [random_matmul(rng, config) for _ in range(6)]
    if stalls:
        outcome = run(bench, operations, competition=lambda: rng.random() < 0.4, drain_pause=lambda: rng.choice((0, 3, 60)))
    else:
        outcome = run(bench, operations)
    check(bench, operations, outcome)


@pytest.mark.parametrize("name", CONFIGS)
def test_convolution_keeps_array_busy(name: str) -> None:
    """Passes of 10 positions, six tiles a job, twice four jobs: not one cycle is lost from the first vector to the
    last."""
    config = CONFIGS[name]
    bench = Bench(config, np.random.default_rng(7))
    layer = matmul(5, 1, x=(5, 3), y=(2, 40), k0=(2, 16), k1=(3, 40), group=(2, 0), block=(2, 160))
    outcome = run(bench, [layer, layer])
    check(bench, [layer, layer], outcome)
    busy = outcome.events["array_busy"]
    assert busy == list(range(busy[0], busy[0] + 2 * 10 * 6 * 4))
    assert outcome.done[-1] == busy[-1] + 1


@pytest.mark.parametrize("name", CONFIGS)
def test_fully_connected_is_bound_by_weights(name: str) -> None:
    """One position: a tile every max(row_groups, shortest_pass) cycles."""
    config = CONFIGS[name]
    bench = Bench(config, np.random.default_rng(8))
    layer = matmul(3, 0, k0=(10, config.rows), group=(2, 0))
    outcome = run(bench, [layer])
    check(bench, [layer], outcome)
    busy = outcome.events["array_busy"]
    period = max(config.row_groups, AccumulatorBuffer.shortest_pass)
    gaps = [after - before for before, after in itertools.pairwise(busy)]
    assert gaps[:9] == [period] * 9  # within a job
    assert gaps[9] == config.row_groups  # to the next job: another half, so only the weights count
    waits = len(outcome.events["wait_weights"])
    assert waits >= sum(gap - 1 for gap in gaps)


def test_depthwise_with_short_passes() -> None:
    """Two and three positions a pass: the pause after a short pass covers stalls within it, too."""
    config = CONFIGS["16x8"]
    rng = random.Random(3)
    bench = Bench(config, np.random.default_rng(9))
    layers = [matmul(1, 2, 1, x=(count, 8), k0=(9, 24), group=(2, 8)) for count in (1, 2, 3, 4)]
    check(bench, layers, run(bench, layers, competition=lambda: rng.random() < 0.5))


def test_events_name_the_cause() -> None:
    config = CONFIGS["8x4"]
    layer = matmul(0, 0, x=(8, 8), k0=(4, 8), block=(4, 0))
    bench = Bench(config, np.random.default_rng(10))
    blocked = iter([False] * 60 + [True] * 40)
    outcome = run(bench, [layer], competition=lambda: next(blocked, False))
    check(bench, [layer], outcome)
    assert len(outcome.events["wait_activations"]) in range(15, 21)  # half of the 40, the weights' port takes the others
    bench = Bench(config, np.random.default_rng(10))
    outcome = run(bench, [layer], drain_pause=lambda: 200)
    check(bench, [layer], outcome)
    assert len(outcome.events["wait_post"]) > 200


def test_time_steps_wait_with_their_weights_loaded() -> None:
    """The first vector of a block follows `step_done` at once; blocks of other instructions wait for nothing."""
    config = CONFIGS["16x8"]
    bench = Bench(config, np.random.default_rng(13))
    layers = [matmul(3, 0, x=(2, 16), k0=(3, 16), group=(2, 0), block=(3, 32)) for _ in range(2)]
    layers[0] = broken(layers[0], recurrent=1)
    done = (200, 300)
    pulses = iter(cycle in done for cycle in range(1 << 16))
    outcome = run(bench, layers, step_done=lambda: next(pulses))
    check(bench, layers, outcome)
    busy = outcome.events["array_busy"]
    first, second, third = busy[0], busy[12], busy[24]
    assert first < 30
    assert (second, third) == tuple(cycle + Streamer.issue_latency for cycle in done)
    for cycle in (second, third):
        assert set(range(cycle - 50, cycle)) <= set(outcome.events["wait_step"])
    assert max(outcome.events["wait_step"]) < third


def broken(operation: Operation, **fields: int) -> Operation:
    return Operation(operation.opcode, dict(operation.fields) | fields)


GOOD = matmul(4, 2, x=(3, 8), k0=(2, 4))


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        *((broken(GOOD, **changes), ErrorCode.BAD_FIELD) for changes, legal in borders(Opcode.MATMUL, CONFIGS["8x4"]) if not legal),
        (broken(GOOD, x_count=11, y_count=3), ErrorCode.BAD_FIELD),  # 33 of 32
        (broken(GOOD, x_count=4095, y_count=4095), ErrorCode.BAD_FIELD),
        (broken(GOOD, source=1024), ErrorCode.ACTIVATION_ADDRESS),
        (broken(GOOD, source=1000, x_count=4), ErrorCode.ACTIVATION_ADDRESS),
        (broken(GOOD, source=15, x_step=-8), ErrorCode.ACTIVATION_ADDRESS),
        (broken(GOOD, y_count=2, y_step=-(1 << 19)), ErrorCode.ACTIVATION_ADDRESS),
        (broken(GOOD, weights=(1 << 24) - 1), ErrorCode.WEIGHT_ADDRESS),
        (broken(GOOD, weights=8192 // 8 - 7), ErrorCode.WEIGHT_ADDRESS),  # the second tile's last word
        (broken(GOOD, weights=8192 // 8 - 7, source=2000), ErrorCode.ACTIVATION_ADDRESS),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_errors(operation: Operation, code: ErrorCode, before: int) -> None:
    """The error is reported once, when the instructions before it are done, and nothing is read after it."""
    bench = Bench(CONFIGS["8x4"], np.random.default_rng(11))
    outcome = run(bench, [GOOD] * before + [operation, GOOD])
    assert outcome.errors == [(code, before)]
    allowed = 6 * before + 6
    assert len(outcome.events["array_busy"]) < allowed


def test_exact_limits_are_no_errors() -> None:
    config = CONFIGS["8x4"]
    bench = Bench(config, np.random.default_rng(12))
    operations = [
        matmul(0, 0, x=(32, 1)),
        matmul(1023, config.weight_words - 4, x=(8, -1), y=(4, -100)),
        matmul(1023, config.weight_words - 1, 1, x=(1, 0), k0=(2, -1023)),
    ]
    check(bench, operations, run(bench, operations))
