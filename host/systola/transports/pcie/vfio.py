"""PCIe by vfio-pci: the IOMMU confines the device to the buffers of this process, which need not run as root."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Iterator

from systola.errors import LinkError
from systola.transports.pcie import vfio_calls as calls
from systola.transports.pcie.function import Buffer
from systola.transports.pcie.listed import COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY
from systola.transports.pcie.mapped import POLL_SECONDS, MappedFunction
from systola.transports.pcie.system import PAGE, memory_address

__all__ = ["VfioFunction"]

#: First address of a buffer for the device; addresses that the machine reserves are left out. Below 256 MiB there is
#: room for all we need, and even devices with short addresses reach it.
_FIRST_ADDRESS = 1 << 20

_ALL_GROUPS = "/dev/vfio/vfio"


class VfioFunction(MappedFunction):
    """The function ``listed``, bound to vfio-pci. Interrupts are MSI, or MSI-X, by an eventfd; without either, polling.

    Raises :class:`~systola.errors.LinkError` if it cannot be used.
    """

    def _open(self) -> None:
        self._container = self._group = self._device = self._event = -1
        self._interrupt_kind: int | None = None
        self._next_address = _FIRST_ADDRESS
        if self.listed.group is None:
            raise LinkError(f"{self.describe()} has no IOMMU group: turn the IOMMU on (intel_iommu=on or amd_iommu=on)")
        self._open_group()
        self._open_device()
        self._enable()
        self._arm_interrupt()

    def _open_group(self) -> None:
        self._container = self._open_file(_ALL_GROUPS)
        if self._ioctl("GET_API_VERSION", self._container, calls.GET_API_VERSION) != calls.API_VERSION:
            raise LinkError(f"{_ALL_GROUPS} speaks another version than this driver")
        if not self._ioctl("CHECK_EXTENSION", self._container, calls.CHECK_EXTENSION, calls.TYPE1V2_IOMMU):
            raise LinkError(f"{_ALL_GROUPS} offers no type 1 IOMMU: load it with `modprobe vfio_iommu_type1`")
        self._group = self._open_file(f"/dev/vfio/{self.listed.group}")
        status = calls.group_status()
        self._ioctl("GROUP_GET_STATUS", self._group, calls.GROUP_GET_STATUS, status)
        if not struct.unpack("=II", status)[1] & calls.GROUP_VIABLE:
            others = ", ".join(f"{listed.name} ({listed.driver})" for listed in self.listed.companions if listed.driver)
            raise LinkError(
                f"{self.describe()} shares its IOMMU group with devices of the kernel, which must be unbound first: {others}"
            )
        self._ioctl("GROUP_SET_CONTAINER", self._group, calls.GROUP_SET_CONTAINER, bytearray(struct.pack("=i", self._container)))
        try:
            self.system.ioctl(self._container, calls.SET_IOMMU, calls.TYPE1V2_IOMMU)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise self._failure("SET_IOMMU", error) from error
            raise LinkError(
                f"{self.describe()}: the kernel refuses, as this machine's IOMMU does not remap interrupts (SET_IOMMU: EPERM); "
                "turn interrupt remapping on in the firmware, or, if the device is trusted, "
                "`echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts` as root"
            ) from error

    def _open_file(self, name: str) -> int:
        try:
            return os.open(self.system.path(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LinkError(f"there is no {name}: `systola pcie bind {self.listed.name}` as root") from None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise LinkError(f"you may not open {name}: `systola pcie bind {self.listed.name} --user NAME` as root") from error
            if error.errno == errno.EBUSY:
                raise LinkError(f"{self.describe()} is in use by another program") from error
            raise self._failure(f"open {name}", error) from error

    def _ioctl(self, what: str, descriptor: int, request: int, argument: int | bytearray = 0) -> int:
        try:
            return self.system.ioctl(descriptor, request, argument)
        except OSError as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: OSError) -> LinkError:
        return LinkError(f"{self.describe()}: the kernel refused {what}: {error.strerror}")

    def _open_device(self) -> None:
        name = bytearray(self.listed.name.encode() + b"\0")
        self._device = self._ioctl("GROUP_GET_DEVICE_FD", self._group, calls.GROUP_GET_DEVICE_FD, name)
        region = self._region(0)
        if not region.size or not region.mappable:
            raise LinkError(f"{self.describe()} has no BAR0 in memory: it is no Systola device, or the firmware gave it no address")
        try:
            self._map(self.system.map_file(self._device, region.size, region.offset))
        except OSError as error:
            raise self._failure("the mapping of BAR0", error) from error
        self._configuration = self._region(calls.CONFIG_REGION)

    def _region(self, index: int) -> calls.RegionInfo:
        argument = calls.region_info(index)
        self._ioctl("GET_REGION_INFO", self._device, calls.DEVICE_GET_REGION_INFO, argument)
        return calls.RegionInfo.parse(argument)

    def _enable(self) -> None:
        offset = self._configuration.offset + COMMAND
        (command,) = struct.unpack("<H", os.pread(self._device, 2, offset))
        os.pwrite(self._device, struct.pack("<H", command | COMMAND_MEMORY | COMMAND_BUS_MASTER), offset)

    def _arm_interrupt(self) -> None:
        for kind in (calls.MSI_INDEX, calls.MSIX_INDEX):
            argument = calls.irq_info(kind)
            self._ioctl("GET_IRQ_INFO", self._device, calls.DEVICE_GET_IRQ_INFO, argument)
            if struct.unpack("=IIII", argument)[3]:
                self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._ioctl("SET_IRQS", self._device, calls.DEVICE_SET_IRQS, calls.set_irqs(kind, self._event))
                self._interrupt_kind = kind
                self.has_interrupt = True
                return

    def allocate(self, size: int) -> Buffer:
        size = -(-size // PAGE) * PAGE
        address = self._free_address(size)
        memory = self.system.memory(size)
        try:
            argument = calls.map_dma(memory_address(memory), address, size)
            self.system.ioctl(self._container, calls.IOMMU_MAP_DMA, argument)
        except OSError as error:
            memory.close()
            if error.errno == errno.ENOMEM:
                raise LinkError(
                    f"{self.describe()} needs {size // 1024} KiB of locked memory, more than this user may have: raise `ulimit -l`"
                ) from error
            raise self._failure("MAP_DMA", error) from error
        self._next_address = address + size
        return self._hold(address, memory)

    def _free_address(self, size: int) -> int:
        """The next ``size`` bytes that the machine does not keep for something else, such as the interrupt
        controller."""
        address = self._next_address
        for start, end in self._reserved():
            if address <= end and start < address + size:
                address = end // PAGE * PAGE + PAGE
        return address

    def _reserved(self) -> Iterator[tuple[int, int]]:
        """First and last address of each reserved region, in order. Those marked ``relaxable`` are free for us."""
        try:
            lines = (self.listed.group_path / "reserved_regions").read_text(encoding="ascii").splitlines()
        except OSError:
            return
        for start, end, kind in sorted(tuple(line.split()[:3]) for line in lines):
            if kind != "direct-relaxable":
                yield int(start, 16), int(end, 16)

    def release(self, buffer: Buffer) -> None:
        self._ioctl("UNMAP_DMA", self._container, calls.IOMMU_UNMAP_DMA, calls.unmap_dma(buffer.address, len(buffer)))
        self._drop(buffer)

    def wait_interrupt(self, seconds: float) -> bool:
        if not self.has_interrupt:
            self.pump(min(seconds, POLL_SECONDS))
            return False
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        if not poll.poll(max(0.0, 1e3 * seconds)):
            return False
        os.eventfd_read(self._event)
        return True

    def reset(self) -> bool:
        try:
            self.system.ioctl(self._device, calls.DEVICE_RESET, 0)
        except OSError:
            return False
        return True

    def _shut(self) -> None:
        # The kernel turns the device's bus mastering off when its last descriptor is closed, which is before the
        # buffers are freed.
        if self._interrupt_kind is not None:
            self._ioctl("SET_IRQS", self._device, calls.DEVICE_SET_IRQS, calls.set_irqs(self._interrupt_kind, None))
        for descriptor in (self._device, self._group, self._container, self._event):
            if descriptor >= 0:
                os.close(descriptor)
