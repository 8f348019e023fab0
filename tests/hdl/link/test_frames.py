"""The link against a model of its rules in Python: good frames, lost, damaged and repeated ones, garbage."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from amaranth.sim import SimulatorContext
from cobs import cobs
from support.benches.simulate import simulator_of

from systola_firmware.spec.link import MAX_WORDS, LinkOperation, LinkStatus
from systola_hdl.link.frames import Link

#: Memory behind the link in these tests: bytes 0 to this.
MEMORY_BYTES = 0x400


def frame(sequence: int, operation: int, count: int, address: int, words: tuple[int, ...] = ()) -> bytes:
    """A request as it goes over the wire."""
    body = struct.pack("<BBBBI", sequence & 0xFF, operation, count, 0, address) + struct.pack(f"<{len(words)}I", *words)
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def write(sequence: int, address: int, *words: int) -> bytes:
    return frame(sequence, LinkOperation.WRITE, len(words), address, words)


def read(sequence: int, address: int, count: int) -> bytes:
    return frame(sequence, LinkOperation.READ, count, address)


def sync(sequence: int, nonce: int = 0x1234) -> bytes:
    return frame(sequence, LinkOperation.SYNC, 1, nonce)


class Model:
    """What the device must answer, from the words of ``systola_firmware.spec.link``."""

    def __init__(self) -> None:
        self.expected = 0
        self.memory: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []

    def answer(self, line: bytes) -> list[bytes]:
        """Bodies of the responses to everything on the line."""
        responses = (self._frame(frame) for frame in line.split(b"\0")[:-1])
        return [response for response in responses if response is not None]

    def _frame(self, frame: bytes) -> bytes | None:
        try:
            plain = cobs.decode(frame)
        except cobs.DecodeError:
            return None
        if len(plain) % 4 or not 12 <= len(plain) <= 12 + 4 * MAX_WORDS:
            return None
        body = plain[:-4]
        if zlib.crc32(body) != int.from_bytes(plain[-4:], "little"):
            return None
        sequence, operation, count, _, address = struct.unpack_from("<BBBBI", body)
        words = struct.unpack_from(f"<{len(body) // 4 - 2}I", body, 8)
        transfer = operation in (LinkOperation.READ, LinkOperation.WRITE)
        sound = operation == LinkOperation.SYNC or (transfer and 1 <= count <= MAX_WORDS)
        if sound and len(words) != (count if operation == LinkOperation.WRITE else 0):
            return None
        status, answer = LinkStatus.OK, ()
        behind = (self.expected - sequence) & 0xFF
        if operation == LinkOperation.SYNC:
            self.expected = (sequence + 1) & 0xFF
        elif behind > 128:
            status = LinkStatus.OUT_OF_ORDER
        else:
            if behind == 0:
                self.expected = (self.expected + 1) & 0xFF
            if not sound:
                status = LinkStatus.BAD_REQUEST
            elif operation == LinkOperation.READ:
                status, answer = self._read(address, count)
            elif behind == 0:
                status = self._write(address, words)
        return struct.pack(f"<BBBBI{len(answer)}I", sequence, status, count, self.expected, address, *answer)

    def _read(self, address: int, count: int) -> tuple[LinkStatus, tuple[int, ...]]:
        values = []
        for offset in range(0, 4 * count, 4):
            if not is_memory(address + offset):
                return LinkStatus.BAD_ADDRESS, tuple(values + [0] * (count - len(values)))
            values.append(self.memory.get(address + offset, 0))
        return LinkStatus.OK, tuple(values)

    def _write(self, address: int, words: tuple[int, ...]) -> LinkStatus:
        for index, word in enumerate(words):
            if not is_memory(address + 4 * index):
                return LinkStatus.BAD_ADDRESS
            self.memory[address + 4 * index] = word
            self.writes.append((address + 4 * index, word))
        return LinkStatus.OK


def is_memory(address: int) -> bool:
    return address % 4 == 0 and (address & 0xFFFF_FFFF) < MEMORY_BYTES


class Bench:
    """The link with a memory behind it and the line's two ends."""

    def __init__(self, line: bytes, *, seed: int | None = None) -> None:
        """``seed`` makes every side stall at random; without it nothing ever stalls."""
        self.line = line
        self.random = random.Random(seed)
        self.stalls = seed is not None
        self.received = bytearray()
        self.writes: list[tuple[int, int]] = []
        self.cycles = 0
        self._dut = Link()
        self._sent = False
        self._finished = False

    def run(self) -> list[bytes]:
        """Bodies of the responses, each with a good CRC."""
        simulator = simulator_of(self._dut)
        simulator.add_testbench(self._send)
        simulator.add_testbench(self._receive)
        simulator.add_testbench(self._serve)
        simulator.run()
        encoded = bytes(self.received).split(b"\0")
        assert encoded.pop() == b""
        plain = [cobs.decode(frame) for frame in encoded]
        for body in plain:
            assert zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little")
        return [body[:-4] for body in plain]

    async def _stall(self, ctx: SimulatorContext) -> None:
        if self.stalls and self.random.random() < 0.1:
            await ctx.tick().repeat(self.random.randrange(1, 6))

    async def _send(self, ctx: SimulatorContext) -> None:
        for byte in self.line:
            await self._stall(ctx)
            ctx.set(self._dut.i.payload, byte)
            ctx.set(self._dut.i.valid, 1)
            await ctx.tick().until(self._dut.i.ready)
            ctx.set(self._dut.i.valid, 0)
        self._sent = True

    async def _receive(self, ctx: SimulatorContext) -> None:
        quiet, silence = 0, 1200 + 2 * len(self.line)  # what is in the ring may all be garbage
        while not self._sent or quiet < silence:
            await self._stall(ctx)
            ctx.set(self._dut.o.ready, 1)
            _, _, valid, byte = await ctx.tick().sample(self._dut.o.valid, self._dut.o.payload)
            ctx.set(self._dut.o.ready, 0)
            self.cycles += 1
            quiet = 0 if valid or not self._sent else quiet + 1
            if valid:
                self.received.append(byte)
                self.last = self.cycles
        self._finished = True

    async def _serve(self, ctx: SimulatorContext) -> None:
        request, response = self._dut.bus.request, self._dut.bus.response
        memory: dict[int, int] = {}
        while not self._finished:
            await self._stall(ctx)
            ctx.set(request.ready, 1)
            _, _, valid, payload = await ctx.tick().sample(request.valid, request.payload)
            ctx.set(request.ready, 0)
            if not valid:
                continue
            await self._stall(ctx)
            good = is_memory(payload.address)
            if good and payload.write:
                memory[payload.address] = payload.data
                self.writes.append((payload.address, payload.data))
            ctx.set(response.payload.error, not good)
            ctx.set(response.payload.data, memory.get(payload.address, 0) if good and not payload.write else 0)
            ctx.set(response.valid, 1)
            taken = False
            while not taken:
                _, _, taken = await ctx.tick().sample(response.ready)
            ctx.set(response.valid, 0)


