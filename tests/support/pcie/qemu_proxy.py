"""The other end of QEMU's ``x-pci-proxy-dev``: a PCI function of this process in a guest of QEMU's.

The guest's accesses to the function come as messages over a socket (QEMU's ``include/hw/remote/mpqemu-link.h``, as of
7.2), its memory as files that are mapped here. The configuration space is the one made here, not the gateware's; the
function cannot interrupt the guest, as QEMU wants the processor's help for that. Time passes for the function in its
accesses, and between them whenever the guest is silent.
"""

from __future__ import annotations

import array
import enum
import mmap
import os
import select
import socket
import struct

from systola.transports.pcie.simulated import SimulatedFunction
from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import CLASS_CODE, DEVICE_ID, REVISION_ID, VENDOR_ID
from systola_sim.machine.dma_model import TransferError

__all__ = ["ConfigurationSpace", "GuestMemory", "ProxyServer"]

#: Seconds of silence after which the function gets time of its own, and how much.
_SILENCE, _PUMP_SECONDS = 0.0005, 20e-6


class Command(enum.IntEnum):
    """``MPQemuCmd``."""

    SYNC_MEMORY = 0
    RETURN = 1
    CONFIG_WRITE = 2
    CONFIG_READ = 3
    BAR_WRITE = 4
    BAR_READ = 5
    SET_IRQ = 6
    DEVICE_RESET = 7


_HEADER = struct.Struct("<ixxxxQ")
_REGIONS = 8
_MEMORY = struct.Struct(f"<{_REGIONS}Q{_REGIONS}Q{_REGIONS}q")
_CONFIG = struct.Struct("<IIi")
_BAR = struct.Struct("<QQI?xxx")


class GuestMemory:
    """The guest's memory by its own physical addresses."""

    def __init__(self) -> None:
        self._regions: list[tuple[int, int, mmap.mmap]] = []
        self.moved = 0  #: bytes read and written by the device

    def replace(self, regions: list[tuple[int, int, mmap.mmap]]) -> None:
        """Address, size and content of each region from now on."""
        for _, _, content in self._regions:
            content.close()
        self._regions = regions

    def _find(self, address: int, length: int) -> tuple[mmap.mmap, int]:
        for start, size, content in self._regions:
            if start <= address and address + length <= start + size:
                self.moved += length
                return content, address - start
        raise TransferError(DmaError.UNSUPPORTED_REQUEST)

    def read(self, address: int, length: int, /) -> bytes:
        """As :class:`~systola_sim.machine.dma_model.HostMemory`."""
        content, start = self._find(address, length)
        return content[start : start + length]

    def write(self, address: int, data: bytes, /) -> None:
        """As :class:`~systola_sim.machine.dma_model.HostMemory`."""
        content, start = self._find(address, len(data))
        content[start : start + len(data)] = data


class ConfigurationSpace:
    """Type 0, with our identity and one 32-bit memory BAR of ``bar_bytes``; nothing but command, BAR0 and a few bytes
    is kept."""

    _WRITABLE = (*range(0x04, 0x06), *range(0x0C, 0x0D), *range(0x3C, 0x3D))

    def __init__(self, bar_bytes: int) -> None:
        self._bytes = bytearray(256)
        struct.pack_into("<HH", self._bytes, 0, VENDOR_ID, DEVICE_ID)
        struct.pack_into("<I", self._bytes, 8, CLASS_CODE << 8 | REVISION_ID)
        self._mask = ~(bar_bytes - 1) & 0xFFFF_FFFF

    @property
    def bar(self) -> int:
        """BAR0's address."""
        return int(struct.unpack_from("<I", self._bytes, 0x10)[0])

    def read(self, start: int, length: int) -> int:
        """``length`` bytes at ``start``, little endian."""
        return int.from_bytes(self._bytes[start : start + length], "little")

    def write(self, start: int, value: int, length: int) -> None:
        """Write what can be written."""
        for offset, byte in enumerate(value.to_bytes(8, "little")[:length], start):
            if 0x10 <= offset < 0x14:
                self._bytes[offset] = byte & self._mask >> 8 * (offset - 0x10) & 0xFF
            elif offset in self._WRITABLE:
                self._bytes[offset] = byte


class ProxyServer:
    """``function`` at the end of ``link``; its buffers must be those of ``memory``."""

    def __init__(self, link: socket.socket, function: SimulatedFunction, memory: GuestMemory) -> None:
        self._link = link
        self._function = function
        self._memory = memory
        self._space = ConfigurationSpace(function.bar_bytes)
        self.accesses = dict.fromkeys(Command, 0)

    def serve(self) -> None:
        """Answer until the guest has ended."""
        try:
            while True:
                if select.select([self._link], [], [], _SILENCE)[0]:
                    self._answer()
                else:
                    self._function.pump(_PUMP_SECONDS)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return
        finally:
            self._memory.replace([])

    def _receive(self) -> tuple[int, bytes, list[int]]:
        descriptors = array.array("i")
        header, ancillary, _, _ = self._link.recvmsg(_HEADER.size, socket.CMSG_SPACE(_REGIONS * descriptors.itemsize))
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) // descriptors.itemsize * descriptors.itemsize])
        header += self._exactly(_HEADER.size - len(header))
        command, size = _HEADER.unpack(header)
        return command, self._exactly(size), list(descriptors)

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = self._link.recv(size - len(received))
            if not part:
                raise EOFError
            received += part
        return received

    def _answer(self) -> None:
        command, content, descriptors = self._receive()
        self.accesses[Command(command)] += 1
        if command == Command.SYNC_MEMORY:
            self._remember(content, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if command == Command.SET_IRQ:
            return
        value = 0
        if command == Command.CONFIG_READ:
            start, _, length = _CONFIG.unpack(content)
            value = self._space.read(start, length)
        elif command == Command.CONFIG_WRITE:
            self._space.write(*_CONFIG.unpack(content))
        elif command in (Command.BAR_READ, Command.BAR_WRITE):
            value = self._access(command, *_BAR.unpack(content))
        self._link.sendall(_HEADER.pack(Command.RETURN, 8) + struct.pack("<Q", value))

    def _remember(self, content: bytes, descriptors: list[int]) -> None:
        numbers = _MEMORY.unpack(content)
        regions = []
        for index, descriptor in enumerate(descriptors):
            address, size, offset = (numbers[index + _REGIONS * column] for column in range(3))
            regions.append((address, size, mmap.mmap(descriptor, size, offset=offset)))
            os.close(descriptor)
        self._memory.replace(regions)

    def _access(self, command: int, address: int, value: int, size: int, _memory: bool) -> int:
        assert size == 4, f"the driver made an access of {size} bytes to BAR0"
        if command == Command.BAR_READ:
            return self._function.read_word(address - self._space.bar)
        self._function.write_word(address - self._space.bar, value & 0xFFFF_FFFF)
        return 0
