"""A bench for the matmul unit of either engine: the unit with its two memories, instructions for it, and what must come
out.

A configuration says which engine it is of. An adapter for each knows how its ports are driven; all else is the same.
"""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.wiring import connect

from support.benches.simulate import RepeatedSimulation, simulator_of
from support.programs.payload import payload_words
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation
from systola_firmware.spec.presets import PRESETS
from systola_hdl.compact.matmul.unit import MatmulUnit as CompactMatmulUnit
from systola_hdl.compact.memory.activation_memory import ActivationMemory as CompactActivationMemory
from systola_hdl.compact.memory.weight_memory import WeightMemory as CompactWeightMemory
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.unit import MatmulUnit
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_sim.blocks.matmul_unit import matmul_jobs

__all__ = ["COMPACT", "CONFIGS", "FULL", "GOOD", "LOOPS", "Bench", "Outcome", "broken", "check", "matmul", "random_matmul"]

_SMALL = {"activation_bytes": 1024, "weight_bytes": 8192, "accumulator_depth": 32}
#: Shapes of the full engine.
FULL = {
    "4x4": PRESETS["tiny-4x4"].replace(**_SMALL),
    "8x4": PRESETS["tiny-8x4"].replace(**_SMALL),
    "16x8": PRESETS["ulx3s-85f"].replace(**_SMALL),
    "16x16": PRESETS["wide-16x16"].replace(**_SMALL),
    "8x4, two registers a hop": PRESETS["tiny-8x4"].replace(**_SMALL, hop_registers=2),
    "16x8, two rows a cycle": PRESETS["ulx3s-85f"].replace(**_SMALL, weight_rows_per_cycle=2, hop_registers=2),
}
#: The compact engine has one.
COMPACT = PRESETS["icebreaker"].replace(activation_bytes=1024, weight_bytes=2048 + 1024, program_words=64, accumulator_depth=32)
CONFIGS = {**FULL, "compact": COMPACT}
LOOPS = ("x", "y", "k0", "k1", "k2", "group", "block")

Int8Array = npt.NDArray[np.int8]
Pause = Callable[[], int]


@dataclass
class Outcome:
    """What happened, cycle by cycle where a name says so."""

    halves: list[npt.NDArray[np.int32]] = field(default_factory=list)  #: (positions, columns) of each
    started: int = 0  #: instructions since the last reset
    done: list[int] = field(default_factory=list)  #: cycle of each completion
    errors: list[tuple[ErrorCode, int]] = field(default_factory=list)  #: code, instructions done before
    events: dict[str, list[int]] = field(default_factory=dict)  #: cycles in which an event was high
    waits: list[int] = field(default_factory=list)  #: cycles for which each request of the drain waited, where it can wait


class _Engine(ABC):
    """How the ports of an engine's matmul unit are driven.

    Attributes
    ----------
    unit, activation, weight:
        The unit and its memories.
    clients:
        The memories' ports of others.
    events:
        Names of the unit's events; at most one is high in a cycle.
    exempt:
        As in :func:`~support.benches.simulate.simulator_of`.
    """

    events: ClassVar[tuple[str, ...]]
    exempt: ClassVar[dict[str, str]] = {}
    unit: Any
    activation: Any
    weight: Any
    clients: tuple[Any, ...]

    @abstractmethod
    def fill(self, activations: Int8Array, weights: Int8Array) -> None:
        """Initial content of the memories: bytes, and ``(words, bytes of a word)``."""

    @abstractmethod
    async def start(self, ctx: Any, operation: Operation, outcome: Outcome, pause: Pause) -> None:
        """Hand over an instruction and count it; return when the unit may have the next one, or has failed.

        ``pause`` says how many cycles to leave where the sequencer may take its time.
        """

    @abstractmethod
    async def press(self, ctx: Any, operation: Operation, outcome: Outcome) -> None:
        """After an instruction that breaks a rule: return 50 cycles after the error, having offered the next until
        then, if a sequencer could."""

    @abstractmethod
    async def drain(self, ctx: Any, positions: int, outcome: Outcome, pause: Pause) -> list[npt.NDArray[np.int32]]:
        """Read a full half, release it, and return the columns of each position."""