def check(line: bytes, *, seed: int | None = None) -> list[bytes]:
    """Run ``line`` and compare every response and every write with the model."""
    bench, model = Bench(line, seed=seed), Model()
    responses = bench.run()
    assert responses == model.answer(line)
    assert bench.writes == model.writes
    return responses


def statuses(responses: list[bytes]) -> list[LinkStatus]:
    return [LinkStatus(response[1]) for response in responses]


def test_write_then_read() -> None:
    responses = check(sync(6) + write(7, 0x10, 0, 0xFFFFFFFF, 0x00112200) + read(8, 0x10, 3))
    assert responses[-1][8:] == struct.pack("<3I", 0, 0xFFFFFFFF, 0x00112200)


def cycles_a_byte(request: Callable[[int], bytes]) -> float:
    """Cycles for each byte of the line, in either direction, in a row of equal requests."""
    few, many = (Bench(b"".join(request(index) for index in range(frames))) for frames in (2, 5))
    for bench in (few, many):
        assert bench.run() == Model().answer(bench.line)
    return (many.last - few.last) / max(len(many.line) - len(few.line), len(many.received) - len(few.received))


def test_longest_frames_flow() -> None:
    words = [0x01020304 * (index % 3) for index in range(MAX_WORDS)]
    assert cycles_a_byte(lambda index: write(index, 0, *words)) < 5
    assert cycles_a_byte(lambda index: read(index, 0, MAX_WORDS)) < 6.5


def test_longest_read() -> None:
    words = range(0x01010101, 0x01010101 + MAX_WORDS)
    check(write(0, 0x40, *words) + read(1, 0x40, MAX_WORDS) + read(2, 0x44, MAX_WORDS) + read(3, 0x3C, MAX_WORDS), seed=3)


