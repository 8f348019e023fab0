"""How the completer reaches the registers of the configuration space."""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["ConfigurationAccess"]


class ConfigurationAccess(Signature):
    """One dword of the configuration space; initiator is the completer.

    ``access`` is high for one cycle; ``write`` says what it is, ``enable`` which bytes are written, byte 0 that at the
    lowest address. ``target`` is the bus, device and function that the request is addressed to; with a write it becomes
    our function's ID. ``read_data`` holds the dword in the next cycle; little endian, as ``write_data``.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "access": Out(1),
                "write": Out(1),
                "register": Out(10),
                "enable": Out(4),
                "write_data": Out(32),
                "target": Out(16),
                "read_data": In(32),
            }
        )
