"""An engine: a transport whose registers have been read and found to be those of a Systola engine."""

from __future__ import annotations

import struct
import time
from types import TracebackType
from typing import Self

from systola.errors import DeviceError, ProgramError
from systola.identity import reported_config
from systola.outcome import Mark, Outcome
from systola.transports.base import Transport
from systola_firmware.spec import isa
from systola_firmware.spec.memory_map import (
    COUNTERS,
    GATEWARE_VERSION,
    IDENTITY,
    MARK_WORDS,
    REGISTER_BYTES,
    REGISTERS,
    Control,
    Region,
    Status,
    register_address,
    split_status,
)
from systola_firmware.spec.program import Program
from systola_firmware.spec.program_file import IncompatibleProgramError, check_compatible

__all__ = ["Engine"]

#: Longest silence of the cycle counter, in seconds of this machine, before a running device is given up.
_STALLED_SECONDS = 60.0


class Engine:
    """One engine behind ``transport``.

    Raises :class:`~systola.errors.DeviceError` if what answers is no Systola engine or one of another version.

    Members
    -------
    config:
        The engine's sizes as it reports them. The name is that of the preset with the same sizes, or ``custom`` if
        there is none.
    transport:
        Access to the memory map, for direct use.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        registers = self.registers()
        if registers["identity"] != IDENTITY:
            raise DeviceError(f"{self} is not a Systola device: its identity register reads {registers['identity']:#010x}")
        if registers["gateware_version"] != GATEWARE_VERSION:
            raise DeviceError(f"{self} has gateware version {registers['gateware_version']}, this driver needs {GATEWARE_VERSION}")
        if registers["config_isa_version"] != isa.VERSION:
            raise DeviceError(f"{self} has instruction set {registers['config_isa_version']}, this driver needs {isa.VERSION}")
        self.config = reported_config(registers, str(self))

    def __str__(self) -> str:
        return self.transport.describe()

    @property
    def has_cycles(self) -> bool:
        """Whether the counters count; on a device without a clock they stay 0."""
        return self.transport.has_cycles

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the device."""
        self.transport.close()

    def check(self, program: Program) -> None:
        """Raise :class:`~systola.errors.ProgramError` unless ``program`` was compiled for an engine of these sizes."""
        try:
            check_compatible(program, self.config.program_fields())
        except IncompatibleProgramError as error:
            raise ProgramError(f"{self}: {error}") from error

    def registers(self) -> dict[str, int]:
        """All readable registers by name."""
        words = self.transport.read(Region.REGISTERS.base, REGISTER_BYTES)
        return {name: int.from_bytes(words[r.offset : r.offset + 4], "little") for name, r in REGISTERS.items()}

    def write_register(self, name: str, value: int) -> None:
        """Write one register."""
        self.transport.write(register_address(name), value.to_bytes(4, "little"))

    def execute(self, *, start: int = 0, predicted_cycles: int = 0) -> Outcome:
        """Run the program in the program store from word ``start`` until it stops.

        ``predicted_cycles`` is the compiler's estimate: the device is asked for the first time about when it should be
        ready, and aborted with :class:`~systola.errors.DeviceError` after twenty times as long.
        """
        limit = 20 * predicted_cycles + 2 * isa.WATCHDOG_CYCLES
        self.write_register("start_address", start)
        self.write_register("control", Control.START)
        if self.has_cycles:
            self.transport.pump(predicted_cycles / self.config.clock_hz)
        seen, since = -1, time.monotonic()
        pause = max(predicted_cycles, 1000) / self.config.clock_hz / 10
        while True:
            registers = self.registers()
            flags, _ = split_status(registers["status"])
            if not flags & Status.BUSY:
                break
            cycles = registers["counter_cycles"]
            if cycles != seen:
                seen, since = cycles, time.monotonic()
            if cycles > limit or time.monotonic() - since > _STALLED_SECONDS:
                self.write_register("control", Control.ABORT)
                raise DeviceError(
                    f"{self} was stopped: the program was still running after {cycles} cycles, {predicted_cycles} were predicted"
                )
            self.transport.pump(pause)
        if not flags & (Status.DONE | Status.ERROR):
            raise DeviceError(f"{self} did not start the program")
        return self._outcome(registers)

    def outcome(self) -> Outcome:
        """How the last program ended. A program must have ended."""
        return self._outcome(self.registers())

    def _outcome(self, registers: dict[str, int]) -> Outcome:
        flags, code = split_status(registers["status"])
        error = code if flags & Status.ERROR else isa.ErrorCode.NONE
        counters = {name: registers[f"counter_{name}"] for name in COUNTERS}
        return Outcome(error, registers["error_address"], counters, self._marks(registers["marks"]))

    def _marks(self, recorded: int) -> tuple[Mark, ...]:
        kept = min(recorded, self.config.trace_marks)
        if not kept:
            return ()
        entry = struct.Struct(f"<{len(MARK_WORDS)}I")
        words = self.transport.read(Region.TRACE.base, kept * entry.size)
        return tuple(Mark(row[0], dict(zip(COUNTERS, row[1:], strict=True))) for row in entry.iter_unpack(words))
