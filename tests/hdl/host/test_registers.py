"""Registers, counters, trace, program store and bus decoder."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
from amaranth.hdl import Elaboratable
from amaranth.sim import SimulatorContext
from support.benches.bus_driver import BusDriver, BusError
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Unit
from systola_firmware.spec.memory_map import (
    COUNTERS,
    MARK_WORDS,
    REGION_SHIFT,
    REGISTERS,
    Access,
    Control,
    Region,
    Status,
    present_regions,
    read_only_values,
    region_bytes,
    split_status,
)
from systola_firmware.spec.presets import PRESETS, preset
from systola_hdl.host.bus_decoder import BusDecoder
from systola_hdl.host.counters import COUNTER_LAYOUT, EVENT_LAYOUT, Counters
from systola_hdl.host.program_store import ProgramStore
from systola_hdl.host.registers import Registers
from systola_hdl.host.trace import QUEUE_DEPTH, Trace

CONFIG = preset("tiny-4x4").replace(program_words=100, trace_marks=5)
Bench = Callable[[SimulatorContext], Awaitable[None]]


def run(dut: Elaboratable, *benches: Bench) -> None:
    simulator = simulator_of(dut)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_register_reads_as_the_table_says(name: str) -> None:
    config = PRESETS[name]
    dut = Registers(config)
    bus = BusDriver(dut.host)
    constants = read_only_values(config)
    inputs = {"error_address": 0x1234, "marks": 77, **{f"counter_{name}": 1000 + index for index, name in enumerate(COUNTERS)}}
    initial = {"control": 0, "start_address": 0, "scratch": 0}

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(dut.counters, {counter: inputs[f"counter_{counter}"] for counter in COUNTERS})
        ctx.set(dut.marks, inputs["marks"])
        ctx.set(dut.error, 1)
        ctx.set(dut.error_code, ErrorCode.TIMEOUT)
        ctx.set(dut.error_address, inputs["error_address"])
        for register in REGISTERS.values():
            value = await bus.read(ctx, register.offset)
            if register.name == "status":
                assert split_status(value) == (Status.ERROR, ErrorCode.TIMEOUT)
            else:
                assert value == (constants | inputs | initial)[register.name], register.name

    run(dut, bench)


def test_writing() -> None:
    dut = Registers(CONFIG)
    bus = BusDriver(dut.host)
    pulses: list[tuple[int, int]] = []

    async def bench(ctx: SimulatorContext) -> None:
        before = {register.name: await bus.read(ctx, register.offset) for register in REGISTERS.values()}
        for register in REGISTERS.values():
            if register.name != "control":
                await bus.write(ctx, register.offset, 0xA000_0000 + register.offset)
        for register in REGISTERS.values():
            writable = register.access is Access.READ_WRITE
            expected = 0xA000_0000 + register.offset if writable else before[register.name]
            assert await bus.read(ctx, register.offset) == expected
        assert ctx.get(dut.start_address) == 0xA000_0000 + REGISTERS["start_address"].offset
        for value in (Control.START, Control.ABORT, Control.START | Control.ABORT, 0xFFFF_FFFC):
            await bus.write(ctx, REGISTERS["control"].offset, int(value))

    async def watch(ctx: SimulatorContext) -> None:
        for _ in range(800):
            _, _, start, abort = await ctx.tick().sample(dut.start, dut.abort)
            if start or abort:
                pulses.append((start, abort))

    run(dut, bench, watch)
    assert pulses == [(1, 0), (0, 1), (1, 1)]


def test_counters() -> None:
    rng = random.Random(1)
    dut = Counters()
    expected = dict.fromkeys(COUNTERS, 0)
    history = [dict(expected)] * Counters.latency

    async def bench(ctx: SimulatorContext) -> None:
        for cycle in range(300):
            clear, running = cycle == 150, rng.random() < 0.7
            events = {name: rng.randrange(2) for name in EVENT_LAYOUT.members}
            ctx.set(dut.clear, clear)
            ctx.set(dut.run, running)
            ctx.set(dut.events, events)
            await ctx.tick()
            for name in COUNTERS:
                expected[name] = 0 if clear else expected[name] + (running and (name == "cycles" or events[name]))
            history.append(dict(expected))
            assert {name: ctx.get(dut.values[name]) for name in COUNTERS} == history[-1 - Counters.latency]

    run(dut, bench)


@pytest.mark.parametrize("seed", range(2))
def test_trace_keeps_the_first_and_counts_all(seed: int) -> None:
    rng = random.Random(seed)
    dut = Trace(CONFIG)
    bus = BusDriver(dut.host)

    async def fill(ctx: SimulatorContext) -> list[tuple[int, ...]]:
        expected: list[tuple[int, ...]] = []
        for _ in range(350):
            counters = {name: rng.getrandbits(32) for name in COUNTER_LAYOUT.members}
            marks = [{"valid": 0, "address": 0} for _ in Unit]
            if ctx.get(dut.level) < QUEUE_DEPTH and rng.random() < 0.06:
                for unit in rng.choice([[Unit.MATMUL], [Unit.POST], [Unit.MATMUL, Unit.POST], list(Unit)]):
                    marks[unit] = {"valid": 1, "address": rng.getrandbits(17)}
                    expected.append((marks[unit]["address"], *(counters[name] for name in MARK_WORDS[1:])))
            ctx.set(dut.marks, marks)
            await ctx.tick()
            ctx.set(dut.counters, counters)
        ctx.set(dut.marks, [{"valid": 0, "address": 0} for _ in Unit])
        await ctx.tick().until(dut.idle)
        return expected

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range(2):
            expected = await fill(ctx)
            assert len(expected) > CONFIG.trace_marks
            assert ctx.get(dut.count) == len(expected)
            words = [await bus.read(ctx, 4 * index) for index in range(CONFIG.trace_marks * len(MARK_WORDS))]
            assert words == [word for mark in expected[: CONFIG.trace_marks] for word in mark]
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            assert ctx.get(dut.count) == 0

    run(dut, bench)


def test_program_store_serves_fetch_and_host() -> None:
    rng = random.Random(2)
    words = [rng.getrandbits(32) for _ in range(CONFIG.program_words)]
    dut = ProgramStore(CONFIG)
    bus = BusDriver(dut.host)
    checked = 0
    ready = False

    async def host(ctx: SimulatorContext) -> None:
        nonlocal ready
        await bus.write_words(ctx, 0, words)
        ready = True
        for _ in range(60):
            index = rng.randrange(len(words))
            assert await bus.read(ctx, 4 * index) == words[index]

    async def fetch(ctx: SimulatorContext) -> None:
        nonlocal checked
        while not ready:
            await ctx.tick()
        for _ in range(200):
            index, enable = rng.randrange(len(words)), rng.random() < 0.6
            ctx.set(dut.fetch_address, index)
            ctx.set(dut.fetch_enable, enable)
            await ctx.tick()
            if enable:
                assert ctx.get(dut.fetch_data) == words[index]
                checked += 1
        ctx.set(dut.fetch_enable, 0)

    run(dut, host, fetch)
    assert checked > 50


@pytest.mark.parametrize("config", [CONFIG, preset("tiny-8x4-dma")], ids=["without DMA", "with DMA"])
def test_decoder(config: Config) -> None:
    rng = random.Random(3)
    dut = BusDecoder(config)
    regions = present_regions(config)
    bus = BusDriver(dut.bus)
    seen: list[tuple[Region, int, int, int]] = []
    finished = False

    def serve(region: Region) -> Bench:
        port = getattr(dut, region.name.lower())

        async def bench(ctx: SimulatorContext) -> None:
            while not finished:
                ctx.set(port.request.ready, rng.random() < 0.5)
                _, _, valid, ready, payload = await ctx.tick().sample(port.request.valid, port.request.ready, port.request.payload)
                if not (valid and ready):
                    continue
                seen.append((region, payload.address, payload.write, payload.data))
                ctx.set(port.request.ready, 0)
                await ctx.tick().repeat(rng.randrange(1, 5))
                ctx.set(port.response.payload, {"data": 0x1000 * region + payload.address, "error": 0})
                ctx.set(port.response.valid, 1)
                await ctx.tick().until(port.response.ready)
                ctx.set(port.response.valid, 0)

        return bench

    async def bench(ctx: SimulatorContext) -> None:
        nonlocal finished
        expected = []
        for region in regions:
            size = region_bytes(config, region)
            for offset in (0, 4, size - 4):
                assert await bus.read(ctx, region.base + offset) == 0x1000 * region + offset
                await bus.write(ctx, region.base + offset, 0xDEAD0000 + offset)
                expected += [(region, offset, 0, 0), (region, offset, 1, 0xDEAD0000 + offset)]
            for offset in (size, size + 4, 1, 2, 3, 0x0FFF_FFFC):
                with pytest.raises(BusError):
                    await bus.read(ctx, region.base + offset)
                with pytest.raises(BusError):
                    await bus.write(ctx, region.base + offset, 1)
        for address in (len(regions) << REGION_SHIFT, 0xF000_0000, 0xFFFF_FFFC):
            with pytest.raises(BusError):
                await bus.read(ctx, address)
        assert seen == expected
        finished = True

    run(dut, bench, *(serve(region) for region in regions))
