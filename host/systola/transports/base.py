"""The two interfaces below a device: word access to its memory map, and the byte pipe that carries the link's
frames."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Protocol

from systola.tensors import Int8Array

__all__ = ["Pipe", "ProgramStopped", "Transport"]


class ProgramStopped(Exception):
    """A program of a batch stopped with an error. The caller runs the inferences in turn to find the reason, so a user
    does not see this."""


class Pipe(Protocol):
    """Bytes in both directions, in order; a real one may lose or change some. Used by one thread."""

    def write(self, data: bytes, /) -> None:
        """Send ``data``. Raises :class:`~systola.errors.LinkError` if the pipe has broken."""

    def read(self, timeout: float, /) -> bytes:
        """Return what has arrived, at once if there is any, else wait up to ``timeout`` seconds; empty if nothing
        came."""

    def close(self) -> None:
        """Release the pipe; more than once does no harm."""


class Transport(ABC):
    """Access to a device's memory map (``systola_firmware.spec.memory_map``), in multiples of four bytes.

    Members
    -------
    has_cycles:
        Whether the device has a clock: without one its counters stay 0.
    runs_batches:
        Whether :meth:`run_batch` can be used.
    """

    has_cycles: bool = True
    runs_batches: bool = False

    @abstractmethod
    def read(self, address: int, length: int) -> bytes:
        """Read ``length`` bytes from ``address``, both multiples of 4.

        Raises :class:`~systola.errors.AddressError` where there is no memory and
        :class:`~systola.errors.LinkError` when the device does not answer.
        """

    @abstractmethod
    def write(self, address: int, data: bytes) -> None:
        """Write ``data``, a multiple of 4 bytes, to ``address``; when this returns, the memory holds it. Raises
        as :meth:`read` does."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; more than once does no harm."""

    @abstractmethod
    def describe(self) -> str:
        """Name of the device for messages, e.g. ``serial:/dev/ttyUSB0``."""

    def run_batch(self, _inputs: list[tuple[int, Int8Array]], _outputs: list[tuple[int, int]]) -> list[Int8Array]:
        """Run the loaded program on N inferences at once; only where :attr:`runs_batches`.

        ``inputs`` are pairs of an offset in the activation memory and int8 ``[N, bytes]``, ``outputs`` pairs of an
        offset and a number of bytes; the answer has int8 ``[N, bytes]`` for each output. Raises
        :class:`ProgramStopped` if the program stops with an error in one of them; the registers need not tell why.
        """
        raise NotImplementedError(f"{self.describe()} runs one inference at a time")

    def pump(self, seconds: float) -> None:
        """Let the device work for about ``seconds`` of its own time: a board works while this waits, a simulation runs
        that far."""
        time.sleep(seconds)
