"""A bench for the post-processor: a PostUnit between simulated memories beside its model, and random instructions for
both."""

from __future__ import annotations

import enum
import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from support.benches.simulate import RepeatedSimulation, simulator_of
from support.programs.payload import payload_words
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, Rounding
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.post.unit import PostUnit
from systola_sim.blocks.post_memories import PostMemories
from systola_sim.blocks.post_unit import PostUnitModel

#: A compact engine has no PostUnit.
CONFIGS = {name: config.replace(activation_bytes=4096, weight_bytes=8192) for name, config in PRESETS.items() if not config.compact}
ROUNDINGS = (Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP)
#: Layouts that no preset has: fewer lanes than gates; more preactivations than a read brings; the serial cell.
LSTM_CONFIGS = {
    **{name: config for name, config in CONFIGS.items() if config.lstm},
    "8x4, two lanes": CONFIGS["tiny-8x4"].replace(requantize_lanes=2),
    "8x8, eight lanes": CONFIGS["ulx3s-85f"].replace(rows=8),
    "16x16, serial": CONFIGS["wide-16x16"].replace(lstm_serial=True),
}
LOOPS = ("x", "y", "group", "block")

#: Fields of a POST that every engine takes.
GOOD_POST = {
    "last_columns": 4,
    "x_count": 2,
    "y_count": 1,
    "group_count": 1,
    "block_count": 1,
    "x_step": 4,
    "minimum": -128,
    "maximum": 127,
}
#: Changes of it, and what every engine of four columns says to them.
POST_ERRORS = [
    ({"x_count": 0}, ErrorCode.BAD_FIELD),
    ({"y_count": 0}, ErrorCode.BAD_FIELD),
    ({"group_count": 0}, ErrorCode.BAD_FIELD),
    ({"block_count": 0}, ErrorCode.BAD_FIELD),
    ({"last_columns": 0}, ErrorCode.BAD_FIELD),
    ({"last_columns": 5}, ErrorCode.BAD_FIELD),
    ({"rounding": 3}, ErrorCode.BAD_FIELD),
    ({"rounding": 7}, ErrorCode.BAD_FIELD),
    ({"shift": 7}, ErrorCode.BAD_FIELD),
    ({"shift": -32}, ErrorCode.BAD_FIELD),
    ({"shift": -32, "per_channel": 1}, ErrorCode.NONE),
    ({"x_count": 129, "x_step": 0}, ErrorCode.BAD_FIELD),
    ({"parameters": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ({"destination": 4095 - 6}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4095 - 15, "wide": 1, "x_step": 8}, ErrorCode.NONE),
    ({"destination": 4095 - 14, "wide": 1, "x_step": 8}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4095 - 4, "wide": 1, "x_count": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": -1 & 0xFFFFF, "wide": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4095 - 7}, ErrorCode.NONE),
    ({"destination": 4095 - 4, "last_columns": 1}, ErrorCode.NONE),
    ({"destination": 3, "x_step": -4}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": (1 << 20) - 1}, ErrorCode.ACTIVATION_ADDRESS),
]
#: The same of :meth:`Bench.add_good_vector`.
VECTOR_ERRORS = [
    ({"x_count": 0}, ErrorCode.BAD_FIELD),
    ({"y_count": 0}, ErrorCode.BAD_FIELD),
    ({"group_count": 0}, ErrorCode.BAD_FIELD),
    ({"t0_count": 0}, ErrorCode.BAD_FIELD),
    ({"t1_count": 0}, ErrorCode.BAD_FIELD),
    ({"last_lanes": 0}, ErrorCode.BAD_FIELD),
    ({"sources": 3}, ErrorCode.BAD_FIELD),
    ({"sources": 2, "t0_count": 2}, ErrorCode.BAD_FIELD),
    ({"sources": 0, "t1_count": 2}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "rounding": 3}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "shift": -32}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "shift": 7}, ErrorCode.BAD_FIELD),
    ({"requantize": 0, "rounding": 3, "shift": 7}, ErrorCode.NONE),
    ({"source": 8, "x_step": -5}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 2, "source1": 4096 - 2}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 1, "source1": 4096 - 2}, ErrorCode.NONE),
    ({"sources": 0, "source": 1 << 19}, ErrorCode.NONE),
]


