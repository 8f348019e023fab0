"""An engine with a serial link and room for a second link."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_hdl.host.bus_arbiter import BusArbiter
from systola_hdl.host.host_port import HostPort, connect_host_memory
from systola_hdl.link.frames import Link
from systola_hdl.link.serial_link import add_uart, check_uart
from systola_hdl.tops.engines import engine_for

__all__ = ["LinkedEngine"]


class LinkedEngine(Component):
    """UART at ``config.uart_baud`` and any other link, both at once, on one engine; everything in ``sync``.

    Each word access of either link is one access of the engine's bus; they take turns. Raises ``ValueError`` if the
    UART's divisor has too many bits.

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
        check_uart(config)
        self._config = config
        super().__init__({"port": In(HostPort(dma=config.dma)), "rx": In(1, init=1), "tx": Out(1, init=1), "busy": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = engine_for(self._config)
        m.submodules.link = link = Link()
        receiver, transmitter = add_uart(m, self._config, link)
        m.submodules.arbiter = arbiter = BusArbiter(2)
        connect(m, flipped(self.port.bus), arbiter.clients[0])
        connect(m, link.bus, arbiter.clients[1])
        connect(m, arbiter.bus, engine.bus)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx), self.busy.eq(engine.busy)]
        if self._config.dma:
            connect_host_memory(m, flipped(self.port), engine.host)
        return m
