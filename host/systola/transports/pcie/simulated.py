"""Simulated PCIe functions: what they have in common, and the function of the golden engine."""

from __future__ import annotations

import time
from abc import abstractmethod

from systola.errors import LinkError
from systola.transports.pcie.function import ALL_ONES, Buffer, PcieFunction
from systola_firmware.spec.config import Config
from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import bar_bytes, map_address, window_bits
from systola_sim.machine.dma_model import DmaModel, HostMemory, TransferError
from systola_sim.machine.golden_board import BadAddressError

__all__ = ["BufferMemory", "GoldenFunction", "SimulatedFunction"]

_PAGE = 4096
#: Above 4 GiB, where only addresses of 64 bits reach.
_FIRST_ADDRESS = 0x1_0000_0000
_IDLE_SECONDS = 1e-4


class BufferMemory:
    """The host's memory as the device reaches it: the buffers, with an unmapped page between any two."""

    def __init__(self) -> None:
        self._buffers: dict[int, Buffer] = {}
        self._next = _FIRST_ADDRESS

    def allocate(self, size: int) -> Buffer:
        """As :meth:`~systola.transports.pcie.function.PcieFunction.allocate`."""
        size = -(-size // _PAGE) * _PAGE
        buffer = Buffer(self._next, memoryview(bytearray(size)))
        self._next += size + _PAGE
        self._buffers[buffer.address] = buffer
        return buffer

    def release(self, buffer: Buffer) -> None:
        """As :meth:`~systola.transports.pcie.function.PcieFunction.release`."""
        del self._buffers[buffer.address]

    def clear(self) -> None:
        """Take all buffers away from the device."""
        self._buffers.clear()

    def _part(self, address: int, length: int) -> memoryview:
        for buffer in self._buffers.values():
            start = address - buffer.address
            if start >= 0 and start + length <= len(buffer):
                return buffer.view[start : start + length]
        raise TransferError(DmaError.UNSUPPORTED_REQUEST)

    def read(self, address: int, length: int, /) -> bytes:
        """What the device reads. Raises :class:`~systola_sim.machine.dma_model.TransferError` outside the buffers."""
        return bytes(self._part(address, length))

    def write(self, address: int, data: bytes, /) -> None:
        """What the device writes. Raises as :meth:`read`."""
        self._part(address, len(data))[:] = data


class SimulatedFunction(PcieFunction):
    """A function in this process. The subclass has its words and lets its time pass.

    ``memory`` is the host's memory that the device reaches: by default the buffers that this object allocates. Buffers
    are of no use with another memory.
    """

    has_interrupt = True

    def __init__(self, config: Config, name: str, memory: HostMemory | None = None) -> None:
        self._buffers = BufferMemory()
        self.memory = memory or self._buffers
        self.window = window_bits(config)
        self.bar_bytes = bar_bytes(config)
        self._name = name
        self._open = True
        self._events = 0

    def _interrupt(self) -> None:
        self._events += 1

    def _take_events(self) -> bool:
        """Whether there were interrupts since it was last asked."""
        events, self._events = self._events, 0
        return events > 0

    def describe(self) -> str:
        return self._name

    def allocate(self, size: int) -> Buffer:
        return self._buffers.allocate(size)

    def release(self, buffer: Buffer) -> None:
        self._buffers.release(buffer)

    def read_word(self, offset: int) -> int:
        self._check(offset)
        return self._read(offset)

    def write_word(self, offset: int, value: int) -> None:
        self._check(offset)
        self._write(offset, value)

    def _check(self, offset: int) -> None:
        if not self._open:
            raise LinkError(f"{self._name} is closed")
        if offset % 4 or not 0 <= offset < self.bar_bytes:
            raise ValueError(f"offset {offset:#x} is no word of a BAR0 of {self.bar_bytes:#x} bytes")

    @abstractmethod
    def _read(self, offset: int) -> int:
        """The word at ``offset`` of BAR0."""

    @abstractmethod
    def _write(self, offset: int, value: int) -> None:
        """Write the word at ``offset`` of BAR0."""

    def reset(self) -> bool:
        return False

    def close(self) -> None:
        self._open = False
        self._buffers.clear()


class GoldenFunction(SimulatedFunction):
    """The golden engine of ``config`` with a model of its DMA engine. A descriptor is done each time the driver looks
    or waits."""

    has_cycles = False

    def __init__(self, config: Config, memory: HostMemory | None = None) -> None:
        super().__init__(config, f"pcie:golden:{config.name}", memory)
        self.device = DmaModel(config, self.memory, self._interrupt)

    def _read(self, offset: int) -> int:
        self.device.run()
        try:
            return int.from_bytes(self.device.read(map_address(offset, self.window), 1), "little")
        except BadAddressError:
            return ALL_ONES  # an unsupported request

    def _write(self, offset: int, value: int) -> None:
        try:
            self.device.write(map_address(offset, self.window), value.to_bytes(4, "little"))
        except BadAddressError:
            return  # a posted write: nobody learns of the error

    def wait_interrupt(self, seconds: float) -> bool:
        if not self.device.busy and not self._events:
            time.sleep(min(seconds, _IDLE_SECONDS))
        self.device.run()
        return self._take_events()

    def pump(self, _seconds: float) -> None:
        self.device.run()
