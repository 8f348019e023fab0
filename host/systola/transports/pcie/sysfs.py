"""PCIe without an IOMMU, for root: BAR0 by ``resource0``, buffers in huge pages by their physical addresses, and
polling.

Here nothing confines the device to its buffers, so its bus mastering is on only while the function is open.
"""

from __future__ import annotations

import errno
import os
import struct

from systola.errors import LinkError
from systola.transports.pcie.function import Buffer
from systola.transports.pcie.listed import COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY
from systola.transports.pcie.mapped import POLL_SECONDS, MappedFunction
from systola.transports.pcie.system import memory_address

__all__ = ["SysfsFunction"]

_TRANSLATING = ("DMA", "DMA-FQ")


class SysfsFunction(MappedFunction):
    """The function ``listed``, without a driver of the kernel. A buffer is one huge page at most.

    Raises :class:`~systola.errors.LinkError` if it cannot be used.
    """

    def _open(self) -> None:
        self._configuration = self._resource = -1
        name = self.listed.name
        if self.listed.driver is not None:
            raise LinkError(
                f"{self.describe()} belongs to the kernel's driver {self.listed.driver}: take it with `systola pcie bind {name}`"
            )
        kind = self.listed.path / "iommu_group" / "type"
        if kind.exists() and kind.read_text(encoding="ascii").strip() in _TRANSLATING:
            raise LinkError(f"{self.describe()} is behind an IOMMU, which blocks it until it is bound: `systola pcie bind {name}`")
        try:
            # Without a driver, nobody else has enabled the function, and `resource0` of a function that sleeps reads
            # all ones.
            (self.listed.path / "enable").write_text("1", encoding="ascii")
            self._configuration = os.open(self.listed.path / "config", os.O_RDWR | os.O_CLOEXEC)
            self._resource = os.open(self.listed.path / "resource0", os.O_RDWR | os.O_CLOEXEC)
            self._set_command(COMMAND_MEMORY | COMMAND_BUS_MASTER, on=True)
            self._map(self.system.map_file(self._resource, self.listed.bar_bytes))
        except FileNotFoundError as error:
            raise LinkError(f"{self.describe()} has no BAR0 in memory: it is no Systola device") from error
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise LinkError(
                    f"you may not open {self.describe()}: run as root, or have it bound: `systola pcie bind {name} --user YOU`"
                ) from error
            raise LinkError(f"{self.describe()} could not be opened: {error.strerror}") from error
        except ValueError as error:  # mmap of an empty file
            raise LinkError(f"{self.describe()} has no BAR0 in memory: the firmware gave it no address") from error

    def _set_command(self, bits: int, *, on: bool) -> None:
        (command,) = struct.unpack("<H", os.pread(self._configuration, 2, COMMAND))
        os.pwrite(self._configuration, struct.pack("<H", command | bits if on else command & ~bits), COMMAND)

    def allocate(self, size: int) -> Buffer:
        page = self.system.huge_page_bytes()
        if size > page:
            raise LinkError(f"{self.describe()}: {size} bytes do not fit one huge page of {page}")
        try:
            memory = self.system.huge_memory(page)
        except OSError as error:
            raise LinkError(
                f"{self.describe()} needs huge pages, and none is free: `echo 8 > /proc/sys/vm/nr_hugepages` as root"
            ) from error
        address = self._physical(memory_address(memory))
        if not address:
            memory.close()
            raise LinkError(f"{self.describe()}: the kernel hides physical addresses: run as root, or bind the device to vfio-pci")
        return self._hold(address, memory)

    def _physical(self, virtual: int) -> int:
        try:
            return self.system.physical_address(virtual)
        except OSError:
            return 0

    def wait_interrupt(self, seconds: float) -> bool:
        self.pump(min(seconds, POLL_SECONDS))
        return False

    def reset(self) -> bool:
        try:
            (self.listed.path / "reset").write_text("1", encoding="ascii")
        except OSError:
            return False
        return True

    def _shut(self) -> None:
        if self._configuration >= 0:
            self._set_command(COMMAND_BUS_MASTER, on=False)
        for descriptor in (self._configuration, self._resource):
            if descriptor >= 0:
                os.close(descriptor)
