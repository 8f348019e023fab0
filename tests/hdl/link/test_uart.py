"""UART: transmitter into receiver, rates that are a little off, and damaged characters."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component
from amaranth.sim import SimulatorContext
from support.benches.simulate import simulator_of

from systola_hdl.link.uart import UartReceiver, UartTransmitter


def run(
    dut: Component | Module,
    *benches: Callable[[SimulatorContext], Awaitable[None]],
    blocks: Mapping[str, Component] | None = None,
) -> None:
    simulator = simulator_of(dut, blocks)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def character(byte: int, stop: int = 1) -> list[int]:
    """Levels of the line, bit by bit."""
    return [0, *(byte >> bit & 1 for bit in range(8)), stop]


def receive(levels: list[int], cycles_a_bit: float, divisor: int, *, ready: bool = True) -> list[int]:
    """Drive the line with bits of any length; return the bytes received."""
    dut = UartReceiver()
    received: list[int] = []

    async def testbench(ctx: SimulatorContext) -> None:
        ctx.set(dut.divisor, divisor)
        ctx.set(dut.o.ready, ready)
        total = int(cycles_a_bit * len(levels))
        for cycle in range(total + 2 * divisor + 10):
            ctx.set(dut.rx, levels[min(int(cycle / cycles_a_bit), len(levels) - 1)])
            _, _, valid, byte = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and ready:
                received.append(byte)
        if not ready and ctx.get(dut.o.valid):
            received.append(ctx.get(dut.o.payload))

    run(dut, testbench)
    return received


@pytest.mark.parametrize("divisor", [4, 5, 16, 17, 100])
def test_loopback(divisor: int) -> None:
    rng = random.Random(divisor)
    sent = [0x00, 0xFF, 0x55, 0xAA, *(rng.randrange(256) for _ in range(12))]
    received: list[int] = []
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter()
    m.submodules.receiver = receiver = UartReceiver()
    m.d.comb += [receiver.rx.eq(transmitter.tx), receiver.divisor.eq(divisor), transmitter.divisor.eq(divisor)]
    elapsed = 0

    async def send(ctx: SimulatorContext) -> None:
        for index, byte in enumerate(sent):
            if index >= 8 and rng.random() < 0.5:
                await ctx.tick().repeat(rng.randrange(1, 15 * divisor))
            ctx.set(transmitter.i.payload, byte)
            ctx.set(transmitter.i.valid, 1)
            await ctx.tick().until(transmitter.i.ready)
            ctx.set(transmitter.i.valid, 0)

    async def collect(ctx: SimulatorContext) -> None:
        nonlocal elapsed
        ctx.set(receiver.o.ready, 1)
        while len(received) < len(sent):
            _, _, valid, byte = await ctx.tick().sample(receiver.o.valid, receiver.o.payload)
            elapsed += 1
            if valid:
                received.append(byte)
            if len(received) == 8 and valid:
                # Without pauses: ten bits a byte, the last up to the middle of its stop bit.
                assert elapsed <= 8 * 10 * divisor + 4

    run(m, send, collect, blocks={"receiver": receiver})
    assert received == sent


@pytest.mark.parametrize("divisor", [16, 17, 50])
@pytest.mark.parametrize("error", [-0.02, 0.02])
def test_rates_a_little_off(divisor: int, error: float) -> None:
    rng = random.Random(1)
    sent = [0x00, 0xFF, 0x80, 0x7F, *(rng.randrange(256) for _ in range(12))]
    assert receive([1, *(level for byte in sent for level in character(byte)), 1], divisor * (1 + error), divisor) == sent


def test_framing_error_drops_the_byte() -> None:
    levels = [1, *character(0x12), *character(0x34, stop=0), 1, *character(0x56), *[0] * 30, 1, *character(0x78), 1]
    assert receive(levels, 16, 16) == [0x12, 0x56, 0x78]


def test_glitch_is_no_start_bit() -> None:
    # Quarter bits: a low of one quarter is gone in the middle of the bit.
    levels = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1] + [level for level in character(0x9A) for _ in range(4)] + [1] * 8
    assert receive(levels, 5, 20) == [0x9A]


def test_byte_that_nobody_takes_is_kept() -> None:
    assert receive([1, *character(0x21), *character(0x43), 1], 16, 16, ready=False) == [0x21]