def test_repeats_and_gaps() -> None:
    line = write(0, 0, 1) + write(1, 4, 2) + write(0, 0, 99) + write(3, 8, 4) + read(1, 0, 3) + write(2, 8, 3) + read(3, 0, 3)
    responses = check(line + read((4 - 128) & 0xFF, 0, 1) + read((4 - 129) & 0xFF, 0, 1), seed=4)
    ok, late = LinkStatus.OK, LinkStatus.OUT_OF_ORDER
    assert statuses(responses) == [ok, ok, ok, late, ok, ok, ok, ok, late]


def test_sync_restarts_the_numbers() -> None:
    responses = check(
        write(5, 0, 1) + sync(200, 0xDEADBEEF) + write(201, 0, 2) + read(202, 0, 1) + sync(255) + read(0, 0, 1), seed=5
    )
    assert statuses(responses) == [LinkStatus.OUT_OF_ORDER, *[LinkStatus.OK] * 5]
    assert responses[1][4:8] == struct.pack("<I", 0xDEADBEEF)


@pytest.mark.parametrize("address", [MEMORY_BYTES - 8, MEMORY_BYTES, 2, 0xFFFFFFF8])
def test_bad_addresses(address: int) -> None:
    line = write(0, address, 1, 2, 3, 4) + read(1, address, 4) + read(2, MEMORY_BYTES - 4, 1) + read(3, 0, 2)
    assert LinkStatus.BAD_ADDRESS in statuses(check(line, seed=6))


def test_bad_requests() -> None:
    line = frame(0, 0, 1, 0) + frame(1, 9, 1, 0, (5,)) + frame(2, LinkOperation.READ, 0, 0) + frame(3, LinkOperation.READ, 61, 0)
    line += frame(4, LinkOperation.WRITE, 0, 0) + frame(5, LinkOperation.WRITE, 255, 0, (1, 2)) + frame(0, 0, 1, 0)
    assert statuses(check(line, seed=7)) == [LinkStatus.BAD_REQUEST] * 7


def test_wrong_lengths_are_dropped() -> None:
    line = (
        frame(0, LinkOperation.WRITE, 2, 0, (1,))
        + frame(0, LinkOperation.READ, 1, 0, (1,))
        + frame(0, LinkOperation.SYNC, 1, 0, (1,))
    )
    line += frame(0, LinkOperation.WRITE, 60, 0, (7,) * 61) + frame(0, LinkOperation.WRITE, 60, 0, (7,) * 200)
    for cut in (0, 1, 4, 8, 11):  # with a good CRC
        body = bytes(range(1, 1 + cut))
        line += cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
    assert len(check(line + b"\0\0\0" + write(0, 0, 1), seed=8)) == 1


def test_delimiters_and_broken_codes() -> None:
    good = write(0, 0, 0x11223344)
    line = b"\0\0" + good[:-3] + b"\0" + b"\xff" * 300 + b"\0" + b"\x05\x01\0" + good[:4] + good[:-1] + b"\0" + b"\xff\0" + good
    assert len(check(line, seed=9)) == 1


def damage(rng: random.Random, line: bytes) -> bytes:
    """Flip, drop, repeat and insert bytes, about one in eighty."""
    damaged = bytearray()
    for byte in line:
        kind = rng.randrange(320)
        if kind == 0:
            damaged.append(byte ^ 1 << rng.randrange(8))
        elif kind == 1:
            damaged += bytes([byte, byte])
        elif kind == 2:
            damaged += bytes([byte, rng.randrange(256)])
        elif kind != 3:
            damaged.append(byte)
    return bytes(damaged) + b"\0"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_lines(seed: int) -> None:
    rng = random.Random(seed)
    line, sequence = b"", 0
    for _ in range(40):
        count, address = rng.choice([1, 2, 5, 17]), 4 * rng.randrange(MEMORY_BYTES // 4 + 2)
        if rng.random() < 0.6:
            frame = write(sequence, address, *(rng.choice([0, rng.getrandbits(32), rng.getrandbits(8)]) for _ in range(count)))
        else:
            frame = read(sequence, address, count)
        line += frame * (2 if rng.random() < 0.1 else 1)
        sequence = sequence + 1 if rng.random() < 0.9 else rng.choice([sequence - 3, sequence + 2])
    assert len(check(damage(rng, line) + sync(0) + read(1, 0, 60), seed=seed)) > 5


def test_garbage_never_hangs() -> None:
    rng = random.Random(11)
    line = bytes(rng.choice([0, rng.randrange(256), rng.randrange(5)]) for _ in range(1500))
    assert len(check(line + b"\0" + sync(9), seed=11)) == 1
