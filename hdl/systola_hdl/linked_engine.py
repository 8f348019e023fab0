"""An engine with a serial link and room for a second link."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_hdl.bus_arbiter import BusArbiter
from systola_hdl.engines import engine_for
from systola_hdl.host_port import HostPort, connect_host_memory
from systola_hdl.link import Link
from systola_hdl.uart import DIVISOR_BITS, UartReceiver, UartTransmitter

__all__ = ["LinkedEngine"]


class LinkedEngine(Component):
    """UART at ``config.uart_baud`` and any other link, both at once, on one engine; everything in ``sync``.

    Each word access of either link is one access of the engine's bus; they take turns. Raises ``ValueError`` if the UART's
    divisor has no room.

    Members
    -------
    port: In(HostPort(dma=config.dma))
        The other link.
    rx: In(1), tx: Out(1)
        The serial line; ``rx`` may be asynchronous.
    busy: Out(1)
        A program runs.
    """

    def __init__(self, config: Config) -> None:
        if config.uart_divisor >= 1 << DIVISOR_BITS:
            raise ValueError(f"uart_baud {config.uart_baud} is too slow for a clock of {config.clock_hz} Hz")
        self._config = config
        super().__init__({"port": In(HostPort(dma=config.dma)), "rx": In(1, init=1), "tx": Out(1, init=1), "busy": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        divisor = self._config.uart_divisor
        m.submodules.engine = engine = engine_for(self._config)
        m.submodules.link = link = Link()
        m.submodules.receiver = receiver = UartReceiver(divisor.bit_length())
        m.submodules.transmitter = transmitter = UartTransmitter(divisor.bit_length())
        m.submodules.arbiter = arbiter = BusArbiter(2)
        connect(m, receiver.o, link.i)
        connect(m, link.o, transmitter.i)
        connect(m, flipped(self.port.bus), arbiter.clients[0])
        connect(m, link.bus, arbiter.clients[1])
        connect(m, arbiter.bus, engine.bus)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            receiver.divisor.eq(divisor),
            transmitter.divisor.eq(divisor),
            self.tx.eq(transmitter.tx),
            self.busy.eq(engine.busy),
        ]
        if self._config.dma:
            connect_host_memory(m, flipped(self.port), engine.host)
        return m
