"""All calls to the kernel that the backends make, gathered so that tests can replace the kernel."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path

__all__ = ["PAGE", "System", "memory_address"]

PAGE = 4096

#: ``mmap(2)``: pages of ``/proc/sys/vm/nr_hugepages``, contiguous in physical memory and never moved or swapped.
_MAP_HUGETLB = 0x40000

#: ``Documentation/admin-guide/mm/pagemap.rst``: bit 63 is "present", bits 0 to 54 are the page's number.
_PRESENT = 1 << 63
_PAGE_NUMBER = (1 << 55) - 1


class System:
    """The kernel as the backends see it; ``root`` is where ``/sys``, ``/dev`` and ``/proc`` are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """``name``, an absolute path, below the root."""
        return self.root / name.lstrip("/")

    def ioctl(self, descriptor: int, request: int, argument: int | bytearray) -> int:
        """``ioctl(2)``; a bytearray is changed in place. Raises ``OSError``."""
        return fcntl.ioctl(descriptor, request, argument)

    def map_file(self, descriptor: int, size: int, offset: int = 0) -> mmap.mmap:
        """``size`` bytes of a device, shared, readable and writable. Raises ``OSError``."""
        return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def memory(self, size: int) -> mmap.mmap:
        """``size`` bytes of zeros of ordinary memory. Raises ``OSError``."""
        return mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)

    def huge_memory(self, size: int) -> mmap.mmap:
        """``size`` bytes of zeros in huge pages. Raises ``OSError``."""
        return mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | _MAP_HUGETLB)

    def huge_page_bytes(self) -> int:
        """Size of a huge page of this machine, 0 if it has none."""
        for line in self.path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("Hugepagesize:"):
                return 1024 * int(line.split()[1])
        return 0

    def physical_address(self, virtual: int) -> int:
        """Where a page of this process lies in physical memory, 0 if the kernel does not tell. Raises ``OSError``."""
        descriptor = os.open(self.path("/proc/self/pagemap"), os.O_RDONLY)
        try:
            (entry,) = struct.unpack("<Q", os.pread(descriptor, 8, virtual // PAGE * 8))
        finally:
            os.close(descriptor)
        return (entry & _PAGE_NUMBER) * PAGE + virtual % PAGE if entry & _PRESENT else 0


def memory_address(memory: mmap.mmap) -> int:
    """Where ``memory`` lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