class _Full(_Engine):
    events = ("array_busy", "wait_weights", "wait_activations", "wait_post", "wait_step")

    def __init__(self, config: Config) -> None:
        self._config = config
        self.unit, self.activation, self.weight = MatmulUnit(config), ActivationMemory(config), WeightMemory(config)
        self.clients = (self.activation.read_post, self.weight.read_post)

    def fill(self, activations: Int8Array, weights: Int8Array) -> None:
        for index, lane in enumerate(self.activation.lanes):
            lane.data.init = [int(v) & 0xFF for v in activations[index :: self._config.rows]]
        for index, bank in enumerate(self.weight.banks):
            bank.fill(weights[:, 4 * index : 4 * index + 4].copy().view("<u4").reshape(-1).tolist())

    def _offer(self, ctx: Any, operation: Operation) -> None:
        ctx.set(self.unit.control.instruction.payload, {"opcode": operation.opcode, "words": payload_words(operation)})
        ctx.set(self.unit.control.instruction.valid, 1)

    async def start(self, ctx: Any, operation: Operation, outcome: Outcome, pause: Pause) -> None:
        port = self.unit.control.instruction
        for _ in range(pause()):
            await ctx.tick()
        self._offer(ctx, operation)
        await ctx.tick().until(port.ready)
        outcome.started += 1
        ctx.set(port.valid, 0)

    async def press(self, ctx: Any, operation: Operation, outcome: Outcome) -> None:
        self._offer(ctx, operation)
        while not outcome.errors:
            await ctx.tick()
        await ctx.tick().repeat(50)
        ctx.set(self.unit.control.instruction.valid, 0)

    async def drain(self, ctx: Any, positions: int, _outcome: Outcome, pause: Pause) -> list[npt.NDArray[np.int32]]:
        port, columns = self.unit.drain, []
        await ctx.tick().repeat(pause() + 1)
        for address in range(positions + AccumulatorBuffer.read_latency):
            ctx.set(port.address, min(address, positions - 1))
            ctx.set(port.release, address == positions - 1)
            if address >= AccumulatorBuffer.read_latency:
                values = ctx.get(port.data.as_value()).to_bytes(4 * self._config.columns, "little")
                columns.append(np.frombuffer(values, "<i4").astype(np.int32))
            await ctx.tick()
        return columns


class _Compact(_Engine):
    events = ("array_busy", "wait_weights", "wait_activations", "wait_post")
    #: The loader reads ahead; where a block begins elsewhere, it gives up the request it had.
    exempt: ClassVar[dict[str, str]] = {
        "unit.weights": "restart changes the address of a request that waits, and the memory keeps none that it refused"
    }

    def __init__(self, config: Config) -> None:
        self.unit = CompactMatmulUnit(config)
        self.activation, self.weight = CompactActivationMemory(config), CompactWeightMemory(config)
        # Writes have an empty mask.
        self.clients = (self.activation.write, self.activation.read_post, self.weight.fetch, self.weight.read_post)

    def fill(self, activations: Int8Array, weights: Int8Array) -> None:
        for banks, content in ((self.activation.banks, activations), (self.weight.banks, weights.reshape(-1))):
            for index, bank in enumerate(banks):
                bank.data.init = content.view("<u2")[index::2].tolist()

    async def start(self, ctx: Any, operation: Operation, outcome: Outcome, pause: Pause) -> None:
        control = self.unit.control
        for index, word in enumerate(operation.encode()[1:]):
            await ctx.tick().repeat(pause() + 1)
            ctx.set(control.words.valid, 1)
            ctx.set(control.words.payload, {"word": word, "index": index})
            await ctx.tick()
            ctx.set(control.words.valid, 0)
        await ctx.tick().repeat(pause() + 1)
        assert not ctx.get(control.busy)
        ctx.set(control.start, 1)
        ctx.set(control.opcode, operation.opcode)
        await ctx.tick()
        outcome.started += 1
        ctx.set(control.start, 0)
        ended = False
        while not ended:  # one instruction at a time
            assert ctx.get(control.busy)
            ended = ctx.get(control.done) or ctx.get(control.error)
            await ctx.tick()

    async def press(self, ctx: Any, _operation: Operation, outcome: Outcome) -> None:
        """Offers nothing: the unit stays busy until reset."""
        control = self.unit.control
        for _ in range(50):
            await ctx.tick()
            assert ctx.get(control.busy)
        assert ctx.get(control.error_code) == outcome.errors[-1][0]

    async def drain(self, ctx: Any, positions: int, outcome: Outcome, pause: Pause) -> list[npt.NDArray[np.int32]]:
        port, columns = self.unit.drain, []
        for position in range(positions):
            await ctx.tick().repeat(pause() + 1)
            ctx.set(port.position, position)
            ctx.set(port.valid, 1)
            waited = 0
            while not ctx.get(port.ready):
                waited += 1
                await ctx.tick()
            outcome.waits.append(waited)
            await ctx.tick()
            ctx.set(port.valid, 0)
            for _ in range(self.unit.drain_latency - 1):
                await ctx.tick()
            assert ctx.get(port.data_valid)
            columns.append(np.array([ctx.get(value) for value in port.data], np.uint32).astype(np.int32))
        ctx.set(port.release, 1)
        await ctx.tick()
        ctx.set(port.release, 0)
        return columns


