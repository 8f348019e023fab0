"""The serial line of a board: UART and link."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from systola_firmware.spec.config import Config
from systola_hdl.link.frames import Link
from systola_hdl.link.uart import DIVISOR_BITS, UartReceiver, UartTransmitter

__all__ = ["add_uart", "check_uart"]


def check_uart(config: Config) -> None:
    """Raise ``ValueError`` if the UART's divisor for ``config.uart_baud`` at ``config.clock_hz`` has more than
    DIVISOR_BITS bits."""
    if config.uart_divisor >= 1 << DIVISOR_BITS:
        raise ValueError(f"uart_baud {config.uart_baud} is too slow for a clock of {config.clock_hz} Hz")


def add_uart(m: Module, config: Config, link: Link) -> tuple[UartReceiver, UartTransmitter]:
    """Put a UART at ``config.uart_baud`` before ``link``: submodules ``receiver`` and ``transmitter``. Their pins are
    left unconnected."""
    divisor = config.uart_divisor
    m.submodules.receiver = receiver = UartReceiver(divisor.bit_length())
    m.submodules.transmitter = transmitter = UartTransmitter(divisor.bit_length())
    connect(m, receiver.o, link.i)
    connect(m, link.o, transmitter.i)
    m.d.comb += [receiver.divisor.eq(divisor), transmitter.divisor.eq(divisor)]
    return receiver, transmitter
