# amaranth: UnusedElaboratable=no
"""Registers, counters, watchdog and bus decoder of the compact engine."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.sim import Simulator, SimulatorContext
from support.benches.bus_driver import BusDriver, BusError
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import COUNTERS, REGISTERS, Access, Control, Region, read_only_values, region_bytes
from systola_firmware.spec.presets import preset
from systola_hdl.common.logic import is_below, moved, one_of
from systola_hdl.compact.control.bus_decoder import BusDecoder
from systola_hdl.compact.control.counters import VISIT_CYCLES
from systola_hdl.compact.control.registers import Registers
from systola_hdl.compact.control.state_layout import StateLayout

CONFIG = preset("icebreaker")
LAYOUT = StateLayout(CONFIG)
Bench = Callable[[SimulatorContext], Awaitable[None]]


def run(dut: Elaboratable, *benches: Bench) -> None:
    simulator = simulator_of(dut)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


async def access(ctx: SimulatorContext, host: object, address: int, data: int | None = None) -> int:
    ctx.set(host.valid, 1)
    ctx.set(host.address, address)
    ctx.set(host.write, data is not None)
    ctx.set(host.data, data or 0)
    (word,) = await ctx.tick().sample(host.read_data).until(host.done)
    ctx.set(host.valid, 0)
    return int(word)


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(trace_marks=64, clock_hz=12_000_000)], ids=["icebreaker", "other"])
def test_registers_read_and_write_as_the_table_says(config: Config) -> None:
    layout = StateLayout(config)
    dut = Registers(config)
    constants = read_only_values(config)
    pulses: list[tuple[int, int]] = []
    finished = False

    async def bench(ctx: SimulatorContext) -> None:
        nonlocal finished
        ctx.set(dut.step.idle, 1)
        for name in REGISTERS:
            assert await access(ctx, dut.host, layout.register(name)) == constants.get(name, 0), name
        for name, register in REGISTERS.items():
            if name != "control":
                await access(ctx, dut.host, layout.register(name), 0xA000_0000 + register.offset)
        for name, register in REGISTERS.items():
            written = register.access is Access.READ_WRITE
            expected = 0xA000_0000 + register.offset if written else constants.get(name, 0)
            assert await access(ctx, dut.host, layout.register(name)) == expected, name
        for value in (Control.START, Control.ABORT, Control.START | Control.ABORT, 0xFFFF_FFFC):
            await access(ctx, dut.host, layout.register("control"), int(value))
        for address in range(layout.trace_words):
            await access(ctx, dut.host, address, 1)
            assert await access(ctx, dut.host, address) == 0, "the trace cannot be written"
        finished = True

    async def watch(ctx: SimulatorContext) -> None:
        while not finished:
            _, _, start, abort = await ctx.tick().sample(dut.start, dut.abort)
            if start or abort:
                pulses.append((start, abort))

    run(dut, bench, watch)
    assert pulses == [(1, 0), (0, 1), (1, 1)]


def test_counters_are_exact_after_a_round() -> None:
    rng = random.Random(1)
    dut = Registers(CONFIG)
    expected = dict.fromkeys(COUNTERS, 0)

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range(3):
            for _ in range(rng.randrange(200)):
                events = {name: rng.randrange(4) != 0 for name in LAYOUT.scanned if name != "cycles"}
                ctx.set(dut.run, 1)
                ctx.set(dut.events, events)
                # Other steps do not matter.
                ctx.set(dut.step.idle, rng.randrange(2))
                for name in ("cycles", *(name for name, value in events.items() if value)):
                    expected[name] += 1
                await ctx.tick()
            ctx.set(dut.run, 0)
            ctx.set(dut.events, dict.fromkeys(events, 0))
            await ctx.tick().repeat(VISIT_CYCLES + 1)
            ctx.set(dut.step.idle, 1)
            for name in COUNTERS:
                assert await access(ctx, dut.host, LAYOUT.register(f"counter_{name}")) == expected[name], name

    run(dut, bench)


def test_counters_carry_through_all_bits() -> None:
    dut = Registers(CONFIG)

    async def bench(ctx: SimulatorContext) -> None:
        # Into the word of a counter, by the way that the sequencer has.
        word = LAYOUT.register("counter_cycles")
        ctx.set(dut.step.read, LAYOUT.register("identity"))
        ctx.set(dut.step.write, word)
        await ctx.tick().until(dut.step.commit)
        ctx.set(dut.step.enable, 1)
        await ctx.tick().until(dut.step.commit)
        ctx.set(dut.step.enable, 0)
        before = read_only_values(CONFIG)["identity"]
        cycles = 1 << 8
        ctx.set(dut.run, 1)
        await ctx.tick().repeat(cycles)
        ctx.set(dut.run, 0)
        await ctx.tick().repeat(VISIT_CYCLES + 1)
        ctx.set(dut.step.idle, 1)
        assert await access(ctx, dut.host, word) == before + cycles

    run(dut, bench)


def test_no_counter_is_read_in_the_cycle_in_which_it_is_written() -> None:
    """Block RAM may deliver anything then, which simulation does not show."""
    dut = Registers(CONFIG)

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(dut.run, 1)
        ctx.set(dut.step.idle, 1)
        longest = 0
        for delay in range(1, VISIT_CYCLES + 1):
            for name, index in LAYOUT.scanned.items():
                await ctx.tick().repeat(delay)
                ctx.set(dut.host.valid, 1)
                ctx.set(dut.host.address, LAYOUT.register(f"counter_{name}"))
                cycles, before, done = 0, -1, 0
                while not done:
                    written = before
                    _, _, done, before = await ctx.tick().sample(dut.host.done, dut.scanning)
                    cycles += 1
                ctx.set(dut.host.valid, 0)
                assert written != index, (name, delay)
                longest = max(longest, cycles)
        assert longest <= 5  # put off once at most

    run(dut, bench)


@pytest.mark.parametrize("limit", [100, 256])
def test_watchdog(limit: int) -> None:
    dut = Registers(CONFIG, watchdog_cycles=limit)

    async def quiet(ctx: SimulatorContext) -> int:
        """Cycles until the time-out."""
        for cycle in range(2 * limit):
            if ctx.get(dut.timeout):
                return cycle
            await ctx.tick()
        raise AssertionError("no time-out")

    async def bench(ctx: SimulatorContext) -> None:
        rng = random.Random(limit)
        for _ in range(2):
            ctx.set(dut.run, 1)
            for _ in range(12):
                ctx.set(dut.progress, 1)
                await ctx.tick()
                ctx.set(dut.progress, 0)
                for _ in range(rng.randrange(limit)):
                    assert not ctx.get(dut.timeout)
                    await ctx.tick()
            ctx.set(dut.progress, 1)
            await ctx.tick()
            ctx.set(dut.progress, 0)
            assert limit <= await quiet(ctx) <= limit + 3 * VISIT_CYCLES
            ctx.set(dut.run, 0)
            await ctx.tick().repeat(2)
            assert not ctx.get(dut.timeout)

    run(dut, bench)


def test_watchdog_limit_is_checked() -> None:
    with pytest.raises(ValueError, match="watchdog_cycles must be at least 1, not 0"):
        Registers(CONFIG, watchdog_cycles=0)


@pytest.mark.parametrize(
    "changes", [{}, {"program_words": 100, "trace_marks": 5, "weight_bytes": 1040}], ids=["icebreaker", "odd sizes"]
)
def test_decoder(changes: dict[str, int]) -> None:
    config = CONFIG.replace(**changes)
    layout = StateLayout(config)
    rng = random.Random(3)
    dut = BusDecoder(config)
    bus = BusDriver(dut.bus)
    seen: list[tuple[str, int, int, int]] = []
    finished = False
    destinations = {
        Region.REGISTERS: ("state", layout.registers),
        Region.PROGRAM: ("weight", config.weight_bytes // 4),
        Region.ACTIVATION: ("activation", 0),
        Region.WEIGHT: ("weight", 0),
        Region.TRACE: ("state", 0),
    }

    def serve(name: str) -> Bench:
        port = getattr(dut, name)

        async def bench(ctx: SimulatorContext) -> None:
            while not finished:
                ctx.set(port.done, 0)
                ctx.set(port.read_data, rng.getrandbits(32))
                _, _, valid, address, write, data = await ctx.tick().sample(port.valid, port.address, port.write, port.data)
                if valid and rng.random() < 0.5:
                    seen.append((name, address, write, data if write else 0))
                    ctx.set(port.done, 1)
                    ctx.set(port.read_data, 0x100_0000 + address)
                    await ctx.tick()

        return bench

    async def bench(ctx: SimulatorContext) -> None:
        nonlocal finished
        expected = []
        for region, (name, base) in destinations.items():
            size = region_bytes(config, region)
            for offset in (0, 4, size - 4):
                word = base + offset // 4
                assert await bus.read(ctx, region.base + offset) == 0x100_0000 + word
                assert await bus._access(ctx, region.base + offset, 1, 0xDEAD0000 + offset) == 0
                expected += [(name, word, 0, 0), (name, word, 1, 0xDEAD0000 + offset)]
            for offset in (size, size + 4, 2 * size, 1, 2, 3, 0x0FFF_FFFC):
                with pytest.raises(BusError):
                    await bus.read(ctx, region.base + offset)
                with pytest.raises(BusError):
                    await bus.write(ctx, region.base + offset, 1)
        for address in (0x5000_0000, 0xF000_0000, 0xFFFF_FFFC):
            with pytest.raises(BusError):
                await bus.read(ctx, address)
        assert seen == expected
        finished = True

    run(dut, bench, *(serve(name) for name in ("state", "activation", "weight")))


def test_forms_of_logic() -> None:
    value = Signal(16)
    limits = (160, 14336, 30, 2048, 16384, 100, 1, 37, 20480)
    bases = ((192, 30), (14336, 2048), (14335, 2048), (0, 16384), (5, 3))
    results: dict[str, tuple[Value, Callable[[int], int]]] = {}
    for limit in limits:
        results[f"below {limit}"] = (is_below(value, limit), lambda number, limit=limit: number < limit)
    for base, size in bases:
        results[f"{base} + {size}"] = (moved(value, base, size), lambda number, base=base, size=size: base + number % size)
    results["one of"] = (
        one_of([(value == 3, value + 1), (value == 5, 77), (value[15], value)]),
        lambda number: {3: 4, 5: 77}.get(number, number if number >> 15 else 0),
    )
    m = Module()
    outputs = {}
    for name, (logic, _) in results.items():
        outputs[name] = Signal(18, name=f"o{len(outputs)}")
        m.d.comb += outputs[name].eq(logic)
    numbers = {limit + offset for limit in (*limits, 3, 6, 40000) for offset in (-1, 0, 1)} | {0, 65535}

    async def bench(ctx: SimulatorContext) -> None:
        for number in sorted(numbers):
            ctx.set(value, number)
            for name, (_, model) in results.items():
                _, _, size = name.partition(" + ")
                if not size or number < int(size):
                    assert ctx.get(outputs[name]) == model(number), (name, number)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