def describe(value: object) -> str:
    """A test's name for a row of these."""
    if isinstance(value, dict):
        return ",".join(f"{name}={number}" for name, number in value.items())
    return value.name if isinstance(value, enum.Enum) else str(value)


@dataclass
class Bench(ABC):
    """A PostUnit of either engine between simulated memories, the model of the same, and instructions for both."""

    config: Config
    seed: int
    stall: float
    free_word: int = 1  #: first word of the weight memory that no parameters take
    rng: random.Random = field(init=False)
    operations: list[tuple[Operation, list[npt.NDArray[np.int32]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        generator = np.random.default_rng(self.seed)
        self.activation = generator.integers(-128, 128, self.config.activation_bytes, np.int8)
        self.weights = generator.integers(-128, 128, self.config.weight_bytes, np.int8)

    def add(self, opcode: Opcode, jobs: list[npt.NDArray[np.int32]] | None = None, **fields: int) -> None:
        self.operations.append((Operation(opcode, fields), jobs or []))

    def add_good_post(self, changes: dict[str, int]) -> None:
        """:data:`GOOD_POST` with changes, on parameters of one group at word 0."""
        self.parameters(0, 1, True)
        fields = GOOD_POST | changes
        positions = max(fields["x_count"] * fields["y_count"], 1)
        jobs = fields["group_count"] * fields["block_count"]
        self.add(Opcode.POST, [self.accumulators(positions) for _ in range(jobs)], **fields)

    def add_good_vector(self, changes: dict[str, int]) -> None:
        """A VECTOR of three positions that every engine takes, with changes."""
        fields: dict[str, Any] = self.vector(
            x_count=3, x_step=4, x_step1=4, x_step_out=4, source=100, source1=300, destination=2000
        )
        self.add(Opcode.VECTOR, **(fields | changes))

    def run_alone(self, code: ErrorCode) -> None:
        """Run the one operation, which ends with ``code`` in the model, too."""
        model = PostUnitModel(self.config, self.activation.copy(), self.weights)
        assert model.execute(*self.operations[0]) is code
        self.run()

    def run(self, watchdog: int = 20000) -> tuple[Any, list[int]]:
        """Run every operation up to the first error; compare memory and error with the model. Return the simulated
        memories, with their ``writes`` and ``drained``, and the cycles of each operation."""
        model = PostUnitModel(self.config, self.activation.copy(), self.weights)
        dut, memories = self._build()
        cycles: list[int] = []

        async def control(ctx: Any) -> None:
            port = dut.control
            for operation, jobs in self.operations:
                expected = model.execute(operation, jobs)
                await self._start(ctx, port, operation)
                start = memories.cycle
                done = error = 0
                while not (done or error):
                    assert ctx.get(port.busy)
                    assert ctx.get(dut.busy)
                    _, _, done, error, code = await ctx.tick().sample(port.done, port.error, port.error_code)
                    assert memories.cycle - start < watchdog, f"no end of {operation}"
                cycles.append(memories.cycle - start)
                assert (ErrorCode(code) if error else ErrorCode.NONE) == expected, operation
                if expected is not ErrorCode.NONE:
                    written = len(memories.writes)
                    for _ in range(60):
                        _, _, done, error, *state = await ctx.tick().sample(port.done, port.error, port.busy, port.error_code)
                        assert (done, error) == (0, 0)
                        self._check_stopped(state[0], state[1], expected)
                    assert len(memories.writes) == written
                    np.testing.assert_array_equal(memories.activation, model.activation)
                    return
                await self._check_completed(ctx, port, operation, model)
                np.testing.assert_array_equal(memories.activation, model.activation)

        self._simulate(control)
        return memories, cycles

    @abstractmethod
    def _build(self) -> tuple[Any, Any]:
        """The unit, and what simulates its memories."""

    @abstractmethod
    def _simulate(self, control: Callable[[Any], Any]) -> None:
        """Run the unit between its memories from a reset to the end of ``control``."""

    @abstractmethod
    async def _start(self, ctx: Any, port: Any, operation: Operation) -> None:
        """Hand over an instruction; return in the first cycle of its execution."""

    @abstractmethod
    def _check_stopped(self, busy: int, code: int, expected: ErrorCode) -> None:
        """The state of a unit that has reported an error."""

    @abstractmethod
    async def _check_completed(self, ctx: Any, port: Any, operation: Operation, model: PostUnitModel) -> None:
        """In the cycle after ``done``; return when the memory has all bytes."""

    def factor(self) -> dict[str, int]:
        rng = self.rng
        return {
            "multiplier": rng.choice((0, 1 << 30, (1 << 31) - 1, rng.randrange(1 << 30, 1 << 31))),
            "shift": rng.choice((-31, 6, -8, rng.randint(-31, 6))),
            "rounding": rng.choice(ROUNDINGS),
        }

    def output(self) -> dict[str, int]:
        rng = self.rng
        minimum, maximum = rng.choice(((-128, 127), tuple(sorted(rng.choices(range(-128, 128), k=2)))))
        return {"zero_point": rng.randint(-128, 127), "minimum": minimum, "maximum": maximum}

    def accumulators(self, positions: int) -> npt.NDArray[np.int32]:
        generator = np.random.default_rng(self.rng.getrandbits(32))
        shape = (positions, self.config.columns)
        values = generator.integers(-(1 << 31), 1 << 31, shape) >> generator.integers(0, 31, shape)
        return values.astype(np.int32)

    def parameters(self, address: int, groups: int, per_channel: bool) -> None:
        """Put valid parameters of ``groups`` groups at weight word ``address``."""
        columns, rng = self.config.columns, self.rng
        words = self.config.channel_parameter_words if per_channel else self.config.bias_words
        for group in range(groups):
            start = (address + group * words) * self.config.weight_word_bytes
            bias = [rng.choice((0, 1 << 30, -(1 << 31), rng.randint(-20000, 20000))) for _ in range(columns)]
            parts = [np.array(bias, "<i4").view(np.int8)]
            if per_channel:
                multipliers = [rng.choice((0, (1 << 31) - 1, rng.randrange(1 << 30, 1 << 31))) for _ in range(columns)]
                shifts = [rng.choice((-31, 6, rng.randint(-24, -3), rng.randint(-10, 0))) for _ in range(columns)]
                parts += [np.array(multipliers, "<i4").view(np.int8), np.array(shifts, np.int8)]
            block = np.concatenate(parts)
            self.weights[start : start + len(block)] = block

    def add_post(self, counts: dict[str, int], *, per_channel: bool, destination: int = 0, **changes: int) -> None:
        """A POST whose outputs lie densely: x, then groups beside each other, then y, then blocks."""
        groups, blocks = counts["group"], counts["block"]
        channels = groups * self.config.columns
        size = 2 if changes.get("wide") else 1
        steps = {"x": size * channels, "y": counts["x"] * size * channels, "group": size * self.config.columns}
        steps["block"] = counts["y"] * steps["y"]
        address = self.free_word
        self.parameters(address, groups, per_channel)
        self.free_word += groups * self.config.channel_parameter_words + self.rng.randrange(3)
        fields = {
            "destination": destination,
            "last_columns": self.rng.randint(1, self.config.columns),
            "per_channel": int(per_channel),
            "parameters": address,
            **{f"{loop}_count": counts[loop] for loop in LOOPS},
            **{f"{loop}_step": steps[loop] for loop in LOOPS},
            **self.factor(),
            **self.output(),
        }
        jobs = [self.accumulators(counts["x"] * counts["y"]) for _ in range(groups * blocks)]
        self.add(Opcode.POST, jobs, **(fields | changes))

    def add_lstm(self, blocks: int, groups: int, sequences: int, **changes: int) -> None:
        """An LSTM: input parts from address 0 on, then cell states, then hidden states, time-major."""
        config, rng = self.config, self.rng
        generator = np.random.default_rng(rng.getrandbits(32))
        units = groups * config.columns // 4
        states = blocks * sequences * 8 * units
        # Some gates saturated, most not.
        inputs = generator.integers(-(1 << 15), 1 << 15, states // 2) >> generator.integers(0, 8, states // 2)
        self.activation[:states] = inputs.astype("<i2").view(np.int8)
        address = changes.get("parameters", self.free_word)
        multipliers = [rng.choice((0, (1 << 31) - 1, rng.randrange(1 << 30, 1 << 31))) for _ in range(config.columns)]
        shifts = [rng.choice((6, -31, rng.randint(-16, -1))) for _ in range(config.columns)]
        padding = [rng.randint(-128, 127) for _ in range(config.weight_word_bytes - config.columns)]
        biases = generator.integers(-30000, 30000, units * 4, np.int32)
        parts = [np.array(multipliers, "<i4"), np.array(shifts + padding, np.int8), biases]
        words = np.concatenate([part.view(np.int8) for part in parts])
        start = address * config.weight_word_bytes
        inside = self.weights[start : start + len(words)]
        inside[:] = words[: len(inside)]
        self.free_word += -(-len(words) // config.weight_word_bytes) + rng.randrange(3)
        fields = {
            "preactivation": 0,
            "cell": states,
            "hidden": states + sequences * 2 * units,
            "last_units": rng.randint(1, config.columns // 4),
            "cell_exponent": rng.randint(-15, -9),
            "x_count": sequences,
            "x_step": units,
            "x_step_preactivation": 8 * units,
            "x_step_cell": 2 * units,
            "group_count": groups,
            "block_count": blocks,
            "block_step": sequences * units,
            "block_step_preactivation": sequences * 8 * units,
            "parameters": address,
            "zero_point": rng.randint(-128, 127),
            "multiplier": rng.randrange(1 << 30, 1 << 31),
            "shift": rng.randint(-24, -20),
            "clip": rng.choice((0, 1, 5000, 32767)),
        }
        self.add(Opcode.LSTM, [self.accumulators(sequences) for _ in range(groups * blocks)], **(fields | changes))

    def vector(self, **fields: int) -> dict[str, int]:
        """Fields of a VECTOR, all counts 1 if not given."""
        counts = {f"{loop}_count": 1 for loop in ("t0", "t1", "group", "x", "y")}
        return {**counts, "last_lanes": self.config.requantize_lanes, "minimum": -128, "maximum": 127, "sources": 1, **fields}


@functools.lru_cache(maxsize=4)
def _simulation(config: Config) -> tuple[PostUnit, RepeatedSimulation]:
    dut = PostUnit(
        config,
        accumulator_read_latency=PostMemories.accumulator_latency,
        activation_write_latency=PostMemories.write_latency,
    )
    return dut, RepeatedSimulation(simulator_of(dut), "serve", "watch_steps", "control")


@dataclass
class FullBench(Bench):
    """The full engine's, which takes an instruction as a whole."""

    cell_busy: int = 0  #: cycles of that event
    steps: list[npt.NDArray[np.int8]] = field(default_factory=list)  #: memory at each ``step_done``

    def _build(self) -> tuple[Any, Any]:
        self._dut, self._simulation = _simulation(self.config)
        self._memories = PostMemories(
            self.config,
            {name: getattr(self._dut, name) for name in ("drain", "activation_read", "activation_write", "weights")},
            self.rng,
            stall=self.stall,
            activation=self.activation.copy(),
            weights=self.weights,
            jobs=[job for _, jobs in self.operations for job in jobs],
        )
        return self._dut, self._memories

    def _simulate(self, control: Callable[[Any], Any]) -> None:
        self._simulation.run(serve=self._memories.serve, watch_steps=self._watch_steps, control=control)

    async def _watch_steps(self, ctx: Any) -> None:
        late = False  # a read in the cycle after the pulse sees what was written
        while True:
            _, _, step_done, cell_busy = await ctx.tick().sample(self._dut.step_done, self._dut.cell_busy)
            if late:
                self.steps.append(self._memories.activation.copy())
            self.cell_busy += cell_busy
            late = bool(step_done)

    async def _start(self, ctx: Any, port: Any, operation: Operation) -> None:
        ctx.set(port.instruction.payload, {"opcode": operation.opcode, "words": payload_words(operation)})
        ctx.set(port.instruction.valid, 1)
        await ctx.tick().until(port.instruction.ready)
        ctx.set(port.instruction.valid, 0)

    def _check_stopped(self, busy: int, _code: int, _expected: ErrorCode) -> None:
        assert not busy

    async def _check_completed(self, ctx: Any, _port: Any, operation: Operation, model: PostUnitModel) -> None:
        if operation.opcode is Opcode.LSTM:
            np.testing.assert_array_equal(self.steps, model.steps)
            self.steps.clear()
        # Bytes become visible write_latency cycles after their write, which `done` has waited for.
        await ctx.tick()
