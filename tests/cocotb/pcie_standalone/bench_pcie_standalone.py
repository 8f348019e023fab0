"""The endpoint with its own configuration space before cocotbext-pcie's root complex: raw TLPs both ways, monitored."""

from __future__ import annotations

import logging
import os
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import cocotb
from bench_support import start
from cocotb.queue import Queue
from cocotb.triggers import FallingEdge, Timer
from cocotbext.axi.address_space import MemoryRegion
from cocotbext.pcie.core import RootComplex
from cocotbext.pcie.core.caps import PciCapId
from cocotbext.pcie.core.device import Device
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType
from cocotbext.pcie.core.utils import PcieId
from pcie_bench import tlp_of, words_of
from support.pcie.tlp import from_beats, to_beats
from support.pcie.tlp_monitor import TlpMonitor, TlpViolation

from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import DEVICE_ID, VENDOR_ID, map_address

WINDOW = 20
HIGH = 0x2_3456_0000_0000
#: The longest transfers of a test are of this many bytes.
LONGEST = int(os.environ["SYSTOLA_PCIE_LONGEST"])


class Board(Device):
    """A device of raw TLPs: the block's two streams, and behind its host port a memory and a list of transfers."""

    def __init__(self, dut: Any, rng: random.Random, stall: float) -> None:
        super().__init__()
        self.dut, self.rng, self.stall = dut, rng, stall
        self.monitor = TlpMonitor()
        self.violations: list[TlpViolation] = []
        self.words: dict[int, int] = {}
        self.reads: deque[tuple[int, int]] = deque()
        self.writes: deque[tuple[int, bytes]] = deque()
        self.read_results: list[tuple[bytes, int]] = []
        self.write_results: list[int] = []
        self.interrupts = 0
        self._inputs: dict[str, int] = {}
        self._beats: deque[dict[str, int]] = deque()
        self._sent: Queue[Tlp] = Queue()

    async def upstream_recv(self, tlp: Tlp) -> None:
        words = words_of(tlp)
        self._judge(lambda: self.monitor.to_device(words))
        tlp.release_fc()
        self._beats.extend(to_beats(words))

    def _judge(self, see: Callable[[], object]) -> None:
        try:
            see()
        except TlpViolation as violation:
            self.violations.append(violation)

    async def forward(self) -> None:
        """What the block sends, to the root complex."""
        while True:
            await self.upstream_send(await self._sent.get())

    def finish(self) -> None:
        if self.violations:
            raise self.violations[0]
        self.monitor.finish()

    def _set(self, name: str, value: int | None) -> None:
        """Set an input that has changed: this is the inner loop."""
        if value is not None and self._inputs.get(name) != value:
            self._inputs[name] = value
            getattr(self.dut, name).value = value

    def _go(self) -> bool:
        return self.rng.random() >= self.stall

    async def run(self) -> None:
        """All ports of the block, at the falling edge: what inputs and outputs say then holds for the next rising
        edge."""
        dut = self.dut
        packet: list[tuple[int, int]] = []
        data: deque[int] = deque()
        answer, lengths = bytearray(), deque[int]()
        response: int | None = None
        offers = dict.fromkeys(INPUTS, False)
        while True:
            transfers = {"read": self.reads[0] if self.reads else None}
            transfers["write"] = (self.writes[0][0], len(self.writes[0][1])) if self.writes else None
            contents = {name: None if what is None else what[0] | what[1] << 64 for name, what in transfers.items()}
            contents["rx"] = pack_beat(self._beats[0]) if self._beats else None
            contents["write_data"] = data[0] if data else None
            contents["response"] = response
            for name, content in contents.items():
                offers[name] = content is not None and (offers[name] or self._go())
                self._set(f"{PORTS[name]}__valid", int(offers[name]))
                if offers[name]:
                    self._set(f"{PORTS[name]}__payload", content)
            ready = {name: self._go() for name in ("tx", "read_data", "write_done", "request")}
            ready["request"] &= response is None
            for name, go in ready.items():
                self._set(f"{PORTS[name]}__ready", int(go))
            self._set("host__interrupt", int(self.interrupts > 0))
            self.interrupts -= self.interrupts > 0
            await Timer(1, "ns")
            for name, offered in offers.items():
                if offered and int(getattr(dut, PORTS[name] + "__ready").value):
                    offers[name] = False
                    if name == "rx":
                        self._beats.popleft()
                    elif name == "read":
                        lengths.append(self.reads.popleft()[1])
                    elif name == "write":
                        content = self.writes.popleft()[1]
                        content += self.rng.randbytes(-len(content) % 8)
                        data.extend(int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content), 8))
                    elif name == "write_data":
                        data.popleft()
                    else:
                        response = None
            for name, go in ready.items():
                if not (go and int(getattr(dut, PORTS[name] + "__valid").value)):
                    continue
                payload = int(getattr(dut, PORTS[name] + "__payload").value)
                if name == "tx":
                    assert payload >> 66 & 1 == (not packet)
                    packet.append((payload & (1 << 64) - 1, payload >> 64 & 3))
                    if payload >> 67 & 1:
                        words = from_beats(packet)
                        packet.clear()
                        self._judge(lambda words=words: self.monitor.from_device(words))  # type: ignore[misc]
                        self._sent.put_nowait(tlp_of(words))
                elif name == "read_data":
                    error = payload >> 65 & 1
                    if not error:
                        answer += (payload & (1 << 64) - 1).to_bytes(8, "little")
                    if payload >> 64 & 1:
                        self.read_results.append((bytes(answer[: lengths.popleft()]), payload >> 66))
                        answer.clear()
                elif name == "write_done":
                    self.write_results.append(payload >> 1)
                else:
                    address, write, value = payload & 0xFFFF_FFFF, payload >> 32 & 1, payload >> 33
                    missing = address & 0xFFF_FFFF >= 0x1_0000
                    response = missing << 32 | (0 if write or missing else self.words.get(address, 0))
                    if write and not missing:
                        self.words[address] = value
            await FallingEdge(dut.clk)


