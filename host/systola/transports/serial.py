"""A serial port as a byte pipe, with each of its failures reported in one sentence."""

from __future__ import annotations

import errno

import serial

from systola.errors import LinkError

__all__ = ["SerialPipe"]

#: A serial port takes bytes at its own rate, whether or not anything reads them; only a pseudo-terminal makes its
#: writer wait, for the simulation behind it.
_WRITE_SECONDS = 60.0


class SerialPipe:
    """The serial port ``port`` at ``baud`` bits a second, 8N1, for this process alone.

    Raises :class:`~systola.errors.LinkError` when the port does not exist, is in use or may not be opened, and when it
    disappears.
    """

    def __init__(self, port: str, baud: int) -> None:
        self._port = port
        try:
            self._serial = serial.Serial(port, baud, timeout=0, write_timeout=_WRITE_SECONDS, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(_opening_sentence(port, baud, error)) from error
        self._serial.reset_input_buffer()

    def write(self, data: bytes, /) -> None:
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException as error:
            raise LinkError(f"{self._port} takes no more bytes: the device has stopped reading") from error
        except (serial.SerialException, OSError) as error:
            raise LinkError(f"{self._port} is gone: was the cable pulled?") from error

    def read(self, timeout: float, /) -> bytes:
        try:
            self._serial.timeout = timeout
            first = self._serial.read(1)
            return bytes(first + self._serial.read(self._serial.in_waiting)) if first else b""
        except (serial.SerialException, OSError, TypeError) as error:
            # pyserial answers TypeError when another thread or a hang-up has taken the descriptor away.
            raise LinkError(f"{self._port} is gone: was the cable pulled?") from error

    def close(self) -> None:
        self._serial.close()


def _opening_sentence(port: str, baud: int, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"there is no serial port {port}"
    if number in (errno.EACCES, errno.EPERM):
        return f"you may not open {port}: on Linux, add yourself to the group that owns it (often dialout) and log in again"
    # An exclusive lock that another program holds is reported in words, with EAGAIN only in the text.
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return f"{port} is in use by another program"
    if isinstance(error, ValueError):
        return f"{port} cannot run at {baud} baud"
    return f"{port} could not be opened: {error}"
