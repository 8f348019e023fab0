"""The two interfaces below a device: word access to its memory map, and the byte pipe that carries the link's
frames."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Protocol

from systola.tensors import Int8Array

__all__ = ["Pipe", "Transport"]


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
    """Access to a device's memory map (``systola_firmware.spec.memory_map``), in multiples of four bytes."""

    @abstractmethod
    def read(self, address: int, length: int) -> bytes:
        """Read ``length`` bytes from ``address``, both multiples of 4.

        Raises :class:`~systola.errors.AddressError` where there is no memory and
        :class:`~systola.errors.LinkError` when the device does not answer.
        """

    @abstractmethod
    def write(self, address: int, data: bytes) -> None:
        """Write ``data``, a multiple of 4 bytes, to ``address``; when this returns, all is in place. Raises as
        :meth:`read`."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; more than once does no harm."""

    @abstractmethod
    def describe(self) -> str:
        """Name of the device for messages, e.g. ``serial:/dev/ttyUSB0``."""

    def run_batch(self, _inputs: list[tuple[int, Int8Array]], _outputs: list[tuple[int, int]]) -> list[Int8Array] | None:
        """Run the loaded program on N inferences at once, if this device can: None if it cannot, and for a program that
        stops.

        ``inputs`` are pairs of an offset in the activation memory and int8 ``[N, bytes]``, ``outputs`` pairs of an
        offset and a number of bytes; the answer has int8 ``[N, bytes]`` for each output.
        """
        return None

    def pump(self, seconds: float) -> None:
        """Let the device work for about ``seconds`` of its own time: a board just takes them, a simulation runs that
        far."""
        time.sleep(seconds)
