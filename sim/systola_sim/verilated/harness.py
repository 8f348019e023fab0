"""The compiled board from Python: a thin ``ctypes`` binding of ``harness.cpp``."""

from __future__ import annotations

import ctypes
from pathlib import Path

from systola_sim.verilated.compiled_board import CompiledBoard

__all__ = ["STOP_AT_BYTE", "STOP_AT_DELIMITER", "Harness"]

#: Stop :meth:`Harness.run` at the next byte from the board.
STOP_AT_BYTE = 1
#: Stop :meth:`Harness.run` at the next zero byte from the board, the end of a frame.
STOP_AT_DELIMITER = 2

_BIT_SCALE = 1 << 16  # harness.cpp counts a host's bit in 1/65536 cycles
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "create": (ctypes.c_void_p, [ctypes.c_uint32, ctypes.c_int64]),
    "destroy": (None, [ctypes.c_void_p]),
    "reset": (None, [ctypes.c_void_p]),
    "write": (None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "read": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "run": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64]),
    "cycles": (ctypes.c_uint64, [ctypes.c_void_p]),
    "quiet": (ctypes.c_uint64, [ctypes.c_void_p]),
    "unsent": (ctypes.c_size_t, [ctypes.c_void_p]),
    "framing_errors": (ctypes.c_uint64, [ctypes.c_void_p]),
}


class Harness(CompiledBoard):
    """One simulated board, used by one thread at a time. Other Python threads run while it does.

    Parameters
    ----------
    library:
        What :func:`systola_sim.verilated.verilator.build_library` returns.
    uart_divisor:
        Clock cycles a bit of the board's UART; the host then speaks to the board's pins bit by bit. ``None``: the host
        is at the byte streams behind the UART.
    host_bit_cycles:
        Length of the host's bit in clock cycles, by default ``uart_divisor``: a host's baud rate is rarely quite the
        board's.

    Raises ``ValueError`` for a divisor outside 1..65535 and ``OSError`` for a file that is no such library.
    """

    def __init__(self, library: Path, *, uart_divisor: int | None = None, host_bit_cycles: float | None = None) -> None:
        if uart_divisor is not None and not 1 <= uart_divisor <= 0xFFFF:
            raise ValueError(f"uart_divisor must be from 1 to 65535, not {uart_divisor}")
        bit = round((host_bit_cycles or uart_divisor or 1) * _BIT_SCALE)
        super().__init__(library, _SIGNATURES, uart_divisor or 0, bit)

    def reset(self) -> None:
        """Pulse the board's reset. Memories keep their content, as on a real board."""
        self._call("reset")

    def write(self, data: bytes) -> None:
        """Queue bytes for the board; it gets them while the simulation runs."""
        self._call("write", data, len(data))

    def read(self, limit: int = 1 << 16) -> bytes:
        """At most ``limit`` bytes that the board has sent; does not run the simulation."""
        buffer = ctypes.create_string_buffer(limit)
        count = self._call("read", buffer, limit)
        return buffer.raw[:count]

    def run(self, cycles: int, *, stop: int = 0, quiet: int = 0) -> int:
        """Run at most ``cycles`` clock cycles and return how many were run.

        Parameters
        ----------
        cycles:
            The limit.
        stop:
            :data:`STOP_AT_BYTE` or :data:`STOP_AT_DELIMITER`, 0 for neither.
        quiet:
            Stop once nothing has happened for this many cycles (see :attr:`quiet`); 0 for never.
        """
        return self._call("run", cycles, stop, quiet)

    @property
    def cycles(self) -> int:
        """Clock cycles since the board was made, those of its resets included."""
        return self._call("cycles")

    @property
    def quiet(self) -> int:
        """Clock cycles since a byte was last offered or under way in either direction, or the engine was busy."""
        return self._call("quiet")

    @property
    def unsent(self) -> int:
        """Bytes that the board has not got yet."""
        return self._call("unsent")

    @property
    def framing_errors(self) -> int:
        """Frames from the board's UART with a bad start or stop bit, all dropped."""
        return self._call("framing_errors")
