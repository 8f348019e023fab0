"""Endpoint and adapter between cocotbext-pcie's root complex and the engine's side of the host port in Python."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import Timer, with_timeout
from cocotbext.axi import Region
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType
from cocotbext.pcie.core.utils import PcieId
from host_port_device import HostPortDevice, Transfer
from pcie_bench import HardBlock, block_class

from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import bar_offset, window_bits_of_bar

BAR_BYTES = 1 << 24
WINDOW = window_bits_of_bar(BAR_BYTES)
HIGH = 0x12_3450_0000_0000  #: host memory above 4 GiB
SIZE = 1 << 21
WORDS = 0x3000_0000  #: where the bus has a memory, of 64 words

#: Max payload, max read request, completion boundary, whether completions are split at each boundary, probability of a
#: pause.
SETTINGS = [(128, 128, 64, False, 0.0), (256, 512, 64, True, 0.2), (512, 256, 128, False, 0.3), (1024, 4096, 128, True, 0.1)]


class Memory(Region):
    """Host memory that can be watched and broken."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bytes = bytearray(size)
        self.refuse = False
        self.reads = 0

    async def _read(self, address: int, length: int, **_arguments: Any) -> bytes:
        self.reads += 1
        if self.refuse:
            raise RuntimeError("the memory refuses")
        return bytes(self.bytes[address : address + length])

    async def _write(self, address: int, data: bytes, **_arguments: Any) -> None:
        self.bytes[address : address + len(data)] = data


async def start(dut: Any, rng: random.Random, *, stall: float = 0.0, **sizes: Any) -> tuple[HardBlock, HostPortDevice]:
    block = block_class()(dut, BAR_BYTES)
    device = HostPortDevice(dut, rng, stall)
    device.words = {WORDS + 4 * index: rng.getrandbits(32) for index in range(64)}
    cocotb.start_soon(device.run())
    await block.enumerate(**sizes)
    return block, device


def host_memory(block: HardBlock) -> dict[int, Memory]:
    """Host memory by its base, one below and one above 4 GiB; what lies behind each is not mapped."""
    memories = {}
    for base in (0x9000_0000, HIGH):
        memories[base] = Memory(SIZE)
        block.root.mem_address_space.register_region(memories[base], base)
    return memories


async def alive(block: HardBlock, device: HostPortDevice, memory: Memory, base: int, rng: random.Random) -> None:
    """The device works: registers, a read, a write, an interrupt."""
    address = WORDS + 4 * rng.randrange(64)
    device.words[address] = value = rng.getrandbits(32)
    assert await block.bar.read_dword(bar_offset(address, WINDOW), timeout=100000) == value
    data = rng.randbytes(5000)
    write = device.write(base + 77, data)
    assert await device.ended(write) == DmaError.NONE
    block.interrupt.clear()
    await device.interrupt()
    await with_timeout(block.interrupt.wait(), 100, "us")
    assert memory.bytes[77:5077] == data
    read = device.read(base + 77, 5000)
    assert await device.ended(read) == DmaError.NONE
    assert read.data == data


@cocotb.test()
async def words(dut: Any) -> None:
    """The host reads and writes words of the bus, with any byte enables, at any address of the map; pauses on all
    sides."""
    rng = random.Random(1)
    block, device = await start(dut, rng, stall=0.3)
    block.pause(rng)
    expected = dict(device.words)
    for _ in range(80):
        address = WORDS + 4 * rng.randrange(64)
        first = rng.randrange(4)
        count = rng.randint(1, 4 - first)
        mask = ((1 << 8 * count) - 1) << 8 * first
        offset = bar_offset(address, WINDOW) + first
        if rng.random() < 0.5:
            data = rng.getrandbits(8 * count)
            await block.bar.write(offset, data.to_bytes(count, "little"))
            expected[address] = expected[address] & ~mask | data << 8 * first
        else:
            found = await block.bar.read(offset, count, timeout=100000)
            assert int.from_bytes(found, "little") == (expected[address] & mask) >> 8 * first
    # Enables with a hole, and none at all.
    for enables in range(16):
        tlp = Tlp()
        tlp.fmt_type, tlp.requester_id = TlpType.MEM_WRITE, PcieId(0, 0, 0)
        tlp.address = block.function.bar_addr[0] + bar_offset(WORDS, WINDOW)
        tlp.set_data(data := rng.randbytes(4))
        tlp.first_be = enables
        await block.root.perform_posted_operation(tlp)
        mask = sum(0xFF << 8 * index for index in range(4) if enables >> index & 1)
        expected[WORDS] = expected[WORDS] & ~mask | int.from_bytes(data, "little") & mask
        assert await block.bar.read_dword(bar_offset(WORDS, WINDOW), timeout=100000) == expected[WORDS]
    # A read of nothing pushes what was written before.
    tlp = Tlp()
    tlp.fmt_type, tlp.requester_id, tlp.length = TlpType.MEM_READ, PcieId(0, 0, 0), 1
    tlp.address = block.function.bar_addr[0] + bar_offset(WORDS, WINDOW)
    (completion,) = await block.root.perform_nonposted_operation(tlp, 100000)
    assert (completion.status, completion.length) == (CplStatus.SC, 1)
    assert device.words == expected
    block.finish()


