"""The DMA engine beside the golden board: descriptors of ``systola_firmware.spec.dma``, carried out one after another
on bytes."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Protocol

from systola_firmware.spec.config import Config
from systola_firmware.spec.dma import DESCRIPTOR_BYTES, RECORD_WORDS, DmaError, DmaFlag, DmaKind
from systola_firmware.spec.memory_map import (
    COUNTERS,
    DMA_IDENTITY,
    DMA_REGISTERS,
    DMA_STATUS_ERROR_SHIFT,
    REGION_SHIFT,
    Access,
    Control,
    DmaControl,
    DmaStatus,
    Region,
    Status,
    region_bytes,
    register_address,
    split_status,
)
from systola_sim.machine.golden_board import BadAddressError, GoldenBoard

__all__ = ["DmaModel", "HostMemory", "TransferError"]

_DESCRIPTOR = struct.Struct("<BBHIIIQQ")
_COUNT_MASK = 0xFFFF_FFFF
_OFFSETS = {register.offset: register for register in DMA_REGISTERS.values()}
#: Regions that transfers may touch, and the alignment that they demand.
_ALIGNMENT = {Region.PROGRAM: 4, Region.ACTIVATION: 1, Region.WEIGHT: 4}


class TransferError(Exception):
    """An access to the host's memory that failed with ``error``."""

    def __init__(self, error: DmaError) -> None:
        super().__init__(error.name)
        self.error = error


class HostMemory(Protocol):
    """The host's memory as the device sees it. An access that fails raises :class:`TransferError`."""

    def read(self, address: int, length: int, /) -> bytes:
        """``length`` bytes from ``address``."""

    def write(self, address: int, data: bytes, /) -> None:
        """Put ``data`` at ``address``."""


