# amaranth: UnusedElaboratable=no
"""The top levels: a register read through the byte streams, and through the pins of both."""

from __future__ import annotations

import struct
import zlib

import pytest
from amaranth.sim import SimulatorContext
from cobs import cobs
from support.benches.simulate import simulator_of

from systola_firmware.spec.link import LinkOperation, LinkStatus
from systola_firmware.spec.memory_map import IDENTITY, register_address
from systola_firmware.spec.presets import preset
from systola_hdl.tops.board import Systola
from systola_hdl.tops.simulation import SimulationTop

DIVISOR = 4
CONFIG = preset("tiny-4x4").replace(
    activation_bytes=256, weight_bytes=256, program_words=64, clock_hz=4_000_000, uart_baud=1_000_000
)


def read_identity() -> bytes:
    body = struct.pack("<BBBBI", 0, LinkOperation.READ, 1, 0, register_address("identity"))
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def answer() -> bytes:
    body = struct.pack("<BBBBII", 0, LinkStatus.OK, 1, 1, register_address("identity"), IDENTITY)
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def run(dut: SimulationTop | Systola, *benches: object) -> None:
    simulator = simulator_of(dut)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def test_byte_streams() -> None:
    dut = SimulationTop(CONFIG)
    received = bytearray()

    async def bench(ctx: SimulatorContext) -> None:
        assert not ctx.get(dut.busy)
        for byte in read_identity():
            ctx.set(dut.rx_data, byte)
            ctx.set(dut.rx_valid, 1)
            await ctx.tick().until(dut.rx_ready)
        ctx.set(dut.rx_valid, 0)
        ctx.set(dut.tx_ready, 1)
        for _ in range(300):
            _, _, valid, byte, line = await ctx.tick().sample(dut.tx_valid, dut.tx_data, dut.uart_tx)
            assert line, "the serial line stays quiet"
            if valid:
                received.append(byte)

    run(dut, bench)
    assert received == answer()


@pytest.mark.parametrize("board", [False, True])
def test_serial_line(board: bool) -> None:
    dut = Systola(CONFIG) if board else SimulationTop(CONFIG)
    rx, tx = (dut.rx, dut.tx) if board else (dut.uart_rx, dut.uart_tx)
    received = bytearray()

    async def send(ctx: SimulatorContext) -> None:
        if not board:
            ctx.set(dut.uart_divisor, DIVISOR)
            ctx.set(dut.select_uart, 1)
        else:
            assert not ctx.get(dut.led_activity)
        for byte in read_identity():
            for level in [0, *(byte >> bit & 1 for bit in range(8)), 1]:
                ctx.set(rx, level)
                await ctx.tick().repeat(DIVISOR)

    async def receive(ctx: SimulatorContext) -> None:
        while len(received) < len(answer()):
            await ctx.tick().until(~tx)
            await ctx.tick().repeat(DIVISOR + DIVISOR // 2 - 1)
            byte = 0
            for bit in range(8):
                byte |= ctx.get(tx) << bit
                await ctx.tick().repeat(DIVISOR)
            assert ctx.get(tx)
            received.append(byte)
        assert not board or ctx.get(dut.led_activity)

    run(dut, send, receive)
    assert received == answer()


def test_slow_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="uart_baud 300 is too slow for a clock of 50000000 Hz"):
        Systola(preset("tiny-4x4").replace(uart_baud=300))
