"""PostUnit against the loops of the instruction set: POST, VECTOR, TABLE, errors, with stalls on every port and without."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import Simulator

from systola_firmware.config import PRESETS, Config
from systola_firmware.isa import Combine, ErrorCode, Opcode, Operation, Rounding
from systola_hdl.post_unit import PostUnit
from systola_sim.blocks.post_memories import PostMemories
from systola_sim.blocks.post_unit import PostUnitModel

CONFIGS = {name: PRESETS[name].replace(activation_bytes=4096, weight_bytes=8192) for name in PRESETS}
ROUNDINGS = (Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP)
LOOPS = ("x", "y", "group", "block")


@dataclass
class Bench:
    """A PostUnit between simulated memories, and the model of the same."""

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

    def run(self, watchdog: int = 20000) -> tuple[PostMemories, list[int]]:
        """Run every operation up to the first error; compare memory and error with the model. Return the cycles of each."""
        dut = PostUnit(
            self.config,
            accumulator_read_latency=PostMemories.accumulator_latency,
            activation_write_latency=PostMemories.write_latency,
        )
        model = PostUnitModel(self.config, self.activation.copy(), self.weights)
        memories = PostMemories(
            self.config,
            {name: getattr(dut, name) for name in ("drain", "activation_read", "activation_write", "weights")},
            self.rng,
            stall=self.stall,
            activation=self.activation.copy(),
            weights=self.weights,
            jobs=[job for _, jobs in self.operations for job in jobs],
        )
        cycles: list[int] = []

        async def control(ctx: Any) -> None:
            port = dut.control
            for operation, jobs in self.operations:
                expected = model.execute(operation, jobs)
                words = sum(word << 32 * index for index, word in enumerate(operation.encode()[1:]))
                ctx.set(port.instruction.payload, {"opcode": operation.opcode, "words": words})
                ctx.set(port.instruction.valid, 1)
                await ctx.tick().until(port.instruction.ready)
                ctx.set(port.instruction.valid, 0)
                start = memories.cycle
                done = error = 0
                while not (done or error):
                    assert ctx.get(port.busy)
                    assert ctx.get(dut.busy)
                    _, _, done, error, code = await ctx.tick().sample(port.done, port.error, port.error_code)
                    assert memories.cycle - start < watchdog, f"no end of {operation}"
                cycles.append(memories.cycle - start)
                assert (ErrorCode(code) if error else ErrorCode.NONE) == expected, operation
                # Bytes become visible write_latency cycles after their write, which `done` has waited for.
                if expected is ErrorCode.NONE:
                    await ctx.tick()
                    np.testing.assert_array_equal(memories.activation, model.activation)
                else:
                    written = len(memories.writes)
                    for _ in range(60):
                        _, _, done, error, busy = await ctx.tick().sample(port.done, port.error, port.busy)
                        assert (done, error, busy) == (0, 0, 0)
                    assert len(memories.writes) == written
                    np.testing.assert_array_equal(memories.activation, model.activation)
                    return

        simulator = Simulator(dut)
        simulator.add_clock(1e-8)
        simulator.add_testbench(memories.serve, background=True)
        simulator.add_testbench(control)
        simulator.run()
        return memories, cycles

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
        """Place valid parameters of ``groups`` groups at weight word ``address``."""
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
        steps = {"x": channels, "y": counts["x"] * channels, "group": self.config.columns}
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

    def vector(self, **fields: int) -> dict[str, int]:
        """Fields of a VECTOR, all counts 1 if not given."""
        counts = {f"{loop}_count": 1 for loop in ("t0", "t1", "group", "x", "y")}
        return {**counts, "last_lanes": self.config.requantize_lanes, "minimum": -128, "maximum": 127, "sources": 1, **fields}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_post(name: str, stall: float) -> None:
    bench = Bench(CONFIGS[name], seed=len(name), stall=stall)
    for case in range(7):
        counts = {loop: bench.rng.randint(1, 3) for loop in LOOPS}
        if case == 0:
            counts = {"x": 1, "y": 1, "group": 4, "block": 1}  # jobs of one position follow at once
        bench.add_post(counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64))
    memories, _ = bench.run()
    assert memories.drained == sum(len(jobs) for _, jobs in bench.operations)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_post_agrees_with_the_interpreter(rounding: Rounding) -> None:
    """The loop model that the other tests use and the interpreter's datapath are two readings of the same words."""
    datapath = pytest.importorskip("systola_sim.datapath")
    config = CONFIGS["tiny-8x4"]
    bench = Bench(config, seed=3, stall=0.0)
    bench.add_post({"x": 3, "y": 4, "group": 2, "block": 2}, per_channel=True, rounding=rounding, zero_point=5)
    operation, jobs = bench.operations[0]
    model = PostUnitModel(config, bench.activation.copy(), bench.weights)
    assert model.execute(operation, jobs) is ErrorCode.NONE
    memories = datapath.Memories(config, bench.activation[np.newaxis].copy(), bench.weights)
    for number, job in enumerate(jobs):
        memories.accumulators[0, 0, : len(job)] = job
        datapath.run_post_job(memories, operation, number, 0)
    np.testing.assert_array_equal(memories.activation[0], model.activation)


