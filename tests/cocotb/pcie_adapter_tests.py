"""Tests of any adapter: an endpoint in Python, which uses all of what TLPs may do, behind the adapter of a hard
block."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import Event, FallingEdge, Timer, with_timeout
from cocotbext.axi import MemoryRegion
from cocotbext.pcie.core.caps import PciCapId
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpAttr, TlpTc, TlpType
from cocotbext.pcie.core.utils import PcieId
from pcie_bench import HardBlock, TlpPort, block_class, tlp_of, watch_sent

BAR_BYTES = 1 << 16
HIGH = 0x12_3456_0000_0000  #: host memory above 4 GiB
HIGH_BYTES = 1 << 16


class Endpoint:
    """A memory behind BAR0 that takes requests of any length, and a requester that keeps many reads under way."""

    def __init__(self, dut: Any, rng: random.Random, **timing: float) -> None:
        self.dut, self.rng = dut, rng
        self.memory = bytearray(BAR_BYTES)
        self.port = TlpPort(dut, self.receive, rng, **timing)
        self.requests: list[Tlp] = []
        self.hits: list[bool] = []
        self.unanswered: list[Tlp] = []
        self.hold = False  #: keep completions back
        self.reads: dict[int, list[Any]] = {}
        self.free = list(range(32))
        self.answers: list[Tlp] = []
        self.misses = 0

    @property
    def id(self) -> PcieId:
        return PcieId.from_int(int(self.dut.function__function_id.value))

    def send(self, tlp: Tlp, *, error: bool = False) -> None:
        assert tlp.check()
        raw = bytes(tlp.pack())
        self.port.send([int.from_bytes(raw[low : low + 4], "big") for low in range(0, len(raw), 4)], error=error)

    def receive(self, words: list[int], hit: bool) -> None:
        tlp = tlp_of(words)
        if tlp.fmt_type in {TlpType.CPL, TlpType.CPL_DATA}:
            self.answers.append(tlp)
            self.completed(tlp)
            return
        self.requests.append(tlp)
        self.hits.append(hit)
        if tlp.fmt_type in {TlpType.MEM_WRITE, TlpType.MEM_WRITE_64}:
            enables = [tlp.first_be, *[15] * (tlp.length - 2), *([tlp.last_be] if tlp.length > 1 else [])]
            for index, byte in enumerate(tlp.data):
                if enables[index // 4] >> index % 4 & 1:
                    self.memory[(tlp.address + index) % BAR_BYTES] = byte
            return
        self.unanswered.append(tlp)
        if not self.hold:
            self.answer()

    def answer(self) -> None:
        """Send the completions that are due."""
        for tlp in self.unanswered:
            if tlp.fmt_type not in {TlpType.MEM_READ, TlpType.MEM_READ_64}:
                completion = Tlp.create_ur_completion_for_tlp(tlp, self.id)
                completion.byte_count = 4
                self.send(completion)
                continue
            completion = Tlp.create_completion_data_for_tlp(tlp, self.id)
            completion.byte_count = tlp.get_be_byte_count()
            completion.lower_address = tlp.address + (tlp.get_first_be_offset() if tlp.first_be else 0) & 0x7F
            completion.set_data(bytes(self.memory[(tlp.address + at) % BAR_BYTES] for at in range(4 * tlp.length)))
            self.send(completion)
        self.unanswered.clear()

    def completed(self, tlp: Tlp) -> None:
        if tlp.tag not in self.reads:
            self.misses += 1
            return
        request, data, done = self.reads[tlp.tag]
        skip = request.get_first_be_offset() if not data else 0
        data += tlp.data[skip:]
        request.status = tlp.status
        if tlp.status != CplStatus.SC or tlp.byte_count <= 4 * tlp.length - (tlp.lower_address & 3):
            del self.reads[tlp.tag]
            self.free.append(tlp.tag)
            done.set()

    def request(self, address: int, length: int, kind: tuple[TlpType, TlpType]) -> Tlp:
        tlp = Tlp()
        tlp.fmt_type = kind[address >> 32 != 0]
        tlp.requester_id = self.id
        tlp.set_addr_be(address, length)
        tlp.tc = TlpTc(self.rng.randrange(8))
        tlp.attr = TlpAttr(self.rng.randrange(8))
        return tlp

    async def read(self, address: int, length: int) -> bytes:
        """Up to one request's worth of the host's memory."""
        while not self.free:
            await FallingEdge(self.dut.clk)
        tlp = self.request(address, length, (TlpType.MEM_READ, TlpType.MEM_READ_64))
        tlp.tag = self.free.pop(self.rng.randrange(len(self.free)))
        self.reads[tlp.tag] = entry = [tlp, bytearray(), Event()]
        self.send(tlp)
        await with_timeout(entry[2].wait(), 100, "us")
        assert tlp.status == CplStatus.SC, tlp.status
        return bytes(entry[1][:length])

    def write(self, address: int, data: bytes, *, error: bool = False) -> None:
        tlp = self.request(address, len(data), (TlpType.MEM_WRITE, TlpType.MEM_WRITE_64))
        tlp.set_addr_be_data(address, data)
        self.send(tlp, error=error)


async def start(dut: Any, rng: random.Random, *, bar_64: bool = False, **sizes: int) -> tuple[HardBlock, Endpoint]:
    block = block_class()(dut, BAR_BYTES, bar_64=bar_64)
    endpoint = Endpoint(dut, rng)
    dut.function__msi__request.value = 0
    dut.function__events.value = 0
    cocotb.start_soon(endpoint.port.run())
    for channel in block.sent:
        cocotb.start_soon(watch_sent(dut, channel))
    await block.enumerate(**sizes)
    block.monitor.tag_bits = 5
    return block, endpoint


def host_memory(block: HardBlock) -> list[tuple[int, Any]]:
    """Base and bytes of host memory below and above 4 GiB."""
    low, memory = block.root.alloc_region(HIGH_BYTES)
    high = MemoryRegion(HIGH_BYTES)
    block.root.mem_address_space.register_region(high, HIGH)
    return [(low, memory), (HIGH, high.mem)]


@cocotb.test()
@cocotb.parametrize(bar_64=[False, True])
async def registers(dut: Any, bar_64: bool) -> None:
    """Reads and writes of the host, of any length and alignment, below and above 4 GiB, with pauses on all sides."""
    rng = random.Random(1)
    block, endpoint = await start(dut, rng, bar_64=bar_64, max_payload=256)
    expected = bytearray(BAR_BYTES)
    for round_ in range(60):
        if round_ == 20:
            block.pause(rng)
            endpoint.port.stall = endpoint.port.gap = 0.3
        offset, length = rng.randrange(BAR_BYTES - 1024), rng.choice((1, 2, 3, 4, 5, 7, 8, 64, rng.randint(1, 1024)))
        if rng.random() < 0.5:
            data = rng.randbytes(length)
            expected[offset : offset + length] = data
            await block.bar.write(offset, data)
        else:
            length = min(length, 250)  # the endpoint answers with one completion
            assert await block.bar.read(offset, length, timeout=50000) == expected[offset : offset + length]
    await block.bar.read(0, 4, timeout=50000)
    assert endpoint.memory == expected
    assert all(endpoint.hits)
    assert {tlp.fmt_type for tlp in endpoint.requests} == (
        {TlpType.MEM_READ_64, TlpType.MEM_WRITE_64} if bar_64 else {TlpType.MEM_READ, TlpType.MEM_WRITE}
    )
    block.finish()


@cocotb.test()
async def header_fields(dut: Any) -> None:
    """Every field of a request of the host and of our completion arrives: traffic class, attributes, tag, enables,
    status."""
    rng = random.Random(2)
    block, endpoint = await start(dut, rng)
    base = block.function.bar_addr[0]
    for _ in range(40):
        tlp = Tlp()
        tlp.fmt_type = rng.choice((TlpType.MEM_READ, TlpType.MEM_WRITE))
        tlp.length = rng.choice((1, 1, 2, 3, 32))
        tlp.address = base + 4 * rng.randrange(BAR_BYTES // 4 - 32) // 128 * 128
        tlp.first_be, tlp.last_be = (rng.randrange(16), 0) if tlp.length == 1 else (rng.randrange(1, 16), rng.randrange(1, 16))
        tlp.tc, tlp.attr = TlpTc(rng.randrange(8)), TlpAttr(rng.randrange(8))
        tlp.requester_id = PcieId(0, 0, 0)
        if tlp.fmt_type == TlpType.MEM_WRITE:
            tlp.set_data(rng.randbytes(4 * tlp.length))
            await block.root.perform_posted_operation(tlp)
            await Timer(1, "us")
        else:
            completions = await block.root.perform_nonposted_operation(tlp, 50000)
            assert {(found.tc, found.attr, found.tag, found.status) for found in completions} == {(tlp.tc, tlp.attr, tlp.tag, 0)}
            assert {found.completer_id for found in completions} == {endpoint.id}
        assert bytes(endpoint.requests[-1].pack()) == bytes(tlp.pack())
    block.finish()


@cocotb.test()
@cocotb.parametrize(sizes=[(128, 128, 64), (256, 512, 128), (1024, 4096, 64)])
async def transfers(dut: Any, sizes: tuple[int, int, int]) -> None:
    """Writes and reads of the device, any alignment and length, completions split in all ways, with pauses
    everywhere."""
    max_payload, max_read, boundary = sizes
    rng = random.Random(5)
    block, endpoint = await start(dut, rng, max_payload=max_payload, max_read_request=max_read, boundary=boundary)
    assert int(dut.function__max_payload.value) == (max_payload // 128).bit_length() - 1
    assert int(dut.function__max_read_request.value) == (max_read // 128).bit_length() - 1
    assert int(dut.function__read_completion_boundary.value) == (boundary == 128)
    for enabled in (False, True):
        await block.function.set_master(enabled)
        await Timer(1, "us")
        assert int(dut.function__bus_master_enable.value) == enabled
    regions = host_memory(block)
    for paused in (False, True):
        if paused:
            block.pause(rng)
            endpoint.port.stall = endpoint.port.gap = 0.2
        block.root.split_on_all_rcb = paused
        expected = {base: rng.randbytes(HIGH_BYTES) for base, _ in regions}
        for base, memory in regions:
            memory[:] = expected[base]
        tasks = []
        for _ in range(20 if max_read < 4096 else 8):
            base, _memory = rng.choice(regions)
            page = rng.randrange(HIGH_BYTES // 4096) * 4096
            length = rng.choice((1, 2, 3, 4, 5, 8, rng.randint(1, max_read), max_read))
            offset = page + rng.randrange(4096 - length + 1)
            tasks.append(
                (base, offset, length, cocotb.start_soon(endpoint.read(base + offset, min(length, max_read - offset % 4))))
            )
        for base, offset, length, task in tasks:
            found = await task
            assert found == expected[base][offset : offset + min(length, max_read - offset % 4)]
        for base, memory in regions:
            for _ in range(20):
                page = rng.randrange(HIGH_BYTES // 4096) * 4096
                data = rng.randbytes(rng.choice((1, 2, 3, 4, 5, 8, rng.randint(1, max_payload - 3))))
                offset = page + rng.randrange(4096 - len(data) + 1)
                expected[base] = expected[base][:offset] + data + expected[base][offset + len(data) :]
                endpoint.write(base + offset, data)
            while endpoint.port.beats:
                await FallingEdge(dut.clk)
            await Timer(2, "us")
            assert bytes(memory[:]) == expected[base]
    block.finish()


@cocotb.test()
async def order(dut: Any) -> None:
    """A completion, and an interrupt, never pass a write that the endpoint has sent before."""
    rng = random.Random(7)
    block, endpoint = await start(dut, rng, max_payload=256)
    base, memory = host_memory(block)[0]
    block.pause(rng, 0.9, (block.requests,))
    endpoint.hold = True
    for round_ in range(1, 16):
        marker = bytes([round_]) * 64
        read = cocotb.start_soon(block.bar.read(0, 4, timeout=100000))
        while not endpoint.unanswered:
            await FallingEdge(dut.clk)
        endpoint.write(base + 4, marker)
        endpoint.answer()
        await read
        assert bytes(memory[4:68]) == marker, f"round {round_}: the completion has passed the write"

        marker = bytes([128 + round_]) * 200
        block.interrupt.clear()
        endpoint.write(base + 4, marker)
        while endpoint.port.beats:
            await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.function__msi__request.value = 1
        await with_timeout(block.interrupt.wait(), 100, "us")
        assert bytes(memory[4:204]) == marker, f"round {round_}: the interrupt has passed the write"
        await acknowledged(dut)
    block.finish()


async def acknowledged(dut: Any) -> None:
    """Wait for the end of the interrupt's handshake, and end the request."""
    for _ in range(1000):
        await FallingEdge(dut.clk)
        await Timer(2, "ns")
        if int(dut.function__msi__acknowledge.value):
            await FallingEdge(dut.clk)
            dut.function__msi__request.value = 0
            return
    raise AssertionError("the interrupt was never acknowledged")


