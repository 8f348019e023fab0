"""A kernel in a folder: ``/sys`` and ``/dev`` as files, vfio's calls as a table of what was asked; no machine has to
have a device.

The fake keeps vfio's own rules where the driver could break them: order of calls, sizes of structures, viable groups,
mappings that do not overlap.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from pathlib import Path

from systola.transports.pcie import vfio_calls as calls
from systola.transports.pcie.system import System, memory_address

__all__ = ["BAR_OFFSET", "CONFIG_OFFSET", "FakeKernel"]

CONFIG_OFFSET, BAR_OFFSET = 0x4000, 0x8000


class FakeKernel(System):
    """PCI functions made by :meth:`add`; ``refuse`` maps an ioctl's number to the errno that it fails with."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refuse: dict[int, int] = {}
        self.viable = True
        self.interrupts = {calls.MSI_INDEX: 1, calls.MSIX_INDEX: 0}
        self.mappings: dict[int, tuple[int, int]] = {}  #: device address to virtual address and size
        self.events: dict[int, int | None] = {}  #: kind of interrupt to eventfd
        self.resets = 0
        self.huge_pages = 4
        self.hidden = False  #: physical addresses
        self.bar_bytes = mmap.PAGESIZE
        self._attached = self._translating = False
        for folder in ("sys/bus/pci/devices", "sys/bus/pci/drivers/vfio-pci", "sys/kernel/iommu_groups", "dev/vfio", "proc/self"):
            (root / folder).mkdir(parents=True)
        (root / "sys/bus/pci/drivers_probe").touch()
        (root / "sys/bus/pci/drivers/vfio-pci/unbind").touch()
        (root / "dev/vfio/vfio").touch()
        (root / "proc/meminfo").write_text("MemTotal: 1 kB\nHugepagesize:    2048 kB\n")

    def add(self, name: str, *, group: str | None = "7", driver: str | None = None, kind: str = "DMA-FQ") -> Path:
        """A function of ours with a BAR0 of a page; its folder."""
        folder = self.path(f"/sys/bus/pci/devices/{name}")
        folder.mkdir()
        for attribute, text in {"vendor": "0x1209", "device": "0x5359", "class": "0x120000"}.items():
            (folder / attribute).write_text(f"{text}\n")
        (folder / "resource").write_text(f"0x00000000e0000000 {0xE0000000 + self.bar_bytes - 1:#018x} 0x0000000000040200\n")
        for attribute in ("driver_override", "enable", "reset"):
            (folder / attribute).touch()
        (folder / "config").write_bytes(bytes(256))
        (folder / "resource0").write_bytes(bytes(self.bar_bytes))
        if group is not None:
            iommu = self.path(f"/sys/kernel/iommu_groups/{group}")
            (iommu / "devices" / name).mkdir(parents=True)
            (iommu / "type").write_text(f"{kind}\n")
            (iommu / "reserved_regions").write_text("0x0000000000000000 0x0000000000ffffff direct-relaxable\n")
            (folder / "iommu_group").symlink_to(iommu)
        if driver is not None:
            bound = self.path(f"/sys/bus/pci/drivers/{driver}")
            bound.mkdir(exist_ok=True)
            (bound / "unbind").touch()
            (folder / "driver").symlink_to(bound)
        if driver == "vfio-pci" and group is not None:
            self.path(f"/dev/vfio/{group}").touch()
            with self.device_file.open("wb") as file:
                file.truncate(BAR_OFFSET + self.bar_bytes)
        return folder

    @property
    def device_file(self) -> Path:
        """What GROUP_GET_DEVICE_FD opens: configuration space and BAR0."""
        return self.path("/device")

    def ioctl(self, descriptor: int, request: int, argument: int | bytearray) -> int:
        if request in self.refuse:
            raise OSError(self.refuse[request], os.strerror(self.refuse[request]))
        opened = os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]
        if isinstance(argument, bytearray) and request not in (calls.GROUP_GET_DEVICE_FD, calls.GROUP_SET_CONTAINER):
            assert struct.unpack_from("=I", argument)[0] == len(argument)
        if opened == "vfio":
            return self._container(request, argument)
        return self._device(request, argument) if opened == "device" else self._group(request, argument)

    def _container(self, request: int, argument: int | bytearray) -> int:
        if request == calls.GET_API_VERSION:
            return 0
        if request == calls.CHECK_EXTENSION:
            return int(argument == calls.TYPE1V2_IOMMU)
        if request == calls.SET_IOMMU:
            assert self._attached
            self._translating = True
            return 0
        assert self._translating
        assert isinstance(argument, bytearray)
        if request == calls.IOMMU_MAP_DMA:
            _, flags, virtual, address, size = struct.unpack("=IIQQQ", argument)
            assert flags == 3
            assert virtual % 4096 == address % 4096 == size % 4096 == 0
            if any(address < start + length and start < address + size for start, (_, length) in self.mappings.items()):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            self.mappings[address] = (virtual, size)
            return 0
        assert request == calls.IOMMU_UNMAP_DMA
        _, _, address, size = struct.unpack("=IIQQ", argument)
        assert self.mappings.pop(address)[1] == size
        return 0

    def _group(self, request: int, argument: int | bytearray) -> int:
        assert isinstance(argument, bytearray)
        if request == calls.GROUP_GET_STATUS:
            argument[4:8] = struct.pack("=I", int(self.viable))
            return 0
        if request == calls.GROUP_SET_CONTAINER:
            assert os.readlink(f"/proc/self/fd/{struct.unpack('=i', argument)[0]}").endswith("/vfio")
            self._attached = True
            return 0
        assert request == calls.GROUP_GET_DEVICE_FD
        assert self._translating
        assert self.path(f"/sys/bus/pci/devices/{argument.rstrip(bytes(1)).decode()}").is_dir()
        return os.open(self.device_file, os.O_RDWR)

    def _device(self, request: int, argument: int | bytearray) -> int:
        if request == calls.DEVICE_RESET:
            self.resets += 1
            return 0
        assert isinstance(argument, bytearray)
        if request == calls.DEVICE_GET_REGION_INFO:
            size, flags, index, _, _, _ = struct.unpack("=IIIIQQ", argument)
            found = {0: (self.bar_bytes, BAR_OFFSET, 7 if self.bar_bytes else 0), 7: (256, CONFIG_OFFSET, 3)}[index]
            argument[:] = struct.pack("=IIIIQQ", size, found[2], index, 0, found[0], found[1])
            return 0
        if request == calls.DEVICE_GET_IRQ_INFO:
            size, flags, index, _ = struct.unpack("=IIII", argument)
            argument[:] = struct.pack("=IIII", size, flags | 1, index, self.interrupts[index])
            return 0
        assert request == calls.DEVICE_SET_IRQS
        _, flags, index, start, count = struct.unpack_from("=IIIII", argument)
        assert start == 0
        assert flags == (0x24 if count else 0x21)
        self.events[index] = struct.unpack_from("=i", argument, 20)[0] if count else None
        return 0

    def huge_memory(self, size: int) -> mmap.mmap:
        """Ordinary memory, with made-up physical addresses."""
        if not self.huge_pages:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.huge_pages -= 1
        memory = self.memory(size)
        with self.path("/proc/self/pagemap").open("ab") as file:
            offset = memory_address(memory) // mmap.PAGESIZE * 8
            file.truncate(offset + 8)
        entry = 0 if self.hidden else 1 << 63 | 1 << 61 | 0x1234 + self.huge_pages * 512
        with self.path("/proc/self/pagemap").open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack("<Q", entry))
        return memory
