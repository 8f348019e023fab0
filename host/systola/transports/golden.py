"""The golden device as a transport: the numpy interpreter of programs behind the memory map."""

from __future__ import annotations

import numpy as np

from systola.errors import AddressError
from systola.tensors import Int8Array
from systola.transports.base import ProgramStopped, Transport
from systola_firmware.spec.config import Config
from systola_sim.machine.golden_board import BadAddressError, GoldenBoard

__all__ = ["GoldenTransport"]

#: Inferences that the interpreter runs at once, so that their activation memories together take some tens of megabytes
#: at most.
_BATCH = 64


class GoldenTransport(Transport):
    """A :class:`~systola_sim.machine.golden_board.GoldenBoard` of ``config``; its programs have finished when START
    returns."""

    has_cycles = False
    runs_batches = True

    def __init__(self, config: Config) -> None:
        self._name = f"golden:{config.name}"
        self._board = GoldenBoard(config)

    def describe(self) -> str:
        return self._name

    def close(self) -> None:
        """Nothing to release."""

    def pump(self, seconds: float) -> None:
        """Nothing to wait for."""

    def read(self, address: int, length: int) -> bytes:
        if length % 4:
            raise ValueError(f"an access is made in whole words: {length} bytes")
        try:
            return self._board.read(address, length // 4) if length else b""
        except BadAddressError as error:
            raise AddressError(f"{self._name} has {error}") from error

    def write(self, address: int, data: bytes) -> None:
        if not data:
            return
        try:
            self._board.write(address, data)
        except BadAddressError as error:
            raise AddressError(f"{self._name} has {error}") from error

    def run_batch(self, inputs: list[tuple[int, Int8Array]], outputs: list[tuple[int, int]]) -> list[Int8Array]:
        parts = []
        for first in range(0, len(inputs[0][1]), _BATCH):
            batch = [(offset, data[first : first + _BATCH]) for offset, data in inputs]
            try:
                parts.append(self._board.run_batch(batch, outputs))
            except RuntimeError as error:
                raise ProgramStopped(str(error)) from error
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