#: Names of the block's ports.
PORTS = {
    "rx": "rx",
    "tx": "tx",
    "read": "host__read",
    "read_data": "host__read_data",
    "write": "host__write",
    "write_data": "host__write_data",
    "write_done": "host__write_done",
    "request": "host__bus__request",
    "response": "host__bus__response",
}
#: Those of them that the bench offers something to.
INPUTS = ("rx", "read", "write", "write_data", "response")


def pack_beat(beat: dict[str, int]) -> int:
    return beat["data"] | beat["keep"] << 64 | beat["first"] << 66 | beat["last"] << 67


class System:
    """Root complex and board, enumerated."""

    def __init__(self, dut: Any, rng: random.Random, stall: float) -> None:
        self.dut = dut
        self.root = RootComplex()
        for name in ("cocotb.pcie", "cocotb.tb"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.board = Board(dut, rng, stall)
        self.root.make_port().connect(self.board)

    async def enumerate(self, *, max_payload: int = 128, max_read_request: int = 512, boundary: int = 64) -> None:
        inputs = {f"{port}__{end}": 0 for name, port in PORTS.items() for end in ("valid", "payload") if name in INPUTS}
        inputs |= {f"{port}__ready": 0 for name, port in PORTS.items() if name not in INPUTS}
        await start(self.dut, link_up=1, host__interrupt=0, **inputs)
        cocotb.start_soon(self.board.run())
        cocotb.start_soon(self.board.forward())
        await Timer(200, "ns")
        self.root.max_payload_size = code = (max_payload // 128).bit_length() - 1
        self.root.read_completion_boundary = boundary == 128
        monitor = self.board.monitor
        monitor.bus_master = False
        await self.root.enumerate(timeout=20_000)
        self.function = self.root.find_device(PcieId(1, 0, 0))
        await self.function.enable_device()
        await self.function.set_master()
        await self.function.alloc_irq_vectors(1, 1)
        control = await self.function.capability_read_word(PciCapId.EXP, 8)
        control = control & ~0x70E0 | (max_read_request // 128).bit_length() - 1 << 12 | code << 5
        await self.function.capability_write_word(PciCapId.EXP, 8, control)
        await self.function.capability_write_word(PciCapId.EXP, 16, 8 if boundary == 128 else 0)
        monitor.max_payload, monitor.max_read_request, monitor.read_boundary = max_payload, max_read_request, boundary
        monitor.bus_master, monitor.function_id = True, int(PcieId(1, 0, 0))
        self.bar = self.function.bar_window[0]

    async def until(self, done: Callable[[], bool], cycles: int) -> None:
        for _ in range(cycles):
            if done():
                return
            await FallingEdge(self.dut.clk)
        raise AssertionError(f"not over after {cycles} cycles")


async def system(dut: Any, seed: int, stall: float = 0.0, **sizes: int) -> tuple[System, Board, random.Random]:
    rng = random.Random(seed)
    it = System(dut, rng, stall)
    await it.enumerate(**sizes)
    return it, it.board, rng


@cocotb.test()
async def enumeration(dut: Any) -> None:
    """Found by its identity, with one BAR of the right size at an address of its own."""
    it, board, _ = await system(dut, 1)
    assert (it.function.vendor_id, it.function.device_id) == (VENDOR_ID, DEVICE_ID)
    assert it.function.bar_size[0] == 1 << WINDOW + 4
    assert it.function.bar_addr[0] % (1 << WINDOW + 4) == 0
    assert it.function.bar_window[1] is None
    board.finish()


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def words(dut: Any, stall: float) -> None:
    """Parts of words at any address, in windows of all regions; refusals of what is longer or nowhere."""
    it, board, rng = await system(dut, 2, stall)
    model = bytearray(64)
    origin = 0x30_0040
    for _ in range(60):
        offset = rng.randrange(64)
        length = rng.randint(1, 4 - offset % 4)
        if rng.random() < 0.5:
            data = rng.randbytes(length)
            model[offset : offset + length] = data
            await it.bar.write(origin + offset, data)
        else:
            assert await it.bar.read(origin + offset, length, timeout=50_000) == model[offset : offset + length]
    found = b"".join(board.words.get(map_address(origin + at, WINDOW), 0).to_bytes(4, "little") for at in range(0, 64, 4))
    assert found == model
    base = it.function.bar_addr[0]
    for offset, length in ((0, 2), (0x20_0000, 1)):
        tlp = Tlp()
        tlp.fmt_type, tlp.requester_id = TlpType.MEM_READ, PcieId(0, 0, 0)
        tlp.set_addr_be(base + offset + (0 if length == 2 else 0xF_0000), 4 * length)
        (completion,) = await it.root.perform_nonposted_operation(tlp, 50_000)
        assert completion.status == CplStatus.UR
    board.finish()


@cocotb.test()
@cocotb.parametrize(
    (
        ("seed", "stall", "sizes"),
        [(3, 0.0, (128, 128, 64)), (4, 0.3, (256, 512, 128)), (5, 0.1, (128, 4096, 64)), (6, 0.0, (256, 256, 64))],
    )
)
async def transfers(dut: Any, seed: int, stall: float, sizes: tuple[int, int, int]) -> None:
    """Reads and writes of the host's memory, below and above 4 GiB, of any length and alignment; then a message."""
    max_payload, max_read_request, boundary = sizes
    it, board, rng = await system(dut, seed, stall, max_payload=max_payload, max_read_request=max_read_request, boundary=boundary)
    it.root.split_on_all_rcb = bool(seed % 2)
    low, memory = it.root.alloc_region(4 * LONGEST)
    high = MemoryRegion(4 * LONGEST)
    it.root.mem_address_space.register_region(high, HIGH)
    asked = []
    for base, content in ((low, memory), (HIGH, high.mem)):
        content[: 2 * LONGEST] = rng.randbytes(2 * LONGEST)
        content[2 * LONGEST :] = bytes(2 * LONGEST)
        most = LONGEST if base == HIGH else 2048
        for length in (1, 2, 3, 5, 8, 127, 257, rng.randint(1, 2048), most - rng.randrange(8)):
            begin = rng.randrange(2 * LONGEST - length)
            board.reads.append((base + begin, length))
            asked.append((bytes(content[begin : begin + length]), DmaError.NONE))
        expected = bytearray(content)
        for length in (1, 2, 3, 6, 9, 129, 255, rng.randint(1, 2048), most - rng.randrange(8)):
            begin, data = 2 * LONGEST + rng.randrange(2 * LONGEST - length), rng.randbytes(length)
            board.writes.append((base + begin, data))
            expected[begin : begin + length] = data
        limit = 40 * LONGEST
        await it.until(lambda: not board.writes and len(board.read_results) == len(asked), limit)
        await it.until(lambda: len(board.write_results) in (9, 18), limit)
        board.interrupts = 1
        await it.function.msi_vectors[0].event.wait()
        it.function.msi_vectors[0].event.clear()
        assert bytes(content) == bytes(expected)
    assert board.read_results == asked
    assert board.write_results == [DmaError.NONE] * 18
    board.finish()


@cocotb.test()
async def memory_that_is_not_there(dut: Any) -> None:
    """The root complex refuses; the next read is right."""
    it, board, rng = await system(dut, 7)
    low, memory = it.root.alloc_region(4096)
    memory[:] = rng.randbytes(4096)
    board.reads.extend([(0xDEAD_0000_0003, 700), (low + 3, 700)])
    await it.until(lambda: len(board.read_results) == 2, 4000)
    assert board.read_results == [(b"", DmaError.UNSUPPORTED_REQUEST), (bytes(memory[3:703]), DmaError.NONE)]
    board.finish()


@cocotb.test()
async def throughput(dut: Any) -> None:
    """64 KiB each way at once at a payload of 256 bytes, against the most that two dwords a cycle can carry."""
    it, board, rng = await system(dut, 8, max_payload=256, max_read_request=4096)
    size = 1 << 16
    low, memory = it.root.alloc_region(2 * size)
    high = MemoryRegion(size)
    it.root.mem_address_space.register_region(high, HIGH)
    memory[:size] = rng.randbytes(size)
    most = 256 / 34
    for name, base in (("read", low), ("write", low + size), ("write", HIGH)):
        content = rng.randbytes(size)
        if name == "read":
            board.reads.append((base, size))
        else:
            board.writes.append((base, content))
        cycles = 0
        while not board.read_results and not board.write_results:
            await FallingEdge(dut.clk)
            cycles += 1
        board.read_results.clear()
        board.write_results.clear()
        dut._log.info("THROUGHPUT %s at %#x: %d cycles, %.3f of the bound", name, base, cycles, size / cycles / most)
        assert size / cycles >= 0.8 * most
    board.finish()