class DmaModel:
    """A golden board of ``config`` with its DMA engine: both are on the bus, and :meth:`run` lets the DMA engine work.

    Parameters
    ----------
    config:
        Engine, with ``dma``; without, there is no DMA region.
    memory:
        The host's memory.
    interrupt:
        Called for each event.
    """

    def __init__(self, config: Config, memory: HostMemory, interrupt: Callable[[], None]) -> None:
        self.board = GoldenBoard(config)
        self.link_up = True
        self._memory = memory
        self._interrupt = interrupt
        self._reset()

    def _reset(self) -> None:
        self._registers = {name: 0 for name, register in DMA_REGISTERS.items() if register.access is Access.READ_WRITE}
        self._completed = self._sequence = 0
        self._error = DmaError.NONE

    # The bus.

    def read(self, address: int, words: int) -> bytes:
        """As :meth:`~systola_sim.machine.golden_board.GoldenBoard.read`, with the DMA region."""
        if address >> REGION_SHIFT != Region.DMA or not self.board.config.dma:
            return self.board.read(address, words)
        return b"".join(self._register(word).to_bytes(4, "little") for word in range(address, address + 4 * words, 4))

    def _register(self, address: int) -> int:
        register = _OFFSETS.get(address - Region.DMA.base)
        if register is None:
            raise BadAddressError(address)
        fixed = {"identity": DMA_IDENTITY, "status": self._status(), "completed": self._completed}
        return {**fixed, **self._registers}.get(register.name, 0)

    def write(self, address: int, data: bytes) -> None:
        """As :meth:`~systola_sim.machine.golden_board.GoldenBoard.write`, with the DMA region."""
        if address >> REGION_SHIFT != Region.DMA or not self.board.config.dma:
            self.board.write(address, data)
            return
        for offset in range(0, len(data), 4):
            register = _OFFSETS.get(address + offset - Region.DMA.base)
            if register is None:
                raise BadAddressError(address + offset)
            value = int.from_bytes(data[offset : offset + 4], "little")
            if register.name in self._registers:
                self._registers[register.name] = value
            elif register.name == "control" and value & DmaControl.RESET:
                self._reset()

    # The engine.

    @property
    def busy(self) -> bool:
        """Whether :meth:`run` has something to do."""
        return self._error is DmaError.NONE and self._registers["doorbell"] != self._completed

    def run(self, descriptors: int = 1) -> None:
        """Carry out up to so many descriptors."""
        while descriptors > 0 and self.busy:
            descriptors -= 1
            try:
                self._execute(self._fetch())
            except TransferError as error:
                self._stop(error.error)

    def _fetch(self) -> bytes:
        size, start = self._registers["ring_size"], self._address("ring")
        ahead = (self._registers["doorbell"] - self._completed) & _COUNT_MASK
        if size == 0 or size & (size - 1) or start % DESCRIPTOR_BYTES or self._address("record") % 8 or ahead > size:
            raise TransferError(DmaError.BAD_RING)
        return self._from_host(start + self._completed % size * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)

    def _execute(self, words: bytes) -> None:
        kind, flags, _, length, device, _, host, _ = _DESCRIPTOR.unpack(words)
        length &= 0xFF_FFFF
        is_transfer = kind in (DmaKind.TO_DEVICE, DmaKind.FROM_DEVICE)
        if kind not in list(DmaKind) or flags & ~int(DmaFlag.OVERLAP if is_transfer else 0):
            raise TransferError(DmaError.BAD_DESCRIPTOR)
        if is_transfer:
            self._check(device, length)
        if kind == DmaKind.TO_DEVICE:
            self._store(device, self._from_host(host, length))
        elif kind == DmaKind.FROM_DEVICE:
            self._to_host(host, self._load(device, length))
        elif kind == DmaKind.RUN:
            self._run_program(device)
        elif kind == DmaKind.RECORD and host % 8:
            raise TransferError(DmaError.BAD_DESCRIPTOR)
        elif kind == DmaKind.RECORD:
            self._record(host, self._completed + 1)
        elif kind == DmaKind.INTERRUPT:
            if self._address("record"):
                self._record(self._address("record"), self._completed + 1)
            self._interrupt()
        self._completed = (self._completed + 1) & _COUNT_MASK

    def _check(self, address: int, length: int) -> None:
        region, offset = address >> REGION_SHIFT, address & ((1 << REGION_SHIFT) - 1)
        alignment = _ALIGNMENT.get(Region(region)) if region in list(Region) else None
        inside = alignment is not None and offset + length <= region_bytes(self.board.config, Region(region))
        if not length or alignment is None or not inside or offset % alignment or length % alignment:
            raise TransferError(DmaError.BAD_DESCRIPTOR)

    def _load(self, address: int, length: int) -> bytes:
        skipped = address % 4
        words = -(-(skipped + length) // 4)
        return self.board.read(address - skipped, words)[skipped : skipped + length]

    def _store(self, address: int, data: bytes) -> None:
        skipped = address % 4
        whole = bytearray(self._load(address - skipped, -(-(skipped + len(data)) // 4) * 4))
        whole[skipped : skipped + len(data)] = data
        self.board.write(address - skipped, bytes(whole))

    def _run_program(self, start: int) -> None:
        self.board.write(register_address("start_address"), start.to_bytes(4, "little"))
        self.board.write(register_address("control"), Control.START.to_bytes(4, "little"))
        if split_status(self.board.register("status"))[0] & Status.ERROR:
            raise TransferError(DmaError.PROGRAM_FAILED)

    def _stop(self, error: DmaError) -> None:
        self._error = error
        if self._address("record") and error is not DmaError.LINK_DOWN:
            with contextlib.suppress(TransferError):  # the link is down, or nothing is at the address
                self._record(self._address("record"), self._completed)
        if self.link_up:
            self._interrupt()

    def _record(self, address: int, completed: int) -> None:
        self._sequence += 1
        words = {"completed": completed & _COUNT_MASK, "status": self._status(), "doorbell": self._registers["doorbell"]}
        words |= {"engine_status": self.board.register("status"), "sequence": self._sequence & _COUNT_MASK}
        words |= {name: self.board.register(name) for name in ("error_address", "marks", *(f"counter_{name}" for name in COUNTERS))}
        self._to_host(address, struct.pack(f"<{len(RECORD_WORDS)}I", *(words[name] for name in RECORD_WORDS)))

    def _status(self) -> int:
        flags = (DmaStatus.BUSY if self.busy else 0) | (DmaStatus.LINK_UP if self.link_up else 0)
        return flags | (DmaStatus.STOPPED if self._error else 0) | self._error << DMA_STATUS_ERROR_SHIFT

    def _address(self, name: str) -> int:
        return self._registers[f"{name}_high"] << 32 | self._registers[f"{name}_low"]

    def _from_host(self, address: int, length: int) -> bytes:
        if not self.link_up:
            raise TransferError(DmaError.LINK_DOWN)
        return self._memory.read(address, length)

    def _to_host(self, address: int, data: bytes) -> None:
        if not self.link_up:
            raise TransferError(DmaError.LINK_DOWN)
        self._memory.write(address, data)