@cocotb.test()
async def interrupts(dut: Any) -> None:
    """One message for each request; none while disabled, and the request ends."""
    block, _endpoint = await start(dut, random.Random(8))
    seen = 0

    async def count() -> None:
        nonlocal seen
        while True:
            await block.interrupt.wait()
            block.interrupt.clear()
            seen += 1

    cocotb.start_soon(count())
    for expected in (1, 2, 3):
        dut.function__msi__request.value = 1
        await acknowledged(dut)
        await Timer(2, "us")
        assert seen == expected

    await block.function.capability_write_word(PciCapId.MSI, 2, 0)
    await Timer(1, "us")
    assert not int(dut.function__msi__enable.value)
    dut.function__msi__request.value = 1
    await acknowledged(dut)
    await Timer(2, "us")
    assert seen == 3
    block.finish()


@cocotb.test()
async def credit(dut: Any) -> None:
    """Of reads that the endpoint does not answer, one gets through; writes pass the others, and what the endpoint sends
    else."""
    rng = random.Random(9)
    block, endpoint = await start(dut, rng)
    base, memory = host_memory(block)[0]
    endpoint.hold = True
    reads = [cocotb.start_soon(block.bar.read(4 * index, 4, timeout=100000)) for index in range(6)]
    await Timer(5, "us")
    assert len(endpoint.unanswered) == 1
    await block.bar.write(0x100, b"posted")
    await Timer(5, "us")
    assert endpoint.memory[0x100:0x106] == b"posted"
    endpoint.write(base, b"of its own")
    assert await endpoint.read(base + 100, 100) == memory[100:200]
    await Timer(2, "us")
    assert memory[:10] == b"of its own"
    assert len(endpoint.unanswered) == 1
    block.pause(rng, 0.7)  # an answer that waits is one answer
    for read in reads:
        while not endpoint.unanswered:
            await FallingEdge(dut.clk)
        await Timer(1, "us")
        assert len(endpoint.unanswered) == 1
        endpoint.answer()
        await read
    block.finish()


@cocotb.test()
async def link_reset(dut: Any) -> None:
    """The link goes down in the middle of everything; when it is back, nothing of before is left over."""
    rng = random.Random(12)
    block, endpoint = await start(dut, rng)
    base, _memory = host_memory(block)[0]
    for _ in range(6):
        writes = [cocotb.start_soon(block.bar.write(256 * index, bytes(250))) for index in range(8)]
        for index in range(16):
            endpoint.write(base + 128 * index, bytes(100))
            fetched = endpoint.request(base, 128, (TlpType.MEM_READ, TlpType.MEM_READ_64))
            fetched.tag = index
            endpoint.send(fetched)
        await Timer(rng.randint(200, 1200), "ns")
        await block.reset_link(endpoint.port.beats.clear)
        for write in writes:
            await write
        endpoint.memory[:4] = rng.randbytes(4)
        assert await block.bar.read(0, 4, timeout=50000) == endpoint.memory[:4]
        data = rng.randbytes(100)
        endpoint.write(base + 4096, data)
        assert await endpoint.read(base + 4096, 100) == data
    block.finish(unanswered=True)
