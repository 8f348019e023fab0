"""The simulated board behind a pseudo-terminal: the unchanged serial transport drives it as it would drive a cable.

Bytes written to the terminal go bit by bit to the input pin of the board's UART, and what its output pin sends comes
back. The simulation stands still while nothing is under way.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from systola_firmware.spec.config import Config
from systola_sim.verilated.board import IDLE_CYCLES
from systola_sim.verilated.harness import STOP_AT_BYTE, Harness
from systola_sim.verilated.verilator import Progress, board_library

__all__ = ["VirtualBoard", "serve"]

#: Cycles of one step: a byte from the terminal waits so long at most until the simulation sees it.
_STEP_CYCLES = 1 << 12
_READ_BYTES = 4096
#: Bytes that wait for the simulated line before the terminal is left full, which makes its writer wait.
_UNSENT_LIMIT = 4 * _READ_BYTES


class VirtualBoard:
    """A simulated board at a pseudo-terminal, served by its own thread between :meth:`start` and :meth:`close`.

    Parameters
    ----------
    config:
        The engine.
    uart_divisor:
        Clock cycles a bit, by default ``config.uart_divisor``; smaller ones make the simulated line quicker.
    library, progress:
        As for :class:`systola_sim.verilated.board.VerilatedBoard`, which also says what is raised.
    """

    def __init__(
        self, config: Config, uart_divisor: int | None = None, *, library: Path | None = None, progress: Progress | None = None
    ) -> None:
        self._harness = Harness(library or board_library(config, progress), uart_divisor=uart_divisor or config.uart_divisor)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # no echo, no newline translation; kept open, so that clients may come and go
        os.set_blocking(self._master, False)
        self._wake_receiver, self._wake_sender = os.pipe()
        os.set_blocking(self._wake_sender, False)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._open = True
        #: Path of the terminal, what a serial program opens.
        self.port: str = os.ttyname(self._slave)

    def __enter__(self) -> VirtualBoard:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def cycles(self) -> int:
        """Clock cycles simulated so far; they stand still while nothing is under way."""
        return self._harness.cycles

    @property
    def framing_errors(self) -> int:
        """Bad frames on the board's UART output: 0 unless the gateware is wrong."""
        return self._harness.framing_errors

    @property
    def wake_descriptor(self) -> int:
        """A byte written here ends :meth:`serve`."""
        return self._wake_sender

    def start(self) -> None:
        """Serve the terminal from a thread of its own. Raises ``RuntimeError`` when that is done already."""
        if self._thread is not None or not self._open:
            raise RuntimeError("a virtual board is started once")
        self._thread = threading.Thread(target=self._run, name="virtual board", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End :meth:`serve`, from any thread or a signal handler."""
        with contextlib.suppress(OSError):
            os.write(self._wake_sender, b"x")

    def close(self) -> None:
        """Stop and free everything; closing twice is fine. Raises what has ended the thread early, if anything has."""
        if not self._open:
            return
        self._open = False
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._harness.close()
        for descriptor in (self._master, self._slave, self._wake_receiver, self._wake_sender):
            os.close(descriptor)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.serve()
        except BaseException as failure:  # handed to whoever closes the board
            self._failure = failure

    def serve(self) -> None:
        """Serve the terminal in this thread until :meth:`stop`."""
        answers = b""  # bytes that the terminal has no room for yet
        idle = True
        while True:
            readers = [self._wake_receiver]
            if self._harness.unsent < _UNSENT_LIMIT:
                readers.append(self._master)
            readable, writable, _ = select.select(readers, [self._master] if answers else [], [], None if idle else 0)
            if self._wake_receiver in readable:
                return
            if self._master in readable:
                self._harness.write(os.read(self._master, _READ_BYTES))
            if writable:
                with contextlib.suppress(BlockingIOError):
                    answers = answers[os.write(self._master, answers) :]
            ran = self._harness.run(_STEP_CYCLES, stop=STOP_AT_BYTE, quiet=IDLE_CYCLES)
            received = self._harness.read()
            answers += received
            idle = ran < _STEP_CYCLES and not received


def serve(board: VirtualBoard, announce: Callable[[str], None] = print) -> None:
    """Announce the board's port and serve it until SIGINT or SIGTERM, then close it. For the main thread of a
    command."""

    def finish(_signal: int, _frame: FrameType | None) -> None:
        board.stop()

    previous = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    # A signal that comes just before the select call would be seen only after it: Python's handler runs between its
    # instructions. The interpreter itself writes into this descriptor at once.
    previous_descriptor = signal.set_wakeup_fd(board.wake_descriptor, warn_on_full_buffer=False)
    try:
        announce(board.port)
        board.serve()
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        for number, handler in previous.items():
            signal.signal(number, handler)
        board.close()