@cocotb.test()
async def refusals(dut: Any) -> None:
    """More than a word, and a word where there is none: Unsupported Request, and nothing happens; writes are
    dropped."""
    rng = random.Random(2)
    block, device = await start(dut, rng)
    base = block.function.bar_addr[0]
    before = dict(device.words)
    for length, address, last in ((2, WORDS, 15), (32, WORDS, 15), (1, 0xF000_0000, 0)):
        tlp = Tlp()
        tlp.fmt_type, tlp.requester_id = TlpType.MEM_READ, PcieId(0, 0, 0)
        tlp.address, tlp.length, tlp.first_be, tlp.last_be = base + bar_offset(address, WINDOW), length, 15, last
        (completion,) = await block.root.perform_nonposted_operation(tlp, 100000)
        assert completion.status == CplStatus.UR
        await block.bar.write(bar_offset(address, WINDOW), bytes(4 * length))
        await Timer(1, "us")
        if length == 1:
            continue
        assert not [request for request in device.requests if request[2]], "a write of several words got through"
    assert device.words == before
    await alive(block, device, host_memory(block)[HIGH], HIGH, rng)
    block.finish()


@cocotb.test()
@cocotb.parametrize(setting=SETTINGS)
async def transfers(dut: Any, setting: tuple[int, int, int, bool, float]) -> None:
    """Reads and writes together, of 1 byte and more, any alignment below and above 4 GiB, pauses on all sides."""
    max_payload, max_read, boundary, split, pause = setting
    rng = random.Random(max_payload)
    sizes = {"max_payload": max_payload, "max_read_request": max_read, "boundary": boundary}
    block, device = await start(dut, rng, stall=pause, **sizes)
    block.root.split_on_all_rcb = split
    if pause:
        block.pause(rng, pause)
    memories = host_memory(block)
    largest = int(os.environ.get("SYSTOLA_PCIE_LARGEST", "6000"))
    lengths = [*range(1, 10), 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, *(rng.randint(1, largest) for _ in range(6)), largest]
    half = SIZE // 2
    expected = {base: bytearray(rng.randbytes(SIZE)) for base in memories}
    for base, memory in memories.items():
        memory.bytes[:] = expected[base]
    reads: list[tuple[int, int, Transfer]] = []
    writes = []
    rng.shuffle(lengths)
    # The device reads the lower half and writes the upper half.
    for wanted in lengths:
        base = rng.choice(list(memories))
        length = min(wanted, half)
        offset = rng.randrange(half - length + 1)
        reads.append((base, offset, device.read(base + offset, length)))
        offset = half + rng.randrange(half - length + 1)
        data = rng.randbytes(length)
        expected[base][offset : offset + length] = data
        writes.append(device.write(base + offset, data))
    for base, offset, read in reads:
        assert await device.ended(read, 100000) == DmaError.NONE
        assert read.data == expected[base][offset : offset + read.length]
    for write in writes:
        assert await device.ended(write, 100000) == DmaError.NONE
    block.interrupt.clear()
    await device.interrupt()
    await with_timeout(block.interrupt.wait(), 100, "us")
    for base, memory in memories.items():
        assert memory.bytes == expected[base], "the writes are not all in memory when the interrupt comes"
    block.finish()


@cocotb.test()
async def throughput(dut: Any) -> None:
    """64 KiB each way at a maximum payload of 256 bytes: at least 80% of what the interface of 64 bits can carry of
    payload."""
    rng = random.Random(3)
    block, device = await start(dut, rng, max_payload=256)
    memory = host_memory(block)[HIGH]
    length, payload = 1 << 16, 256
    bound = 8 * payload / (payload + 16)  # bytes a cycle, behind headers of four dwords
    for name in ("read", "write"):
        device.moved.clear()
        transfer = device.read(HIGH, length) if name == "read" else device.write(HIGH, bytes(length))
        begin = device.cycle
        assert await device.ended(transfer) == DmaError.NONE
        cycles = device.cycle - begin
        rate = length / cycles
        print(f"RATE {name} of 64 KiB: {cycles} cycles, {rate:.2f} bytes a cycle, {rate / bound:.1%} of {bound:.2f}")
        assert rate >= 0.8 * bound, name
    assert memory.reads
    assert block.monitor.most_outstanding >= 8
    block.finish()


