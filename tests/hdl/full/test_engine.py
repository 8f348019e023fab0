"""Both engines through their bus: a hand-assembled program against numpy, its counters and marks, and every way to
stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import SimulatorContext
from support.benches.bus_driver import BusDriver, BusError
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Operation, Unit, encode_program
from systola_firmware.spec.memory_map import COUNTERS, MARK_WORDS, Control, Region, Status, register_address, split_status
from systola_firmware.spec.presets import preset
from systola_hdl.tops.engines import engine_for
from systola_sim.machine.interpreter import Outcome
from systola_sim.machine.interpreter import execute as interpret

#: Sizes of both engines; the programs below fit them.
SIZES = {"activation_bytes": 1024, "weight_bytes": 1024, "program_words": 128, "trace_marks": 2}
CONFIG = preset("tiny-4x4").replace(**SIZES)
ENGINES = pytest.mark.parametrize("config", [CONFIG, preset("icebreaker").replace(**SIZES)], ids=["full", "compact"])
Bench = Callable[[SimulatorContext, BusDriver], Awaitable[None]]

X, Y, CHANNELS, LAST = 5, 2, 8, 6  #: positions; channels of the first two tensors and of the third
INPUT, HIDDEN, OUTPUT, POOLED = 0, 256, 513, 768  #: addresses
SHIFT, MULTIPLIER, ZERO_POINT = -7, 1_500_000_000, 3
END = Operation(Opcode.END, {})


def run(bench: Bench, config: Config, *, watchdog_cycles: int = 3000) -> None:
    dut = engine_for(config, watchdog_cycles=watchdog_cycles)
    driver = BusDriver(dut.bus)

    async def testbench(ctx: SimulatorContext) -> None:
        await bench(ctx, driver)

    simulator = simulator_of(dut)
    simulator.add_testbench(testbench)
    simulator.run()


async def execute(
    ctx: SimulatorContext, bus: BusDriver, operations: Sequence[Operation | int], start: int = 0
) -> tuple[Status, ErrorCode]:
    """Write the program (numbers are raw words) and run it to its end."""
    words = [word for item in operations for word in ([item] if isinstance(item, int) else item.encode())]
    await bus.write_words(ctx, Region.PROGRAM.base + 4 * start, words)
    await bus.write(ctx, register_address("start_address"), start)
    await bus.write(ctx, register_address("control"), Control.START)
    return await finish(ctx, bus)


async def finish(ctx: SimulatorContext, bus: BusDriver) -> tuple[Status, ErrorCode]:
    for _ in range(5000):
        status, code = split_status(await bus.read(ctx, register_address("status")))
        if not status & Status.BUSY:
            return status, code
    raise AssertionError("the engine hangs")


async def register(ctx: SimulatorContext, bus: BusDriver, name: str) -> int:
    return await bus.read(ctx, register_address(name))


def check_exclusive(counters: dict[str, int]) -> None:
    """The array's time is divided up; no cycle counts twice."""
    assert counters["array_busy"] + sum(value for name, value in counters.items() if name.startswith("wait_")) <= counters["cycles"]


def requantize(value: int) -> int:
    """Rounding mode DOUBLE as TFLM's MultiplyByQuantizedMultiplier does it, for a negative shift."""
    product = value * MULTIPLIER
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    high = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)  # towards zero, as C divides
    mask = (1 << -SHIFT) - 1
    return (high >> -SHIFT) + ((high & mask) > (mask >> 1) + (high < 0))


