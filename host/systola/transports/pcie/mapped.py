"""What the backends vfio and sysfs share: BAR0 mapped into the process, and the lock on the function."""

from __future__ import annotations

import mmap
import os
import time
from abc import abstractmethod

from systola.errors import LinkError
from systola.transports.pcie.function import Buffer, PcieFunction
from systola.transports.pcie.listed import ListedFunction, lock_function
from systola.transports.pcie.system import System

__all__ = ["POLL_SECONDS", "MappedFunction"]

#: Pause in seconds between two polls of a device without interrupts.
POLL_SECONDS = 20e-6


class MappedFunction(PcieFunction):
    """The function ``listed``, locked; the subclass opens it and gives BAR0 to :meth:`_map`.

    An access must be one load or store of 32 bits: an access to an item of a memoryview is one, an access to a slice is
    not.
    """

    def __init__(self, listed: ListedFunction) -> None:
        self.listed = listed
        self._bar: memoryview | None = None
        self._mapping: mmap.mmap | None = None
        self._buffers: dict[int, Buffer] = {}
        self._lock = lock_function(listed)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def system(self) -> System:
        """The kernel."""
        return self.listed.system

    @abstractmethod
    def _open(self) -> None:
        """Open the function: map BAR0 and let the device access memory."""

    @abstractmethod
    def _shut(self) -> None:
        """End the device's accesses to memory and free what :meth:`_open` took, even if it failed half way."""

    def _hold(self, address: int, memory: mmap.mmap) -> Buffer:
        """Keep ``memory``, which is at ``address`` for the device, until it is released."""
        buffer = self._buffers[address] = Buffer(address, memoryview(memory), memory)
        return buffer

    def release(self, buffer: Buffer) -> None:
        self._drop(buffer)

    def _drop(self, buffer: Buffer) -> None:
        del self._buffers[buffer.address]
        buffer.view.release()
        buffer.memory.close()

    def _map(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._bar = memoryview(mapping).cast("I")
        self.bar_bytes = len(mapping)

    def _words(self) -> memoryview:
        if self._bar is None:
            raise LinkError(f"{self.describe()} is closed")
        return self._bar

    def describe(self) -> str:
        return f"pcie:{self.listed.name}"

    def read_word(self, offset: int) -> int:
        word: int = self._words()[offset >> 2]
        return word

    def write_word(self, offset: int, value: int) -> None:
        self._words()[offset >> 2] = value

    def pump(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        if self._lock < 0:
            return
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.release()
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
        self._shut()
        for buffer in list(self._buffers.values()):
            self._drop(buffer)
        os.close(self._lock)
        self._lock = -1
