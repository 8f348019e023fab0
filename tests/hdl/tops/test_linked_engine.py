# amaranth: UnusedElaboratable=no
"""Two links on one engine: the arbiter of their bus, and words, programs and DMA through both at once."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from cobs import cobs
from support.benches.bus_driver import BusDriver, BusError
from support.benches.simulate import simulator_of
from support.pcie.host_memory import BASE, HostLink, PlainHost

from systola_firmware.spec.dma import DESCRIPTOR_BYTES, RECORD_BYTES, Descriptor, DmaError, DmaKind, StatusRecord, split_dma_status
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, encode_program
from systola_firmware.spec.link import LinkOperation, LinkStatus
from systola_firmware.spec.memory_map import DmaStatus, Region, Status, dma_register_address, register_address, split_status
from systola_firmware.spec.presets import preset
from systola_hdl.host.bus_arbiter import BusArbiter
from systola_hdl.tops.linked_engine import LinkedEngine

CONFIG = preset("tiny-8x4-dma").replace(
    activation_bytes=512, weight_bytes=256, program_words=64, trace_marks=1, clock_hz=4_000_000, uart_baud=1_000_000
)
DIVISOR = CONFIG.uart_divisor
LOOPS = {f"{loop}_count": 1 for loop in ("t0", "t1", "group", "y")}
#: Adds 1 to four bytes.
INCREMENT = Operation(
    Opcode.VECTOR,
    {**LOOPS, "source": 8, "sources": 1, "destination": 100, "x_count": 4, "x_step": 1, "x_step_out": 1}
    | {"last_lanes": 1, "minimum": -128, "maximum": 127, "bias": 1},
    mark=True,
)
RING, RECORD, PROGRAM, DATA, OUT = 0x100, 0x40, 0x203, 0x301, 0x385  #: offsets in the host's memory


def test_arbiter() -> None:
    """Every client gets the answers to its own requests, in order; none waits for more than one access of each of the
    others."""
    count = 3
    dut = BusArbiter(count)
    order: list[int] = []
    finished = [False] * count

    async def target(ctx: Any) -> None:
        rng = random.Random(1)
        while True:
            ctx.set(dut.bus.request.ready, rng.random() < 0.6)
            _, _, valid, ready, address = await ctx.tick().sample(
                dut.bus.request.valid, dut.bus.request.ready, dut.bus.request.payload.address
            )
            if valid and ready:
                ctx.set(dut.bus.request.ready, 0)
                await ctx.tick().repeat(rng.randrange(1, 4))
                ctx.set(dut.bus.response.payload, {"data": address ^ 0x5555, "error": address & 1})
                ctx.set(dut.bus.response.valid, 1)
                taken = 0
                while not taken:
                    _, _, taken = await ctx.tick().sample(dut.bus.response.ready)
                ctx.set(dut.bus.response.valid, 0)
                order.append(address >> 16)

    def client(number: int) -> Any:
        async def bench(ctx: Any) -> None:
            bus, rng = BusDriver(dut.clients[number]), random.Random(number)
            for index in range(30):
                address = number << 16 | index << 1
                assert await bus.read(ctx, address) == address ^ 0x5555
                with pytest.raises(BusError):
                    await bus.write(ctx, address | 1, rng.getrandbits(32))
            finished[number] = True

        return bench

    simulator = simulator_of(dut)
    for number in range(count):
        simulator.add_testbench(client(number))
    simulator.add_testbench(target, background=True)
    simulator.run()
    assert all(finished)
    busy = order[: 3 * 55]  # while all still ask
    assert all(len(set(busy[at : at + count])) == count for at in range(0, len(busy) - count, count))
    with pytest.raises(ValueError, match="clients must be at least 1, not 0"):
        BusArbiter(0)


def frame(sequence: int) -> bytes:
    body = struct.pack("<BBBBI", sequence, LinkOperation.READ, 1, 0, register_address("config_rows"))
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def answer(sequence: int) -> bytes:
    body = struct.pack("<BBBBII", sequence, LinkStatus.OK, 1, sequence + 1, register_address("config_rows"), CONFIG.rows)
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def test_both_links_at_once() -> None:
    """A program comes by DMA, runs, fails and runs again, while the other link's words and the serial line's frames go
    on."""
    dut = LinkedEngine(CONFIG)
    host = PlainHost(bytearray(random.Random(2).randbytes(0x400)))
    link = HostLink(dut.port, host, random.Random(3), latency=20, busy=0.3)
    bus = BusDriver(dut.port.bus)
    program = np.array([*encode_program([INCREMENT, Operation(Opcode.END, {})]), 0x7F], "<u4").tobytes()
    host.memory[PROGRAM : PROGRAM + len(program)] = program
    host.memory[DATA : DATA + 4] = np.array([1, -2, 126, 127], np.int8).tobytes()
    jobs = [
        Descriptor(DmaKind.TO_DEVICE, len(program), Region.PROGRAM.base + 4, BASE + PROGRAM),
        Descriptor(DmaKind.TO_DEVICE, 4, Region.ACTIVATION.base + 8, BASE + DATA),
        Descriptor(DmaKind.RUN, device_address=1),
        Descriptor(DmaKind.FROM_DEVICE, 4, Region.ACTIVATION.base + 100, BASE + OUT),
        Descriptor(DmaKind.INTERRUPT),
        Descriptor(DmaKind.RUN, device_address=len(program) // 4),
    ]
    received = bytearray()

    def record() -> StatusRecord:
        return StatusRecord.decode(bytes(host.memory[RECORD : RECORD + RECORD_BYTES]))

    async def wait(ctx: Any) -> None:
        for _ in range(300):
            if not await bus.read(ctx, dma_register_address("status")) & DmaStatus.BUSY:
                return
        raise AssertionError("the DMA engine hangs")

    async def use(ctx: Any) -> None:
        host.memory[RING : RING + len(jobs) * DESCRIPTOR_BYTES] = b"".join(job.encode() for job in jobs)
        values = {"ring_low": BASE + RING & 0xFFFFFFFF, "ring_high": BASE >> 32, "ring_size": 8}
        values |= {"record_low": BASE + RECORD & 0xFFFFFFFF, "record_high": BASE >> 32, "doorbell": 5}
        for name, value in values.items():
            await bus.write(ctx, dma_register_address(name), value)
        await wait(ctx)
        assert np.frombuffer(bytes(host.memory[OUT : OUT + 4]), np.int8).tolist() == [2, -1, 127, 127]
        told = record()
        assert (told.completed, told.error, split_status(told.engine_status)) == (5, DmaError.NONE, (Status.DONE, ErrorCode.NONE))
        assert (told.marks, told.error_address) == (1, 0)
        assert told.counters["cycles"] > told.counters["post_busy"] > 0
        assert told.counters["cycles"] == await bus.read(ctx, register_address("counter_cycles"))
        await bus.write(ctx, dma_register_address("doorbell"), 6)
        await wait(ctx)
        await ctx.tick().repeat(60)
        told, bad_word = record(), len(program) // 4
        assert (told.completed, told.error, told.error_address) == (5, DmaError.PROGRAM_FAILED, bad_word)
        assert split_status(told.engine_status) == (Status.ERROR, ErrorCode.ILLEGAL_OPCODE)
        await bus.write(ctx, dma_register_address("control"), 1)
        await wait(ctx)
        assert split_dma_status(await bus.read(ctx, dma_register_address("status"))) == (DmaStatus.LINK_UP, DmaError.NONE)
        await bus.write(ctx, register_address("start_address"), 1)
        await bus.write(ctx, register_address("control"), 1)
        for _ in range(50):
            flags, _ = split_status(await bus.read(ctx, register_address("status")))
        assert flags == Status.DONE
        assert host.interrupts == 2

    async def send(ctx: Any) -> None:
        for byte in frame(0) + frame(1):
            for level in [0, *(byte >> bit & 1 for bit in range(8)), 1]:
                ctx.set(dut.rx, level)
                await ctx.tick().repeat(DIVISOR)

    async def receive(ctx: Any) -> None:
        while len(received) < len(answer(0) + answer(1)):
            await ctx.tick().until(~dut.tx)
            await ctx.tick().repeat(DIVISOR + DIVISOR // 2 - 1)
            byte = 0
            for bit in range(8):
                byte |= ctx.get(dut.tx) << bit
                await ctx.tick().repeat(DIVISOR)
            received.append(byte)

    simulator = simulator_of(dut)
    for bench in (use, send, receive):
        simulator.add_testbench(bench)
    simulator.add_testbench(link.serve, background=True)
    simulator.run()
    assert received == answer(0) + answer(1)


def test_slow_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="uart_baud 300 is too slow for a clock of 50000000 Hz"):
        LinkedEngine(preset("tiny-8x4").replace(uart_baud=300))