def dense(x: npt.NDArray[np.int8], weights: npt.NDArray[np.int8], bias: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    sums = x.astype(np.int64) @ weights.astype(np.int64) + bias
    requantized = np.vectorize(requantize, otypes=[np.int64])(sums) + ZERO_POINT
    return np.clip(requantized, -100, 110).astype(np.int8)


def tiles(weights: npt.NDArray[np.int8]) -> bytes:
    """Weight words of a ``(in, out)`` matrix for a 4×4 array with one row a word: group by group, chunk by chunk."""
    padded = np.zeros((CHANNELS, CHANNELS), np.int8)
    padded[: weights.shape[0], : weights.shape[1]] = weights
    return b"".join(padded[k : k + 4, c : c + 4].tobytes() for c in (0, 4) for k in (0, 4))


def matmul(source: int, weights: int, **control: object) -> Operation:
    fields = {"source": source, "x_count": X, "x_step": CHANNELS, "y_count": Y, "y_step": X * CHANNELS, "k0_count": 2, "k0_step": 4}
    fields |= {"k1_count": 1, "k2_count": 1, "group_count": 2, "block_count": 1, "weights": weights}
    return Operation(Opcode.MATMUL, fields, **control)


def post(destination: int, channels: int, parameters: int, **control: object) -> Operation:
    fields = {"destination": destination, "last_columns": channels - 4, "x_count": X, "x_step": channels}
    fields |= {"y_count": Y, "y_step": X * channels, "group_count": 2, "group_step": 4, "block_count": 1, "parameters": parameters}
    fields |= {"zero_point": ZERO_POINT, "minimum": -100, "maximum": 110, "shift": SHIFT, "multiplier": MULTIPLIER}
    return Operation(Opcode.POST, fields, **control)


def maximum(**control: object) -> Operation:
    """The largest of each two neighbours in x."""
    fields = {"source": OUTPUT, "sources": 1, "combine": Combine.MAX, "last_lanes": 1, "destination": POOLED, "t0_count": 2}
    fields |= {"t0_step": LAST, "t1_count": 1, "group_count": LAST, "group_step": 1, "x_count": 2, "x_step": 2 * LAST}
    fields |= {"x_step_out": LAST, "y_count": Y, "y_step": X * LAST, "y_step_out": 2 * LAST, "minimum": -128, "maximum": 127}
    return Operation(Opcode.VECTOR, fields, **control)


PROGRAM = (
    matmul(INPUT, 0),
    post(HIDDEN, CHANNELS, 32, signal=(Unit.MATMUL,), mark=True),
    matmul(HIDDEN, 16, wait=(Unit.POST,), mark=True),
    post(OUTPUT, LAST, 40),
    maximum(mark=True),
    END,
)


class Case:
    """Random tensors, what is in the memories before, and what must be in the activation memory afterwards."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.integers(-128, 128, (Y * X, CHANNELS)).astype(np.int8)
        weights = [rng.integers(-128, 128, shape).astype(np.int8) for shape in ((CHANNELS, CHANNELS), (CHANNELS, LAST))]
        bias = [rng.integers(-5000, 5000, CHANNELS).astype(np.int32) for _ in range(2)]
        hidden = dense(x, weights[0], bias[0])
        output = dense(hidden, weights[1], bias[1][:LAST])
        pairs = output.reshape(Y, X, LAST)[:, :4].reshape(Y, 2, 2, LAST)
        self.weights = tiles(weights[0]) + tiles(weights[1]) + bias[0].tobytes() + bias[1].tobytes()
        before = rng.integers(-128, 128, CONFIG.activation_bytes).astype(np.int8)
        before[INPUT : INPUT + x.size] = x.ravel()
        after = before.copy()
        for address, tensor in ((HIDDEN, hidden), (OUTPUT, output), (POOLED, pairs.max(axis=2))):
            after[address : address + tensor.size] = tensor.ravel()
        self.before, self.after = before.tobytes(), after.tobytes()

    async def load(self, ctx: SimulatorContext, bus: BusDriver) -> None:
        await bus.write_bytes(ctx, Region.ACTIVATION.base, self.before)
        await bus.write_bytes(ctx, Region.WEIGHT.base, self.weights)

    async def check(self, ctx: SimulatorContext, bus: BusDriver) -> None:
        assert await bus.read_bytes(ctx, Region.ACTIVATION.base, len(self.after)) == self.after


@pytest.mark.parametrize("seed", [1, 2])
@ENGINES
def test_two_layers_and_a_maximum(config: Config, seed: int) -> None:
    case = Case(seed)

    async def bench(ctx: SimulatorContext, bus: BusDriver) -> None:
        await case.load(ctx, bus)
        assert await execute(ctx, bus, PROGRAM, start=20) == (Status.DONE, ErrorCode.NONE)
        await case.check(ctx, bus)
        counters = {name: await register(ctx, bus, f"counter_{name}") for name in COUNTERS}
        assert counters["cycles"] == await register(ctx, bus, "counter_cycles"), "frozen at the end"
        assert counters["array_busy"] == 2 * 2 * 2 * X * Y  # layers, groups, chunks, positions
        assert counters["wait_token"] > 0
        assert counters["array_busy"] < counters["post_busy"] < counters["cycles"] < 2000
        assert counters["wait_step"] == counters["cell_busy"] == 0
        check_exclusive(counters)
        # Three marks, of which two are kept: the first POST, and the second MATMUL.
        assert await register(ctx, bus, "marks") == 3
        marks = []
        for index in range(CONFIG.trace_marks):
            address = Region.TRACE.base + 4 * index * len(MARK_WORDS)
            marks.append({name: await bus.read(ctx, address + 4 * word) for word, name in enumerate(MARK_WORDS)})
        starts = np.cumsum([20] + [operation.definition.length for operation in PROGRAM])
        assert [mark["address"] for mark in marks] == [starts[1], starts[2]]
        assert [mark["array_busy"] for mark in marks] == [2 * 2 * X * Y, counters["array_busy"]]
        assert marks[0]["cycles"] < marks[1]["cycles"] < counters["cycles"]

    run(bench, config)


#: Programs that must stop: error and the address of the instruction to blame.
STOPS: dict[str, tuple[tuple[Operation | int, ...], ErrorCode, int]] = {
    "opcode": ((post(HIDDEN, CHANNELS, 32).encode()[0] | 0x40,), ErrorCode.ILLEGAL_OPCODE, 0),
    "opcode after an instruction": ((maximum(), 0x77), ErrorCode.ILLEGAL_OPCODE, maximum().definition.length),
    "read outside": ((matmul(CONFIG.activation_bytes - 8, 0), END), ErrorCode.ACTIVATION_ADDRESS, 0),
    "weights outside": ((matmul(INPUT, 255), post(HIDDEN, CHANNELS, 32), END), ErrorCode.WEIGHT_ADDRESS, 0),
    "write outside": ((matmul(0, 0), post(1000, CHANNELS, 32), END), ErrorCode.ACTIVATION_ADDRESS, matmul(0, 0).definition.length),
    "no count": ((Operation(Opcode.MATMUL, {}), END), ErrorCode.BAD_FIELD, 0),
    "token that never comes": ((matmul(0, 0, wait=(Unit.POST,)), post(HIDDEN, CHANNELS, 32), END), ErrorCode.TIMEOUT, 0),
    "POST without MATMUL": ((post(HIDDEN, CHANNELS, 32), END), ErrorCode.TIMEOUT, 0),
}


@ENGINES
def test_every_stop_leaves_a_working_engine(config: Config) -> None:
    case = Case(3)

    async def bench(ctx: SimulatorContext, bus: BusDriver) -> None:
        for name, (program, code, address) in STOPS.items():
            await case.load(ctx, bus)
            assert await execute(ctx, bus, program) == (Status.ERROR, code), name
            assert await register(ctx, bus, "error_address") == address, name
        await case.load(ctx, bus)
        assert await execute(ctx, bus, PROGRAM) == (Status.DONE, ErrorCode.NONE)
        assert await register(ctx, bus, "error_address") == 0
        await case.check(ctx, bus)

    run(bench, config, watchdog_cycles=400)


#: A sum of one entry, of which the upper bits are written.
LOOK_UP = {"combine": Combine.SUM, "table": 1, "t0_count": 1, "requantize": 1, "multiplier": 1 << 30, "shift": -23}
#: Programs whose effect on random memories, error or end, interpreter and engines must agree about.
AGREED: dict[str, tuple[Operation, ...]] = {
    "two layers and a maximum": PROGRAM,
    "look-up": (
        Operation(Opcode.TABLE, {"tables": 1}),
        Operation(Opcode.VECTOR, {**maximum().fields, **LOOK_UP}),
        END,
    ),
}


@pytest.mark.parametrize("name", AGREED)
@ENGINES
def test_interpreter_and_engine_agree(config: Config, name: str) -> None:
    program, rng = AGREED[name], np.random.default_rng(6)
    memory, weights = (rng.integers(-128, 128, size, np.int8) for size in (config.activation_bytes, config.weight_bytes))

    async def bench(ctx: SimulatorContext, bus: BusDriver) -> None:
        await bus.write_bytes(ctx, Region.ACTIVATION.base, memory.tobytes())
        await bus.write_bytes(ctx, Region.WEIGHT.base, weights.tobytes())
        expected = interpret(config, encode_program(program), memory, weights)
        status, code = await execute(ctx, bus, program)
        assert (code, await register(ctx, bus, "error_address")) == (expected.error, expected.address)
        if expected.error is ErrorCode.NONE:
            assert status == Status.DONE
            assert await bus.read_bytes(ctx, Region.ACTIVATION.base, memory.size) == memory.tobytes()

    run(bench, config)


@pytest.mark.parametrize("name", STOPS)
@ENGINES
def test_the_interpreter_stops_as_the_engines_do(config: Config, name: str) -> None:
    program, code, address = STOPS[name]
    words = [word for item in program for word in ([item] if isinstance(item, int) else item.encode())]
    memories = np.zeros(config.activation_bytes, np.int8), np.zeros(config.weight_bytes, np.int8)
    assert interpret(config, words, *memories) == Outcome(code, address, ())


@ENGINES
def test_overrun_and_abort(config: Config) -> None:
    async def bench(ctx: SimulatorContext, bus: BusDriver) -> None:
        last = CONFIG.program_words - 1
        assert await execute(ctx, bus, [maximum().encode()[0]], start=last) == (Status.ERROR, ErrorCode.PROGRAM_OVERRUN)
        assert await register(ctx, bus, "error_address") == last
        await bus.write(ctx, register_address("start_address"), 0xFFFF_FFFF)
        await bus.write(ctx, register_address("control"), Control.START)
        assert await finish(ctx, bus) == (Status.ERROR, ErrorCode.PROGRAM_OVERRUN)

        await bus.write_words(ctx, Region.PROGRAM.base, encode_program([post(HIDDEN, CHANNELS, 32), END]))
        await bus.write(ctx, register_address("start_address"), 0)
        await bus.write(ctx, register_address("control"), Control.START)
        assert split_status(await register(ctx, bus, "status"))[0] == Status.BUSY
        await bus.write(ctx, register_address("control"), Control.ABORT)
        assert await finish(ctx, bus) == (Status.ERROR, ErrorCode.ABORTED)
        assert await execute(ctx, bus, [END]) == (Status.DONE, ErrorCode.NONE)

    run(bench, config)


@ENGINES
def test_addresses_without_memory(config: Config) -> None:
    async def bench(ctx: SimulatorContext, bus: BusDriver) -> None:
        for address in (Region.WEIGHT.base + CONFIG.weight_bytes, Region.TRACE.base + 2 * 4 * len(MARK_WORDS), 0x5000_0000, 2):
            with pytest.raises(BusError):
                await bus.read(ctx, address)

    run(bench, config)