@pytest.mark.parametrize("name", ["ulx3s-85f", "tiny-4x4"])
def test_post_takes_one_item_a_cycle(name: str) -> None:
    config = CONFIGS[name]
    bench = Bench(config, seed=1, stall=0.0)
    bench.add_post({"x": 10, "y": 5, "group": 1, "block": 2}, per_channel=True, last_columns=config.columns)
    memories, cycles = bench.run()
    items = 100 * config.columns // config.requantize_lanes
    assert len(memories.writes) == items
    # All but one cycle between the two jobs: the second one's parameters are there before.
    assert memories.writes[-1][0] - memories.writes[0][0] <= items
    assert cycles[0] < items + 45


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_vector(name: str, stall: float) -> None:
    """Tables, ADD, unary, pooling and fill, each with several groups, the last one partial."""
    config = CONFIGS[name]
    lanes = config.requantize_lanes
    bench = Bench(config, seed=10 + len(name), stall=stall)
    rng = bench.rng
    # Entries that a sum of two cannot be told from by their low bits alone, and any for the first.
    entries = np.random.default_rng(4).integers(-(1 << 27), 1 << 27, 512).astype("<i4")
    entries[:4] = (2**31 - 1, -(2**31), 2**31 - 1, -(2**31))
    bench.weights[-2048:] = entries.view(np.int8)
    bench.add(Opcode.TABLE, source=(config.weight_bytes - 2048) // config.weight_word_bytes, tables=2)
    last = rng.randint(1, lanes)
    planes = {"group_count": 2, "group_step": lanes, "last_lanes": last, "x_count": 3, "y_count": 2}
    steps = {"x_step": 2 * lanes, "y_step": 7 * lanes, "x_step1": 3 * lanes, "y_step1": 11 * lanes}
    out = {"x_step_out": 2 * lanes, "y_step_out": 6 * lanes, "destination": 2001}
    # ADD
    add = bench.vector(
        **planes, **steps, **out, source=5, source1=1001, sources=2, table=1, requantize=1, bias=rng.randint(-999, 999)
    )
    bench.add(Opcode.VECTOR, **(add | bench.output()), multiplier=rng.randrange(1 << 30, 1 << 31), shift=-19)
    # unary look-up: only the clamp after the table
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1))
    # both identities of an int32 without requantization: nothing wraps on the way to the clamp
    bench.weights[:1024] = np.arange(-128, 128, dtype="<i4").view(np.int8)
    bench.add(Opcode.TABLE, source=0, tables=1)
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1, zero_point=-3))
    # max and average pooling
    taps = {"t0_count": 3, "t0_step": 2 * lanes, "t1_count": 2, "t1_step": 7 * lanes}
    bench.add(Opcode.VECTOR, **(bench.vector(**planes, **steps, **out, **taps, source=9, combine=Combine.MAX) | bench.output()))
    average = {"requantize": 1, "rounding": Rounding.SINGLE, "multiplier": (1 << 33) // 6 + 1, "shift": -2}
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, **average, source=9))
    # two operands without tables, and MAX of two
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, bias=2**31 - 1))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, combine=Combine.MAX))
    # fill; every random requantization in place
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **out, sources=0, bias=-77, zero_point=7))
    for _ in range(3):
        bench.add(
            Opcode.VECTOR,
            **(bench.vector(x_count=4, x_step=lanes, x_step_out=lanes, requantize=1) | bench.factor() | bench.output()),
        )
    bench.run()


def test_vector_speed() -> None:
    """A unary operator reads, and a fill writes, one item a cycle; ADD reads twice for each."""
    config = CONFIGS["ulx3s-85f"]
    bench = Bench(config, seed=1, stall=0.0)
    items = {"x_count": 60, "x_step": 8, "x_step1": 8, "x_step_out": 8, "destination": 2048}
    for sources in (0, 1, 2):
        bench.add(Opcode.VECTOR, **bench.vector(**items, sources=sources))
    _, (fill, unary, add) = bench.run()
    assert fill < 60 + 30
    assert unary < 60 + 35
    assert add < 120 + 35