class Bench(Elaboratable):
    """A matmul unit and its memories, filled. It may run several times, from a reset each time.

    Attributes
    ----------
    unit:
        The engine's unit.
    clients:
        How many other ports of the memories may compete with it.
    activations, weights:
        What the memories hold: int8 ``(activation_bytes,)`` and ``(weight_words, weight_word_bytes)``.
    """

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self._engine: _Engine = _Compact(config) if config.compact else _Full(config)
        self.unit, self.clients = self._engine.unit, len(self._engine.clients)
        self._reset = Signal()
        rng = np.random.default_rng(seed)
        corners = np.array([-128, 127, -1, 0], dtype=np.int8)
        self.activations = rng.integers(-128, 128, config.activation_bytes, dtype=np.int8)
        self.weights = rng.integers(-128, 128, (config.weight_words, config.weight_word_bytes), dtype=np.int8)
        for values in (self.activations, self.weights.reshape(-1)):
            chosen = rng.random(values.shape) < 0.3
            values[chosen] = rng.choice(corners, int(chosen.sum()))
        self._engine.fill(self.activations, self.weights)

    def elaborate(self, _platform: object) -> Elaboratable:
        m, engine = Module(), self._engine
        m.submodules.unit = ResetInserter(self._reset)(engine.unit)
        m.submodules.activation, m.submodules.weight = engine.activation, engine.weight
        connect(m, engine.unit.activation, engine.activation.read_stream)
        connect(m, engine.unit.weights, engine.weight.read_loader)
        return m

    @functools.cached_property
    def _simulation(self) -> RepeatedSimulation:
        simulator = simulator_of(self, {"unit": self.unit}, unless=self._reset, exempt=self._engine.exempt)
        return RepeatedSimulation(simulator, "push", "drain", "compete", "watch")

    def run(
        self,
        operations: list[Operation],
        *,
        competition: Callable[[], bool] = lambda: False,
        drain_pause: Pause = lambda: 0,
        start_pause: Pause = lambda: 0,
        step_done: Callable[[], bool] | None = None,
        fails: int = -1,
        until: int | None = None,
        cycles: int = 20_000,
    ) -> Outcome:
        """Execute until ``until`` halves (all of them) are drained, and a little longer.

        Parameters
        ----------
        competition:
            Asked each cycle for each other client of a memory: does it take the memory?
        drain_pause:
            Asked before each read of the drain, which is a half or, in the compact engine, a position: cycles to wait.
        start_pause:
            Asked before each push of the sequencer, which is an instruction or, in the compact engine, a word.
        step_done:
            Asked each cycle whether a time step is complete; for a unit that waits for time steps.
        fails:
            Number of an operation that breaks a rule: the unit is reset after it.
        """
        engine, outcome = self._engine, Outcome(events={name: [] for name in self._engine.events})
        control = engine.unit.control
        sound = [operation for number, operation in enumerate(operations) if number != fails]
        halves = [operation["x_count"] * operation["y_count"] for operation in sound for _ in range(_jobs(operation))]

        async def push(ctx: Any) -> None:
            for number, operation in enumerate(operations):
                await engine.start(ctx, operation, outcome, start_pause)
                if number == fails:
                    await engine.press(ctx, operations[number + 1], outcome)
                    ctx.set(self._reset, 1)
                    await ctx.tick().repeat(2)
                    ctx.set(self._reset, 0)
                    outcome.started = len(outcome.done)

        async def drain(ctx: Any) -> None:
            for positions in halves:
                while not ctx.get(engine.unit.drain.full):
                    await ctx.tick()
                outcome.halves.append(np.array(await engine.drain(ctx, positions, outcome, drain_pause)))

        async def compete(ctx: Any) -> None:
            while True:
                for client in engine.clients:
                    ctx.set(client.valid, competition())
                if step_done is not None:
                    ctx.set(engine.unit.step_done, step_done())
                await ctx.tick()

        async def watch(ctx: Any) -> None:
            left = 0
            for cycle in range(cycles):
                values = {name: ctx.get(getattr(engine.unit, name)) for name in engine.events}
                assert sum(values.values()) <= 1
                for name, value in values.items():
                    if value:
                        outcome.events[name].append(cycle)
                assert outcome.started <= len(outcome.done) or ctx.get(control.busy) or outcome.errors
                if ctx.get(control.error):
                    outcome.errors.append((ErrorCode(ctx.get(control.error_code)), len(outcome.done)))
                if ctx.get(control.done):
                    outcome.done.append(cycle)
                left = 50 if len(outcome.halves) < (len(halves) if until is None else until) else left - 1
                if left == 0:
                    return
                await ctx.tick()
            raise AssertionError(f"still running after {cycles} cycles")

        self._simulation.run(push=push, drain=drain, compete=compete, watch=watch)
        return outcome


def _jobs(operation: Operation) -> int:
    return operation["block_count"] * operation["group_count"]


def check(bench: Bench, operations: Iterable[Operation], outcome: Outcome) -> None:
    """Every half as the instruction's loops say, every instruction done once, every vector once in the array."""
    operations = list(operations)
    expected = [half for operation in operations for half in matmul_jobs(bench.config, operation, bench.activations, bench.weights)]
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


def broken(operation: Operation, changes: dict[str, int]) -> Operation:
    """The same with some fields changed."""
    return Operation(operation.opcode, dict(operation.fields) | changes)


#: An instruction of six vectors that no engine refuses.
GOOD = matmul(4, 2, x=(3, 8), k0=(2, 4))


def random_matmul(rng: random.Random, config: Config) -> Operation:
    """Any loops that stay inside the memories."""
    while True:
        loops: dict[str, tuple[int, int]] = {loop: (rng.choice((1, 1, 2, 3)), rng.randint(-40, 60)) for loop in LOOPS}
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
            return matmul(source, rng.randint(0, config.weight_words - words), diagonal, 0, **loops)
