"""The DMA engine's ring from the host's side: descriptors in, waits with a limit, and every failure as a sentence.

The host learns of progress from the status record that the engine writes to memory. Its last word, ``sequence``, is
written last and read first here: a record that is being renewed is never taken for a complete one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from systola.errors import LinkError
from systola.transports.pcie.function import PcieFunction
from systola_firmware.spec.dma import DESCRIPTOR_BYTES, RECORD_BYTES, RECORD_WORDS, Descriptor, DmaError, DmaKind, split_dma_status
from systola_firmware.spec.memory_map import Control, DmaControl, DmaStatus, Status, dma_register_address, register_address

__all__ = ["RING_SIZE", "DmaRing", "RingStopped"]

#: Descriptors that the ring holds.
RING_SIZE = 256

#: How long a wait goes on before the registers are read as well: lost interrupts and lost devices are noticed by that.
_LOOK_SECONDS = 0.1

_SEQUENCE = list(RECORD_WORDS).index("sequence")
_STATUS = list(RECORD_WORDS).index("status")

#: Why a ring stopped, in words.
_WORDS: dict[DmaError, str] = {
    DmaError.TIMEOUT: "the computer's memory did not answer the device in time",
    DmaError.UNSUPPORTED_REQUEST: "the device was refused an address in the computer's memory that is not mapped for it",
    DmaError.COMPLETER_ABORT: "the computer refused the device an access to its memory",
    DmaError.POISONED: "data arrived at the device marked as corrupt",
    DmaError.MALFORMED: "the device got an answer that does not fit its request",
    DmaError.LINK_DOWN: "the link went down during a transfer",
    DmaError.BUS_MASTER_DISABLED: "the computer has taken away the device's access to its memory",
    DmaError.BAD_DESCRIPTOR: "the device refused a descriptor",
    DmaError.BAD_RING: "the device refused the ring of descriptors",
    DmaError.PROGRAM_FAILED: "the program stopped with an error",
}


class RingStopped(LinkError):
    """The engine stopped at a descriptor with ``error``; the ring is usable again."""

    def __init__(self, message: str, error: DmaError) -> None:
        super().__init__(message)
        self.error = error


class DmaRing:
    """The ring of the device behind ``function``; ``read`` and ``write`` are its registers by map address, word by
    word.

    Parameters
    ----------
    timeout:
        Seconds without a completed descriptor after which a wait is given up.
    """

    def __init__(
        self, function: PcieFunction, read: Callable[[int], int], write: Callable[[int, int], None], *, timeout: float
    ) -> None:
        self._function = function
        self._read, self._write = read, write
        self._timeout = timeout
        self._buffer = function.allocate(RING_SIZE * DESCRIPTOR_BYTES + RECORD_BYTES)
        self._submitted = self._events = 0
        self._record_offset = RING_SIZE * DESCRIPTOR_BYTES
        self._ready = False

    def submit(self, descriptors: Sequence[Descriptor]) -> int:
        """Hand over ``descriptors`` and an event after them. Returns the number of the event, for :meth:`wait`.

        There must be room: at most :data:`RING_SIZE` descriptors, events included, may be handed over after the last
        event that was waited for.
        """
        if not self._ready:
            self._set_up()
        for descriptor in (*descriptors, Descriptor(DmaKind.INTERRUPT)):
            offset = self._submitted % RING_SIZE * DESCRIPTOR_BYTES
            self._buffer.view[offset : offset + DESCRIPTOR_BYTES] = descriptor.encode()
            self._submitted += 1
        self._events += 1
        self._write(dma_register_address("doorbell"), self._submitted & 0xFFFF_FFFF)
        return self._events

    def wait(self, event: int) -> None:
        """Wait until everything handed over up to ``event`` is done.

        Raises :class:`RingStopped` and, for a device that does not answer, :class:`~systola.errors.LinkError`;
        everything that was handed over is then forgotten, and the ring is set up afresh when it is used next.
        """
        try:
            self._wait(event)
        except BaseException:  # an interruption by the user too: what is under way would disturb the next transfer
            self.abandon()
            raise

    def _wait(self, event: int) -> None:
        progress, deadline = -1, time.monotonic() + self._timeout
        look = time.monotonic() + _LOOK_SECONDS
        while not self._reached(event):
            self._function.wait_interrupt(_LOOK_SECONDS)
            now = time.monotonic()
            if now < look or self._reached(event):
                continue
            look = now + _LOOK_SECONDS
            completed = self._look()
            if completed != progress:
                progress, deadline = completed, now + self._timeout
            elif now >= deadline:
                raise LinkError(f"{self._function.describe()} stopped working: nothing was done for {self._timeout:g} s")

    def _reached(self, event: int) -> bool:
        """Whether the status record says that ``event`` is done. Raises the error that it reports."""
        with self._buffer.view[self._record_offset :] as record, record.cast("I") as words:
            sequence, status = words[_SEQUENCE], words[_STATUS]
        self._check(status)
        return sequence >= event

    def _look(self) -> int:
        """How many descriptors are completed, by the registers. Raises the error that they report."""
        self._check(self._read(dma_register_address("status")))
        return self._read(dma_register_address("completed"))

    def _check(self, status: int) -> None:
        if not status & DmaStatus.STOPPED:
            return
        try:
            error = split_dma_status(status)[1]
        except ValueError as unknown:
            raise LinkError(f"{self._function.describe()} stopped for a reason that this driver does not know: {unknown}") from None
        raise RingStopped(f"{self._function.describe()}: {_WORDS.get(error, 'the device stopped')} ({error.name})", error)

    def abandon(self) -> None:
        """Forget everything handed over: the ring is set up afresh when it is used next."""
        self._ready = False

    def _idle(self) -> bool:
        """Stop the DMA engine, and a program that runs. Returns whether they have stopped within the timeout."""
        self._write(dma_register_address("control"), DmaControl.RESET)
        deadline = time.monotonic() + self._timeout
        while True:
            running = self._read(register_address("status")) & Status.BUSY
            if not running and not self._read(dma_register_address("status")) & DmaStatus.BUSY:
                return True
            if time.monotonic() >= deadline:
                return False
            if running:
                self._write(register_address("control"), Control.ABORT)
            self._function.wait_interrupt(_LOOK_SECONDS)

    def _set_up(self) -> None:
        if not self._idle() and not (self._function.reset() and self._idle()):
            raise LinkError(f"{self._function.describe()} is still busy after a reset: switch it off and on")
        self._buffer.view[:] = bytes(len(self._buffer))
        ring, record = self._buffer.address, self._buffer.address + self._record_offset
        for name, value in {"ring": ring, "record": record}.items():
            self._write(dma_register_address(f"{name}_low"), value & 0xFFFF_FFFF)
            self._write(dma_register_address(f"{name}_high"), value >> 32)
        self._write(dma_register_address("ring_size"), RING_SIZE)
        self._submitted = self._events = 0
        self._ready = True
