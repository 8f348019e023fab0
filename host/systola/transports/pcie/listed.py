"""A PCI function as ``/sys`` shows it: found, described, and locked for one process."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from systola.errors import LinkError
from systola.transports.pcie.system import System

__all__ = ["COMMAND", "COMMAND_BUS_MASTER", "COMMAND_MEMORY", "VFIO_DRIVER", "ListedFunction", "find_functions", "lock_function"]

VFIO_DRIVER = "vfio-pci"

#: Offset and bits of the command register in the configuration space.
COMMAND = 4
COMMAND_MEMORY, COMMAND_BUS_MASTER = 2, 4

_DEVICES = "/sys/bus/pci/devices"
_NAME = re.compile(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)


@dataclass(frozen=True)
class ListedFunction:
    """The function of ``system`` with the PCI address ``name`` (domain:bus:device.function, e.g. ``0000:03:00.0``).

    Raises :class:`~systola.errors.LinkError` if ``name`` is no PCI address or there is no such function.
    """

    name: str
    system: System

    def __post_init__(self) -> None:
        match = _NAME.fullmatch(self.name)
        if match is None:
            raise LinkError(f"{self.name!r} is not the address of a PCIe device: say pcie:0000:03:00.0, as `lspci -D` does")
        object.__setattr__(self, "name", f"{match[1] or '0000'}:{match[2]}:{match[3]}.{match[4]}".lower())
        if not self.path.is_dir():
            raise LinkError(f"there is no PCIe device {self.name}: `systola pcie list --all` lists those there are")

    @property
    def path(self) -> Path:
        """Its folder below ``/sys``."""
        return self.system.path(f"{_DEVICES}/{self.name}")

    def number(self, attribute: str) -> int:
        """A number that ``/sys`` has for the function, e.g. ``vendor``, ``device`` or ``class``; -1 if there is
        none."""
        try:
            return int((self.path / attribute).read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            return -1

    @property
    def identity(self) -> tuple[int, int]:
        """Numbers of vendor and device."""
        return self.number("vendor"), self.number("device")

    @property
    def driver(self) -> str | None:
        """The kernel's driver that has the function, if any."""
        return self._target("driver")

    @property
    def group(self) -> str | None:
        """Its IOMMU group, None without an IOMMU."""
        return self._target("iommu_group")

    def _target(self, link: str) -> str | None:
        return os.readlink(self.path / link).rpartition("/")[2] if (self.path / link).is_symlink() else None

    @property
    def group_path(self) -> Path:
        """The group's folder below ``/sys``."""
        return self.system.path(f"/sys/kernel/iommu_groups/{self.group}")

    @property
    def companions(self) -> list[ListedFunction]:
        """The other functions in its IOMMU group: they can be given to a process only together."""
        folder = self.group_path / "devices"
        names = sorted(entry.name for entry in folder.iterdir()) if self.group is not None and folder.is_dir() else []
        return [ListedFunction(name, self.system) for name in names if name != self.name]

    @property
    def bar_bytes(self) -> int:
        """Size of BAR0, 0 if the function has none or it got no address."""
        try:
            first = (self.path / "resource").read_text(encoding="ascii").splitlines()[0].split()
            start, end = int(first[0], 16), int(first[1], 16)
        except (OSError, IndexError, ValueError):
            return 0
        return end - start + 1 if end > start else 0


def find_functions(system: System) -> list[ListedFunction]:
    """All PCI functions, in order of their addresses."""
    folder = system.path(_DEVICES)
    return [ListedFunction(entry.name, system) for entry in sorted(folder.iterdir())] if folder.is_dir() else []


def lock_function(listed: ListedFunction) -> int:
    """Lock the function for this process. Returns a descriptor that holds the lock until it is closed, or the process
    ends.

    Raises :class:`~systola.errors.LinkError` if another process has it. The lock is on ``config``, which every user may
    open for reading, so that it holds between processes of different users and of both backends.
    """
    try:
        descriptor = os.open(listed.path / "config", os.O_RDONLY)
    except OSError as error:
        raise LinkError(f"pcie:{listed.name} could not be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LinkError(f"pcie:{listed.name} is in use by another program") from error
    return descriptor
