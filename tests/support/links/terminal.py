"""A pseudo-terminal with something behind it, for tests of the serial port."""

from __future__ import annotations

import os
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

from support.links.link_model import ModelDevice
from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import Region
from systola_sim.machine.golden_board import GoldenBoard

__all__ = ["BoardMemory", "HangUp", "Terminal", "golden_device"]


class HangUp(Exception):
    """Raised by what is behind a terminal: the cable is pulled."""


class BoardMemory:
    """The memory map of a golden board as the bytes that :class:`~support.links.link_model.ModelDevice` wants.

    A write to ``trap`` raises :class:`HangUp` instead.
    """

    def __init__(self, config: Config, trap: int | None = None) -> None:
        self._board = GoldenBoard(config)
        self._trap = trap

    def __len__(self) -> int:
        return len(Region) << 28

    def __getitem__(self, span: slice) -> bytes:
        return self._board.read(span.start, (span.stop - span.start) // 4)

    def __setitem__(self, span: slice, data: bytes) -> None:
        if self._trap is not None and span.start <= self._trap < span.stop:
            raise HangUp
        self._board.write(span.start, data)


def golden_device(config: Config, trap: int | None = None) -> Callable[[bytes], bytes]:
    """What a golden board answers to bytes from the line; see :class:`BoardMemory`."""
    return ModelDevice(BoardMemory(config, trap)).feed


class Terminal:
    """A pseudo-terminal whose bytes ``answer`` answers, in a thread of its own until the context is left."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        try:
            while self._open:
                answer = self._answer(os.read(self._master, 4096))
                while answer and self._open:
                    answer = answer[os.write(self._master, answer) :]
        except HangUp:
            self._open = False
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        """End the thread and free the terminal."""
        if self._open:
            self._open = False
            os.write(self._slave, b"\0")  # wakes the thread, which then sees the end
        self._thread.join()
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
