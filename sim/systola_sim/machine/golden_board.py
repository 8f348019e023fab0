"""A board without hardware: the memory map that a driver sees, with the numpy interpreter behind START.

:class:`GoldenBoard` answers reads and writes as the gateware's bus does, and a program has finished by the time the
write of START returns. For tests it also runs a batch: N inferences of the loaded program at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode
from systola_firmware.spec.memory_map import (
    MARK_WORDS,
    REGION_SHIFT,
    REGISTERS,
    STATUS_ERROR_SHIFT,
    Access,
    Control,
    Region,
    Status,
    read_only_values,
    region_bytes,
    register_address,
)
from systola_sim.machine.interpreter import Outcome, Schedule, execute

__all__ = ["BadAddressError", "GoldenBoard"]

Int8Array = npt.NDArray[np.int8]
Placed = tuple[int, Int8Array]


class BadAddressError(Exception):
    """No memory at ``address``, or it is not a multiple of 4; words before it have been transferred."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no memory at address {address:#010x}")
        self.address = address


class GoldenBoard:
    """The golden device for one configuration.

    All performance counters read 0: the golden model has no clock. Memories start as zeros.

    Parameters
    ----------
    config:
        Engine.
    schedule:
        Order of events that the interpreter prefers.
    """

    def __init__(self, config: Config, schedule: Schedule = Schedule.MATMUL_FIRST) -> None:
        self.config = config
        self.schedule = schedule
        self._memories = {region: np.zeros(region_bytes(config, region), dtype=np.uint8) for region in Region}
        for name, value in read_only_values(config).items():
            self._set_register(name, value)

    # The bus.

    def read(self, address: int, words: int) -> bytes:
        """``words`` 32-bit words from ``address``, little endian. Raises :class:`BadAddressError`."""
        data = self._bytes_at(address, 4 * words)
        if data.size < 4 * words:
            raise BadAddressError(address + data.size)
        return data.tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Write whole 32-bit words from ``address``. What may not be written is ignored.

        Raises :class:`BadAddressError`, and ``ValueError`` if ``data`` is not whole words.
        """
        if len(data) % 4:
            raise ValueError(f"data must be whole 32-bit words, not {len(data)} bytes")
        memory = self._bytes_at(address, len(data))
        region = Region(address >> REGION_SHIFT)
        if region is Region.REGISTERS:
            for offset in range(0, memory.size, 4):
                self._write_register(address + offset, data[offset : offset + 4])
        elif region is not Region.TRACE:
            memory[:] = np.frombuffer(data, dtype=np.uint8)[: memory.size]
        if memory.size < len(data):
            raise BadAddressError(address + memory.size)

    def _bytes_at(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        """A view of ``length`` bytes from ``address``, or of as many as the region has. Raises
        :class:`BadAddressError`."""
        region, offset = address >> REGION_SHIFT, address & ((1 << REGION_SHIFT) - 1)
        if not 0 <= region < len(Region) or offset % 4 or offset >= self._memories[Region(region)].size:
            raise BadAddressError(address)
        return self._memories[Region(region)][offset : offset + length]

    def _write_register(self, address: int, data: bytes) -> None:
        if address in _WRITABLE:
            self._bytes_at(address, 4)[:] = np.frombuffer(data, dtype=np.uint8)
        elif address == register_address("control") and int.from_bytes(data, "little") & Control.START:
            self._start()

    # The engine.

    def register(self, name: str) -> int:
        """Value of a register by name. Raises ``KeyError``."""
        return int.from_bytes(self.read(register_address(name), 1), "little")

    def _set_register(self, name: str, value: int) -> None:
        self._bytes_at(register_address(name), 4)[:] = np.frombuffer(value.to_bytes(4, "little"), dtype=np.uint8)

    def _memory(self, region: Region) -> Int8Array:
        return self._memories[region].view(np.int8)

    def _execute(self, activation: Int8Array) -> Outcome:
        return execute(
            self.config,
            self._memories[Region.PROGRAM].view("<u4"),
            activation,
            self._memory(Region.WEIGHT),
            start=self.register("start_address"),
            schedule=self.schedule,
        )

    def _start(self) -> None:
        outcome = self._execute(self._memory(Region.ACTIVATION))
        flag = Status.DONE if outcome.error is ErrorCode.NONE else Status.ERROR
        self._set_register("status", flag | outcome.error << STATUS_ERROR_SHIFT)
        self._set_register("error_address", outcome.address)
        self._set_register("marks", len(outcome.marks))
        trace = self._memories[Region.TRACE].view("<u4").reshape(-1, len(MARK_WORDS))
        kept = outcome.marks[: len(trace)]
        trace[: len(kept)] = 0
        trace[: len(kept), MARK_WORDS.index("address")] = kept

    def run_batch(self, inputs: list[Placed], outputs: list[tuple[int, int]]) -> list[Int8Array]:
        """Run the loaded program on N inferences at once, each from the present contents of the activation memory.

        Parameters
        ----------
        inputs:
            Pairs of a byte offset in the activation memory and int8 data ``(N, bytes)``.
        outputs:
            Pairs of a byte offset in the activation memory and a number of bytes.

        Returns
        -------
        int8 ``(N, bytes)`` for each of ``outputs``. The board's own memory and registers do not change.

        Raises
        ------
        ValueError
            If there is no input, the inputs disagree about N, or one lies outside the memory.
        RuntimeError
            If the program stops with an error.
        """
        counts = {len(data) for _, data in inputs}
        if len(counts) != 1:
            raise ValueError(f"inputs must agree about the number of inferences, not {sorted(counts)}")
        size = self.config.activation_bytes
        ranges = [*((offset, data.shape[1]) for offset, data in inputs), *outputs]
        for offset, length in ranges:
            if offset < 0 or offset + length > size:
                raise ValueError(f"bytes {offset} to {offset + length} are outside the activation memory of {size}")
        activation = np.repeat(self._memory(Region.ACTIVATION)[np.newaxis], counts.pop(), axis=0)
        for offset, data in inputs:
            activation[:, offset : offset + data.shape[1]] = data
        outcome = self._execute(activation)
        if outcome.error is not ErrorCode.NONE:
            raise RuntimeError(f"the program stopped with {outcome.error.name} at word {outcome.address}")
        return [activation[:, offset : offset + length] for offset, length in outputs]


#: Addresses of the registers that keep what is written to them.
_WRITABLE = {register_address(name) for name, register in REGISTERS.items() if register.access is Access.READ_WRITE}
