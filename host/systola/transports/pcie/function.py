"""What the driver needs of a PCIe function, whatever backend gives access to it: words of BAR0, memory that host and
device reach, interrupts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

__all__ = ["ALL_ONES", "Buffer", "PcieFunction"]

#: What a read returns when nothing answers: the function is gone, in reset, or has nothing there.
ALL_ONES = 0xFFFF_FFFF


@dataclass(frozen=True)
class Buffer:
    """Memory of the host that the device reaches too: the bytes of ``view`` begin at ``address`` for the device."""

    address: int
    view: memoryview
    memory: Any = None  #: what the backend needs to keep it alive

    def __len__(self) -> int:
        return self.view.nbytes


class PcieFunction(ABC):
    """One function of a PCIe device, for this process alone. What cannot be done raises
    :class:`~systola.errors.LinkError`.

    Members
    -------
    bar_bytes:
        Size of BAR0.
    has_interrupt:
        Whether :meth:`wait_interrupt` returns when there is an interrupt; otherwise it is a short sleep.
    has_cycles:
        Whether the device has a clock.
    """

    bar_bytes: int
    has_interrupt: bool = False
    has_cycles: bool = True

    @abstractmethod
    def read_word(self, offset: int) -> int:
        """The 32-bit word at byte ``offset``, a multiple of 4, of BAR0: one access of 32 bits."""

    @abstractmethod
    def write_word(self, offset: int, value: int) -> None:
        """Write a 32-bit word at byte ``offset``, a multiple of 4, of BAR0: one access of 32 bits, posted."""

    @abstractmethod
    def allocate(self, size: int) -> Buffer:
        """At least ``size`` bytes of zeros, contiguous for the device, on a page boundary."""

    @abstractmethod
    def release(self, buffer: Buffer) -> None:
        """Take ``buffer`` away from the device and free it."""

    @abstractmethod
    def wait_interrupt(self, seconds: float) -> bool:
        """Wait for an interrupt for up to ``seconds``, or a shorter time where there are none; True if one came."""

    @abstractmethod
    def reset(self) -> bool:
        """Reset the function; its configuration and the buffers stay. False if this backend or the device cannot."""

    @abstractmethod
    def pump(self, seconds: float) -> None:
        """Let the device work for ``seconds`` of its own time."""

    @abstractmethod
    def close(self) -> None:
        """Stop the function's accesses to memory and release everything; more than once does no harm."""

    @abstractmethod
    def describe(self) -> str:
        """Name of the device for messages, e.g. ``pcie:0000:03:00.0``."""
