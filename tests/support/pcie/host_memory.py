"""A link's side of the host's memory, in simulation: random stalls, chosen failures, and every rule of the streams
asserted."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from systola_firmware.spec.config import DMA_BEAT_BYTES
from systola_firmware.spec.dma import DmaError
from systola_hdl.host.host_port import HostMemory
from systola_sim.machine.dma_model import TransferError

__all__ = ["BASE", "HostLink", "PlainHost"]

#: Where the host's memory begins: above 4 GiB.
BASE = 0x3_7654_0000


@dataclass
class PlainHost:
    """Bytes of the host, and the failures of ranges: the golden engine's host. ``trouble`` tells what goes wrong at an
    address."""

    memory: bytearray
    link_up: bool = True
    interrupts: int = 0
    reads_fail: dict[int, DmaError] = field(default_factory=dict)
    writes_fail: dict[int, DmaError] = field(default_factory=dict)

    def trouble(self, failures: dict[int, DmaError], address: int, length: int) -> DmaError:
        """What is wrong with a transfer that has one of these addresses in it."""
        return next((code for at, code in failures.items() if address <= at < address + length), DmaError.NONE)

    def read(self, address: int, length: int) -> bytes:
        if code := self.trouble(self.reads_fail, address, length):
            raise TransferError(code)
        assert BASE <= address <= address + length <= BASE + len(self.memory)
        return bytes(self.memory[address - BASE : address - BASE + length])

    def write(self, address: int, data: bytes) -> None:
        if code := self.trouble(self.writes_fail, address, len(data)):
            raise TransferError(code)
        assert BASE <= address <= address + len(data) <= BASE + len(self.memory)
        self.memory[address - BASE : address - BASE + len(data)] = data

    def interrupt(self) -> None:
        self.interrupts += 1


def _read_data(data: int, *, last: bool, code: DmaError = DmaError.NONE) -> int:
    """A beat of a read as the stream's bits."""
    fields = HostMemory.READ_DATA
    values = {"data": data, "last": int(last), "error": int(code != DmaError.NONE), "error_code": int(code)}
    return sum(value << fields[name].offset for name, value in values.items())


class HostLink:
    """Serves a :class:`~systola_hdl.host.host_port.HostMemory` from a :class:`PlainHost`; ``port`` is the device's.

    Parameters
    ----------
    latency:
        Cycles from a read's request to its first beat at least.
    busy:
        Probability that any stream stalls in a cycle.
    """

    def __init__(self, port: Any, host: PlainHost, rng: random.Random, *, latency: int = 1, busy: float = 0.0) -> None:
        self.port, self.host, self.rng, self.latency, self.busy = port, host, rng, latency, busy
        self.cycle = 0
        self.read_cycles: list[int] = []  #: in which a beat of a read was taken
        self.write_cycles: list[int] = []  #: in which a beat of a write was taken
        self.interrupt_cycles: list[int] = []
        self.events: list[str] = []  #: writes and interrupts, in order
        self._beats: deque[tuple[int, int]] = deque()  # due cycle, payload
        self._writes: deque[list[Any]] = deque()
        self._done: deque[int] = deque()

    def _queue_read(self, address: int, length: int) -> None:
        due = self.cycle + self.latency
        code = self.host.trouble(self.host.reads_fail, address, length) if self.host.link_up else DmaError.LINK_DOWN
        beats = -(-length // DMA_BEAT_BYTES)
        good = self.rng.randrange(beats) if code else beats
        data = bytes(length) if code else self.host.read(address, length)
        if code and self.host.link_up:  # beats before the failure are the host's bytes
            data = bytes(self.host.memory[address - BASE : address - BASE + length]).ljust(length, b"\0")
        for index in range(good):
            chunk = data[8 * index : 8 * index + 8]
            chunk += self.rng.randbytes(8 - len(chunk))
            self._beats.append((due, _read_data(int.from_bytes(chunk, "little"), last=index == beats - 1)))
        if code:
            self._beats.append((due, _read_data(self.rng.getrandbits(64), last=True, code=code)))

    def _finish_write(self) -> None:
        address, length, data = self._writes.popleft()
        code = DmaError.NONE if self.host.link_up else DmaError.LINK_DOWN
        if not code:
            try:
                self.host.write(address, bytes(data[:length]))
                self.events.append(f"write {address - BASE:#x} {length}")
            except TransferError as failure:
                code = failure.error
        self._done.append(HostMemory.WRITE_DONE.const({"error": code != DmaError.NONE, "error_code": code}).as_value().value)

    def _goes(self) -> bool:
        """Whether a stream does not stall in this cycle."""
        return self.rng.random() >= self.busy

    async def serve(self, ctx: Any) -> None:
        """The link; a background testbench. Sets only what changes: each time makes the simulator settle."""
        port = self.port
        names = ("read", "write", "write_data", "read_data", "write_done")
        streams = {name: getattr(port, name) for name in names}
        sampled = [part for stream in streams.values() for part in (stream.valid, stream.ready, stream.payload.as_value())]
        driven = {f"{name} ready": streams[name].ready for name in names[:3]}
        driven |= {f"{name} valid": streams[name].valid for name in names[3:]} | {"link_up": port.link_up}
        interrupts = port.interrupt
        levels: dict[str, bool] = dict.fromkeys(driven, False)
        offered: dict[str, int] = {}

        def drive(name: str, level: bool) -> None:
            if levels[name] != level:
                ctx.set(driven[name], level)
                levels[name] = level

        while True:
            drive("link_up", self.host.link_up)
            drive("read ready", self._goes())
            drive("write ready", self._goes())
            drive("write_data ready", bool(self._writes) and self._goes())
            # What is offered stays until it is taken.
            if not levels["read_data valid"] and self._beats and self._beats[0][0] <= self.cycle and self._goes():
                ctx.set(streams["read_data"].payload.as_value(), self._beats[0][1])
                drive("read_data valid", True)
            if not levels["write_done valid"] and self._done and self._goes():
                ctx.set(streams["write_done"].payload.as_value(), self._done[0])
                drive("write_done valid", True)
            _, _, interrupt, *values = await ctx.tick().sample(interrupts, *sampled)
            for index, name in enumerate(names):
                valid, ready, payload = values[3 * index : 3 * index + 3]
                if index < 3:
                    if name in offered:
                        assert valid, f"{name} was withdrawn"
                        assert payload == offered.pop(name), f"{name} changed while it waited"
                    if valid and not ready:
                        offered[name] = payload
                if valid and ready:
                    self._take(name, payload)
                    if name == "read_data" and self._beats and self._beats[0][0] <= self.cycle + 1 and self._goes():
                        ctx.set(streams[name].payload.as_value(), self._beats[0][1])
                    elif index >= 3:
                        drive(f"{name} valid", False)
            if interrupt:
                self.host.interrupt()
                self.interrupt_cycles.append(self.cycle)
                self.events.append("interrupt")
            self.cycle += 1

    def _take(self, name: str, payload: int) -> None:
        """A transfer of a stream in this cycle."""
        if name in {"read", "write"}:
            address, length = payload & (1 << 64) - 1, payload >> 64
            assert length > 0
            if name == "read":
                self._queue_read(address, length)
            else:
                self._writes.append([address, length, bytearray()])
        elif name == "write_data":
            assert self._writes, "data before its request"
            self.write_cycles.append(self.cycle)
            self._writes[0][2].extend(payload.to_bytes(8, "little"))
            if len(self._writes[0][2]) >= self._writes[0][1]:
                self._finish_write()
        elif name == "read_data":
            self._beats.popleft()
            self.read_cycles.append(self.cycle)
        else:
            self._done.popleft()
