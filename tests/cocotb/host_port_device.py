"""The engine's side of a host port, in Python: a memory on the bus, and as many transfers under way as a test asks
for."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cocotb.triggers import Event, FallingEdge, Timer, with_timeout

from systola_firmware.spec.dma import LENGTH_BITS, DmaError


@dataclass
class Transfer:
    """A read or a write; ``done`` is set when it has ended with ``error``."""

    address: int
    length: int
    data: bytearray
    error: DmaError = DmaError.NONE
    done: Event = field(default_factory=Event)

    @property
    def request(self) -> int:
        return self.address | self.length << 64


class HostPortDevice:
    """Drives ``host__…`` at the falling edge; ``stall`` is the probability of a refused or a missing beat.

    Attributes
    ----------
    words:
        The bus' memory, by address; other addresses answer with an error.
    requests:
        What came over the bus: address, data and whether it was a write.
    """

    def __init__(self, dut: Any, rng: random.Random, stall: float = 0.0) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.words: dict[int, int] = {}
        self.requests: list[tuple[int, int, bool]] = []
        self._answers: deque[int] = deque()
        self._new_reads: deque[Transfer] = deque()
        self._reads: deque[Transfer] = deque()
        self._new_writes: deque[Transfer] = deque()
        self._writes: deque[Transfer] = deque()
        self._beats: deque[int] = deque()
        self._offered: dict[str, int] = {}
        self.cycle = 0
        self.moved: list[int] = []  #: cycles in which a beat of read_data or write_data passed
        dut.host__interrupt.value = 0

    def read(self, address: int, length: int) -> Transfer:
        """Begin a read."""
        transfer = Transfer(address, length, bytearray())
        self._new_reads.append(transfer)
        return transfer

    def write(self, address: int, data: bytes) -> Transfer:
        """Begin a write."""
        transfer = Transfer(address, len(data), bytearray(data))
        self._new_writes.append(transfer)
        return transfer

    async def ended(self, transfer: Transfer, microseconds: int = 200) -> DmaError:
        """Wait for its end."""
        await with_timeout(transfer.done.wait(), microseconds, "us")
        return transfer.error

    async def interrupt(self) -> None:
        """One event."""
        await FallingEdge(self.dut.clk)
        self.dut.host__interrupt.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.host__interrupt.value = 0

    def _offer(self, name: str, waiting: deque[Any], bits: int) -> None:
        """Offer the first of ``waiting``, with pauses between; what was offered stays."""
        if name not in self._offered and waiting and self.rng.random() >= self.stall:
            first = waiting[0]
            self._offered[name] = first.request if isinstance(first, Transfer) else first
        getattr(self.dut, f"host__{name}__valid").value = name in self._offered
        getattr(self.dut, f"host__{name}__payload").value = self._offered.get(name, self.rng.getrandbits(bits))

    def _taken(self, name: str) -> bool:
        taken = name in self._offered and bool(int(getattr(self.dut, f"host__{name}__ready").value))
        if taken:
            del self._offered[name]
        return taken

    async def run(self) -> None:
        """Drive and watch all of the port."""
        dut, rng = self.dut, self.rng
        sources = ("bus__request", "read_data", "write_done")
        while True:
            self._offer("bus__response", self._answers, 33)
            self._offer("read", self._new_reads, 64 + LENGTH_BITS)
            self._offer("write", self._new_writes, 64 + LENGTH_BITS)
            self._offer("write_data", self._beats, 64)
            ready = {name: rng.random() >= self.stall for name in sources}
            for name in sources:
                getattr(dut, f"host__{name}__ready").value = ready[name]
            await Timer(1, "ns")
            self.cycle += 1
            if not int(dut.rst.value):
                self._step({name: self._passed(name, ready[name]) for name in sources})
            await FallingEdge(dut.clk)

    def _passed(self, name: str, ready: bool) -> int | None:
        if ready and int(getattr(self.dut, f"host__{name}__valid").value):
            return int(getattr(self.dut, f"host__{name}__payload").value)
        return None

    def _step(self, passed: dict[str, int | None]) -> None:
        """What has happened in this cycle."""
        request, data, done = passed["bus__request"], passed["read_data"], passed["write_done"]
        if self._taken("bus__response"):
            self._answers.popleft()
        if request is not None:
            address, write, value = request & 0xFFFF_FFFF, bool(request >> 32 & 1), request >> 33
            self.requests.append((address, value if write else 0, write))
            known = address in self.words
            if write and known:
                self.words[address] = value
            self._answers.append((0 if write else self.words.get(address, 0)) | (not known) << 32)
        if self._taken("read"):
            self._reads.append(self._new_reads.popleft())
        if data is not None:
            self.moved.append(self.cycle)
            self._receive(self._reads[0], data & (1 << 64) - 1, bool(data >> 64 & 1), bool(data >> 65 & 1), data >> 66)
        if self._taken("write_data"):
            self.moved.append(self.cycle)
            self._beats.popleft()
        if self._taken("write"):
            transfer = self._new_writes.popleft()
            self._writes.append(transfer)
            padded = transfer.data + self.rng.randbytes(-transfer.length % 8)
            self._beats += [int.from_bytes(padded[low : low + 8], "little") for low in range(0, len(padded), 8)]
        if done is not None:
            transfer = self._writes.popleft()
            transfer.error = DmaError(done >> 1)
            assert bool(done & 1) == (transfer.error != DmaError.NONE)
            transfer.done.set()

    def _receive(self, transfer: Transfer, data: int, last: bool, error: bool, code: int) -> None:
        assert error == (code != DmaError.NONE)
        assert last or not error
        if not error:
            transfer.data += data.to_bytes(8, "little")
            assert last == (len(transfer.data) >= transfer.length), "a read of another length"
            del transfer.data[transfer.length :]
        if last:
            transfer.error = DmaError(code)
            self._reads.popleft()
            transfer.done.set()