def test_table_speed() -> None:
    bench = Bench(CONFIGS["ulx3s-85f"], seed=1, stall=0.0)
    bench.add(Opcode.TABLE, tables=2)
    _, (cycles,) = bench.run()
    assert cycles < 512 + 20


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
    ({"parameters": 1023}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 1022}, ErrorCode.NONE),
    ({"parameters": 1022, "group_count": 2}, ErrorCode.WEIGHT_ADDRESS),
    ({"destination": 4095 - 6}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4095 - 7}, ErrorCode.NONE),
    ({"destination": 4095 - 4, "last_columns": 1}, ErrorCode.NONE),
    ({"destination": 3, "x_step": -4}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": (1 << 20) - 1}, ErrorCode.ACTIVATION_ADDRESS),
]


def describe(value: object) -> str:
    return ",".join(f"{name}={number}" for name, number in value.items()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("changes", "code"), POST_ERRORS, ids=describe)
def test_post_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=1, stall=0.3)
    bench.parameters(0, 1, True)
    fields = GOOD_POST | changes
    positions = max(fields["x_count"] * fields["y_count"], 1)
    bench.add(Opcode.POST, [bench.accumulators(positions) for _ in range(fields["group_count"] * fields["block_count"])], **fields)
    model = PostUnitModel(bench.config, bench.activation.copy(), bench.weights)
    assert model.execute(*bench.operations[0]) is code
    bench.run()


VECTOR_ERRORS = [
    ({"x_count": 0}, ErrorCode.BAD_FIELD),
    ({"y_count": 0}, ErrorCode.BAD_FIELD),
    ({"group_count": 0}, ErrorCode.BAD_FIELD),
    ({"t0_count": 0}, ErrorCode.BAD_FIELD),
    ({"t1_count": 0}, ErrorCode.BAD_FIELD),
    ({"last_lanes": 0}, ErrorCode.BAD_FIELD),
    ({"last_lanes": 5}, ErrorCode.BAD_FIELD),
    ({"sources": 3}, ErrorCode.BAD_FIELD),
    ({"sources": 2, "t0_count": 2}, ErrorCode.BAD_FIELD),
    ({"sources": 0, "t1_count": 2}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "rounding": 3}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "shift": -32}, ErrorCode.BAD_FIELD),
    ({"requantize": 1, "shift": 7}, ErrorCode.BAD_FIELD),
    ({"requantize": 0, "rounding": 3, "shift": 7}, ErrorCode.NONE),
    ({"source": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
    ({"source": 4096 - 12}, ErrorCode.NONE),
    ({"source": 4096 - 12, "t0_count": 2, "t0_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"source": 8, "x_step": -5}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 2, "source1": 4096 - 2}, ErrorCode.ACTIVATION_ADDRESS),
    ({"sources": 1, "source1": 4096 - 2}, ErrorCode.NONE),
    ({"sources": 0, "source": 1 << 19}, ErrorCode.NONE),
    ({"destination": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4096 - 11, "last_lanes": 3}, ErrorCode.NONE),
    ({"destination": 4096 - 12}, ErrorCode.NONE),
]


@pytest.mark.parametrize(("changes", "code"), VECTOR_ERRORS, ids=describe)
def test_vector_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=2, stall=0.3)
    fields = bench.vector(x_count=3, x_step=4, x_step1=4, x_step_out=4, source=100, source1=300, destination=2000) | changes
    bench.add(Opcode.VECTOR, **fields)
    model = PostUnitModel(bench.config, bench.activation.copy(), bench.weights)
    assert model.execute(*bench.operations[0]) is code
    bench.run()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tables": 0}, ErrorCode.BAD_FIELD),
        ({"tables": 3}, ErrorCode.BAD_FIELD),
        ({"tables": 1, "source": 1024 - 128}, ErrorCode.NONE),
        ({"tables": 2, "source": 1024 - 255}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ],
    ids=describe,
)
def test_table_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=2, stall=0.3)
    bench.add(Opcode.TABLE, **changes)
    model = PostUnitModel(bench.config, bench.activation.copy(), bench.weights)
    assert model.execute(*bench.operations[0]) is code
    bench.run()


def test_unknown_opcode_is_an_error() -> None:
    dut = PostUnit(CONFIGS["tiny-4x4"])

    async def control(ctx: Any) -> None:
        ctx.set(dut.control.instruction.payload, {"opcode": Opcode.MATMUL, "words": 0})
        ctx.set(dut.control.instruction.valid, 1)
        await ctx.tick().until(dut.control.error)
        assert ctx.get(dut.control.error_code) == ErrorCode.ILLEGAL_OPCODE

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(control)
    simulator.run_until(1e-6)