@cocotb.test()
async def refused_reads(dut: Any) -> None:
    """An unmapped address, a memory that aborts, poison: each its error; transfers before and after it are not
    harmed."""
    rng = random.Random(4)
    block, device = await start(dut, rng, max_payload=256)
    memory = host_memory(block)[HIGH]
    memory.bytes[:] = rng.randbytes(SIZE)

    read = device.read(HIGH + SIZE, 4096)
    assert await device.ended(read) == DmaError.UNSUPPORTED_REQUEST
    # Half of it is mapped; the one behind it is whole.
    reads = [device.read(HIGH + SIZE - 4096, 8192), device.read(HIGH, 5000)]
    assert [await device.ended(read) for read in reads] == [DmaError.UNSUPPORTED_REQUEST, DmaError.NONE]
    assert reads[1].data == memory.bytes[:5000]

    memory.refuse = True
    assert await device.ended(device.read(HIGH, 700)) == DmaError.COMPLETER_ABORT
    memory.refuse = False
    await alive(block, device, memory, HIGH, rng)

    create = Tlp.create_completion_data_for_tlp

    def poisoned(tlp: Tlp, completer: PcieId) -> Tlp:
        completion = create(tlp, completer)
        completion.ep = True
        return completion

    Tlp.create_completion_data_for_tlp = staticmethod(poisoned)
    block.faulty = 1
    read = device.read(HIGH, 100)
    assert await device.ended(read) == DmaError.POISONED
    Tlp.create_completion_data_for_tlp = create
    block.monitor.reset()
    await alive(block, device, memory, HIGH, rng)
    block.finish()


@cocotb.test()
async def timeout(dut: Any) -> None:
    """A read that is never answered ends with TIMEOUT, in time; a completion that comes too late harms nobody."""
    rng = random.Random(5)
    block, device = await start(dut, rng, max_payload=256)
    memory = host_memory(block)[HIGH]
    memory.bytes[:] = rng.randbytes(SIZE)
    limit = int(os.environ["SYSTOLA_PCIE_TIMEOUT"])
    handle = block.root.rx_tlp_handler[TlpType.MEM_READ_64]
    lost: list[Tlp] = []

    async def lose(tlp: Tlp) -> None:
        lost.append(tlp)

    for round_ in range(3):
        block.root.register_rx_tlp_handler(TlpType.MEM_READ_64, lose)
        begin = device.cycle
        read = device.read(HIGH + 64 * round_, 64)
        assert await device.ended(read) == DmaError.TIMEOUT
        assert limit <= device.cycle - begin <= 2 * limit + 100
        block.root.register_rx_tlp_handler(TlpType.MEM_READ_64, handle)
        await alive(block, device, memory, HIGH, rng)
        for tlp in lost:  # the answer at last
            await handle(tlp)
        lost.clear()
        await Timer(2, "us")
        await alive(block, device, memory, HIGH, rng)
    block.finish()


@cocotb.test()
async def bus_master_disabled(dut: Any) -> None:
    """Without the host's permission nothing is sent, and each transfer ends with its error."""
    rng = random.Random(6)
    block, device = await start(dut, rng)
    memory = host_memory(block)[HIGH]
    await block.function.clear_master()
    block.monitor.bus_master = False
    await Timer(1, "us")
    transfers = [device.read(HIGH, 5000), device.write(HIGH, bytes(5000)), device.read(HIGH, 1)]
    assert {await device.ended(transfer) for transfer in transfers} == {DmaError.BUS_MASTER_DISABLED}
    await block.function.set_master()
    block.monitor.bus_master = True
    await Timer(1, "us")
    await alive(block, device, memory, HIGH, rng)
    block.finish()


@cocotb.test()
async def link_reset(dut: Any) -> None:
    """The link goes down in the middle of transfers both ways: they end with LINK_DOWN, and after it all is as
    before."""
    rng = random.Random(7)
    block, device = await start(dut, rng, max_payload=256)
    memory = host_memory(block)[HIGH]
    for _ in range(3):
        transfers = [device.read(HIGH, 60000), device.write(HIGH, bytes(60000)), device.read(HIGH, 100)]
        await Timer(rng.randint(300, 3000), "ns")
        await block.reset_link()
        codes = [await device.ended(transfer) for transfer in transfers]
        assert codes[0] == DmaError.LINK_DOWN, codes
        assert set(codes) <= {DmaError.LINK_DOWN, DmaError.NONE}, codes
        await alive(block, device, memory, HIGH, rng)
    block.finish(unanswered=True)
