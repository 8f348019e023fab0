"""The link at its UART pins against its rules: random requests, repeats, gaps, damage and a host whose baud rate is
off."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from bench_support import CLOCK_NS, pack, start
from cocotb.queue import Queue
from cocotb.triggers import FallingEdge, ReadOnly, Timer, with_timeout
from support.benches.stream_rules import StreamRule

from systola.transports.link import Response, decode_response, encode_request
from systola_firmware.spec.link import MAX_WORDS, LinkOperation, LinkStatus
from systola_hdl.host.bus import Bus

DIVISOR = 6
#: Memory behind the link: bytes 0 to this.
MEMORY_BYTES = 0x400


class Host:
    """The other end of the line, by time alone; ``drift`` is its baud rate's error."""

    def __init__(self, dut: Any, drift: float = 0.0) -> None:
        self.dut = dut
        self.bit_ps = round(DIVISOR * CLOCK_NS * 1000 * (1 + drift))
        self.frames: Queue[bytes] = Queue()

    async def send(self, data: bytes) -> None:
        for byte in data:
            for level in (0, *(byte >> index & 1 for index in range(8)), 1):
                self.dut.rx.value = level
                await Timer(self.bit_ps, unit="ps")

    async def listen(self) -> None:
        """Collect frames for ever. The board's own bit is exact, so its end of the line is sampled by its clock's
        period."""
        frame, bit = bytearray(), DIVISOR * CLOCK_NS * 1000
        while True:
            await FallingEdge(self.dut.tx)
            await Timer(bit * 3 // 2, unit="ps")
            byte = 0
            for index in range(8):
                byte |= int(self.dut.tx.value) << index
                await Timer(bit, unit="ps")
            assert self.dut.tx.value == 1, "no stop bit"
            if byte:
                frame.append(byte)
            elif frame:
                self.frames.put_nowait(bytes(frame))
                frame = bytearray()

    async def receive(self) -> Response:
        """The next frame, which must be intact. Raises ``SimTimeoutError`` when none comes."""
        response = decode_response(await with_timeout(self.frames.get(), 2, "ms"))
        assert response is not None
        return response


class Memory:
    """Serves the bus with random stalls and delays; ``writes`` are in order."""

    def __init__(self, dut: Any, rng: random.Random, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.words: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []

    async def serve(self) -> None:
        dut, rng = self.dut, self.rng
        rule, answers = StreamRule("bus"), deque[int]()
        offered = False
        while True:
            ready = rng.random() >= self.stall
            offered = bool(answers) and (offered or rng.random() >= self.stall)
            dut.bus__request__ready.value = ready
            dut.bus__response__valid.value = offered
            dut.bus__response__payload.value = answers[0] if offered else rng.getrandbits(Bus.RESPONSE.size)
            await ReadOnly()
            valid, payload = bool(dut.bus__request__valid.value), int(dut.bus__request__payload.value)
            rule.check(valid, ready, payload)
            if offered and dut.bus__response__ready.value:
                answers.popleft()
                offered = False
            if valid and ready:
                answers.append(self._access(Bus.REQUEST.from_bits(payload)))
            await FallingEdge(dut.clk)

    def _access(self, request: Any) -> int:
        address, error = request.address, request.address >= MEMORY_BYTES
        value = 0
        if request.write and not error:
            self.words[address] = request.data
            self.writes.append((address, request.data))
        elif not error:
            value = self.words.get(address, 0)
        return pack(Bus.RESPONSE, {"data": value, "error": error})


class Model:
    """What the device must do, from the words of ``systola_firmware.spec.link``."""

    def __init__(self) -> None:
        self.expected = 0
        self.words: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []

    def answer(self, sequence: int, operation: LinkOperation, address: int, values: list[int], count: int) -> Response:
        status, data = LinkStatus.OK, b""
        behind = (self.expected - sequence) & 0xFF
        fresh = behind == 0
        if operation is LinkOperation.SYNC:
            self.expected = (sequence + 1) & 0xFF
        elif behind > 128:
            status = LinkStatus.OUT_OF_ORDER
        else:
            self.expected = (self.expected + fresh) & 0xFF
            addresses = range(address, address + 4 * count, 4)
            inside = all(at < MEMORY_BYTES for at in addresses)
            if operation is LinkOperation.WRITE and fresh:
                writes = [(at, value) for at, value in zip(addresses, values, strict=True) if at < MEMORY_BYTES]
                self.words.update(writes)
                self.writes += writes
            if not inside and (fresh or operation is LinkOperation.READ):
                status = LinkStatus.BAD_ADDRESS
            elif operation is LinkOperation.READ:
                data = b"".join(self.words.get(at, 0).to_bytes(4, "little") for at in addresses)
        return Response(sequence, status, count, self.expected, address, data)


async def begin(dut: Any, rng: random.Random, stall: float, drift: float) -> tuple[Host, Memory]:
    await start(dut, rx=1, divisor=DIVISOR, bus__request__ready=0, bus__response__valid=0)
    host, memory = Host(dut, drift), Memory(dut, rng, stall)
    cocotb.start_soon(host.listen())
    cocotb.start_soon(memory.serve())
    return host, memory


def request_of(rng: random.Random, model: Model) -> tuple[int, LinkOperation, int, list[int], int]:
    """A request that is next, or a repeat, or too far ahead, or a SYNC."""
    operation = rng.choice((LinkOperation.READ, LinkOperation.WRITE, LinkOperation.WRITE))
    shift = rng.choice((0, 0, 0, 0, 0, -1, -128, 1, 100))
    count = rng.choice((1, 2, 3, 7))
    address = 4 * rng.randrange(MEMORY_BYTES // 4 - count)
    if rng.random() < 0.1:
        operation, address, count = LinkOperation.SYNC, rng.getrandbits(32), 1
    elif rng.random() < 0.1:
        address = rng.choice((MEMORY_BYTES - 4 * (count // 2), MEMORY_BYTES + 64))
    values = [rng.getrandbits(32) for _ in range(count)] if operation is LinkOperation.WRITE else []
    return (model.expected + shift) & 0xFF, operation, address, values, count


def encoded(sequence: int, operation: LinkOperation, address: int, values: list[int], count: int) -> bytes:
    return encode_request(sequence, operation, address, count, b"".join(value.to_bytes(4, "little") for value in values))


def compare(found: Response, expected: Response) -> None:
    """Data of a refused READ is not promised."""
    assert (found.sequence, found.status, found.count) == (expected.sequence, expected.status, expected.count)
    assert (found.expected, found.address) == (expected.expected, expected.address)
    if expected.status == LinkStatus.OK:
        assert found.data == expected.data


@cocotb.test(timeout_time=50, timeout_unit="ms")
@cocotb.parametrize((("stall", "drift"), [(0.0, 0.02), (0.8, -0.02)]))
async def random_requests(dut: Any, stall: float, drift: float) -> None:
    rng, model = random.Random(f"{stall} {drift}"), Model()
    host, memory = await begin(dut, rng, stall, drift)
    for _ in range(24):
        request = request_of(rng, model)
        await host.send(encoded(*request))
        compare(await host.receive(), model.answer(*request))
    assert memory.writes == model.writes
    assert model.writes


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def damaged_frames_change_nothing(dut: Any) -> None:
    rng, model = random.Random(7), Model()
    host, memory = await begin(dut, rng, 0.3, 0.0)
    for _ in range(16):
        damaged = bytearray(encoded(*request_of(rng, model)))
        index = rng.randrange(len(damaged) - 1)
        if rng.random() < 0.3:
            del damaged[index]
        else:
            damaged[index] ^= rng.randrange(1, 256)
        await host.send(bytes(damaged))
        good = (model.expected, LinkOperation.WRITE, 4 * rng.randrange(64), [rng.getrandbits(32)], 1)
        await host.send(encoded(*good))
        compare(await host.receive(), model.answer(*good))
    assert host.frames.empty()
    assert memory.writes == model.writes
    assert len(model.writes) == 16


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def many_requests_in_flight(dut: Any) -> None:
    rng, model = random.Random(8), Model()
    host, memory = await begin(dut, rng, 0.5, 0.0)
    values = [rng.getrandbits(32) for _ in range(MAX_WORDS)]
    requests = [(0, LinkOperation.WRITE, 0, values, MAX_WORDS), (1, LinkOperation.READ, 0, [], MAX_WORDS)]
    requests += [(sequence, LinkOperation.READ, 4 * sequence, [], 3) for sequence in range(2, 8)]
    await host.send(b"".join(encoded(*request) for request in requests))
    for request in requests:
        compare(await host.receive(), model.answer(*request))
    assert memory.writes == model.writes
