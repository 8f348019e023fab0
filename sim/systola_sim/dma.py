"""The DMA engine without a clock: descriptors take effect when the doorbell is rung, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from systola_firmware.config import Config
from systola_firmware.dma import DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, RECORD_WORDS, DmaError, DmaFlag, DmaKind
from systola_firmware.memory_map import (
    DMA_IDENTITY,
    DMA_REGISTERS,
    DMA_STATUS_ERROR_SHIFT,
    REGION_SHIFT,
    Access,
    DmaControl,
    DmaStatus,
    Region,
    region_bytes,
)

__all__ = ["GoldenDma", "HostMemory", "HostMemoryError"]

_MASK = (1 << 32) - 1
_MEMORIES = (Region.PROGRAM, Region.ACTIVATION, Region.WEIGHT)


class HostMemoryError(Exception):
    """The host's memory cannot be reached there; the argument is a :class:`~systola_firmware.dma.DmaError`."""

    def __init__(self, code: DmaError) -> None:
        super().__init__(code.name)
        self.code = code


class HostMemory(Protocol):
    """What a link offers. Reads and writes raise :class:`HostMemoryError`."""

    link_up: bool

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...

    def interrupt(self) -> None: ...


class GoldenDma:
    """Registers of the DMA region, and what ringing the doorbell does.

    Parameters
    ----------
    config:
        Engine, for the sizes of its memories.
    memories:
        Bytes of PROGRAM, ACTIVATION and WEIGHT.
    host:
        The host's memory.
    run:
        Run the program at a word; true if it ended without error.
    engine_words:
        Words of a status record that the engine tells; those it does not name are 0.
    """

    def __init__(
        self,
        config: Config,
        memories: Mapping[Region, npt.NDArray[np.uint8]],
        host: HostMemory,
        run: Callable[[int], bool],
        engine_words: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.config = config
        self.host = host
        self._memories = memories
        self._run = run
        self._engine_words = engine_words
        self._reset()

    def _reset(self) -> None:
        self._stored = {name: 0 for name, register in DMA_REGISTERS.items() if register.access is Access.READ_WRITE}
        self.completed = 0
        self.error = DmaError.NONE
        self._records = 0

    def read(self, offset: int) -> int:
        """The register at a byte offset."""
        name = list(DMA_REGISTERS)[offset // 4]
        return {"identity": DMA_IDENTITY, "status": self._status(), "completed": self.completed, **self._stored}.get(name, 0)

    def write(self, offset: int, value: int) -> None:
        """Write the register at a byte offset. Descriptors have taken effect when this returns."""
        name = list(DMA_REGISTERS)[offset // 4]
        if name in self._stored:
            self._stored[name] = value
        if name == "control" and value & DmaControl.RESET:
            self._reset()
        elif name == "doorbell":
            self._execute()

    def _status(self, *, busy: bool = False) -> int:
        flags = DmaStatus.STOPPED if self.error else DmaStatus.BUSY if busy else DmaStatus(0)
        return flags | (DmaStatus.LINK_UP if self.host.link_up else 0) | self.error << DMA_STATUS_ERROR_SHIFT

    def _address(self, name: str) -> int:
        return self._stored[f"{name}_low"] | self._stored[f"{name}_high"] << 32

    def _execute(self) -> None:
        while not self.error and self.completed != self._stored["doorbell"]:
            try:
                interrupts = self._step()
            except HostMemoryError as failure:
                self.error = failure.code
            else:
                self.completed = self.completed + 1 & _MASK
                if interrupts:
                    self.host.interrupt()
            if self.error:
                if self.host.link_up and self.error is not DmaError.LINK_DOWN and self._address("record"):
                    self._write_record(self._address("record"), self.completed)
                self.host.interrupt()

    def _step(self) -> bool:
        """Execute the next descriptor; true if it interrupts. Raises :class:`HostMemoryError`, also for what the engine refuses."""
        size, ring = self._stored["ring_size"], self._address("ring")
        ahead = self._stored["doorbell"] - self.completed & _MASK
        if size == 0 or size & (size - 1) or ring % DESCRIPTOR_BYTES or self._address("record") % 8 or ahead > size:
            raise HostMemoryError(DmaError.BAD_RING)
        raw = self._read(ring + self.completed % size * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
        fields = _fields(raw)
        host_address = fields["host_low"] | fields["host_high"] << 32
        try:
            kind = DmaKind(fields["kind"])
        except ValueError:
            raise HostMemoryError(DmaError.BAD_DESCRIPTOR) from None
        if kind in {DmaKind.TO_DEVICE, DmaKind.FROM_DEVICE}:
            place = self._place(fields)
            if kind is DmaKind.TO_DEVICE:
                place[:] = np.frombuffer(self._read(host_address, place.size), np.uint8)
            else:
                self.host.write(host_address, place.tobytes())
        elif fields["flags"] or (kind is DmaKind.RECORD and host_address % 8):
            raise HostMemoryError(DmaError.BAD_DESCRIPTOR)
        elif kind is DmaKind.RUN and not self._run(fields["device_address"]):
            raise HostMemoryError(DmaError.PROGRAM_FAILED)
        elif kind is DmaKind.RECORD:
            self._write_record(host_address, self.completed + 1)
        elif kind is DmaKind.INTERRUPT and self._address("record"):
            self._write_record(self._address("record"), self.completed + 1)
        return kind is DmaKind.INTERRUPT

    def _read(self, address: int, length: int) -> bytes:
        if not self.host.link_up:
            raise HostMemoryError(DmaError.LINK_DOWN)
        return self.host.read(address, length)

    def _place(self, fields: Mapping[str, int]) -> npt.NDArray[np.uint8]:
        """The bytes of a transfer. Raises :class:`HostMemoryError` if they are not all in one memory, or not whole words of it."""
        region, offset = fields["device_address"] >> REGION_SHIFT, fields["device_address"] & ((1 << REGION_SHIFT) - 1)
        length = fields["length"]
        known = region in _MEMORIES and not fields["flags"] & ~DmaFlag.OVERLAP and length
        aligned = region == Region.ACTIVATION or (offset % 4 == 0 and length % 4 == 0)
        if not known or not aligned or offset + length > region_bytes(self.config, Region(region)):
            raise HostMemoryError(DmaError.BAD_DESCRIPTOR)
        return self._memories[Region(region)][offset : offset + length]

    def _write_record(self, address: int, completed: int) -> None:
        words = dict.fromkeys(RECORD_WORDS, 0) | dict(self._engine_words())
        words |= {"completed": completed & _MASK, "status": self._status(busy=True), "doorbell": self._stored["doorbell"]}
        words["sequence"] = self._records = self._records + 1
        self.host.write(address, np.array(list(words.values()), "<u4").tobytes())


def _fields(raw: bytes) -> dict[str, int]:
    """Fields of a descriptor by name."""
    values: dict[str, int] = {}
    for word, fields in zip(np.frombuffer(raw, "<u4").tolist(), DESCRIPTOR_WORDS, strict=True):
        low = 0
        for field in fields:
            values[field.name] = word >> low & field.maximum
            low += field.bits
    return values
