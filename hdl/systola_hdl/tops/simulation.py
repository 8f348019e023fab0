"""The simulated board: like the real one, but the link's bytes can also pass whole, without the UART's bits."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect

from systola_firmware.spec.config import Config
from systola_hdl.link.frames import Link
from systola_hdl.link.uart import DIVISOR_BITS, UartReceiver, UartTransmitter
from systola_hdl.tops.engines import engine_for

__all__ = ["SimulationTop"]


class SimulationTop(Component):
    """Link and engine, with the link's bytes on the pins of a UART or directly on ports.

    Members
    -------
    rx_data, rx_valid, rx_ready; tx_data, tx_valid, tx_ready:
        Bytes to and from the link, a byte a cycle at best, while ``select_uart`` is 0.
    uart_rx: In(1), uart_tx: Out(1)
        The serial line, while ``select_uart`` is 1 (else what is received is lost, and nothing is sent).
    uart_divisor: In(16)
        Clock cycles a bit, at least 4.
    busy: Out(1)
        A program runs.
    """

    rx_data: In(8)
    rx_valid: In(1)
    rx_ready: Out(1)
    tx_data: Out(8)
    tx_valid: Out(1)
    tx_ready: In(1)
    uart_rx: In(1, init=1)
    uart_tx: Out(1, init=1)
    uart_divisor: In(DIVISOR_BITS)
    select_uart: In(1)
    busy: Out(1)

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.link = link = Link()
        m.submodules.engine = engine = engine_for(self._config)
        m.submodules.receiver = receiver = UartReceiver()
        m.submodules.transmitter = transmitter = UartTransmitter()
        connect(m, link.bus, engine.bus)
        m.d.comb += [
            receiver.rx.eq(self.uart_rx),
            receiver.divisor.eq(self.uart_divisor),
            transmitter.divisor.eq(self.uart_divisor),
            self.uart_tx.eq(transmitter.tx),
            self.busy.eq(engine.busy),
            self.tx_data.eq(link.o.payload),
            transmitter.i.payload.eq(link.o.payload),
        ]
        with m.If(self.select_uart):
            m.d.comb += [
                link.i.payload.eq(receiver.o.payload),
                link.i.valid.eq(receiver.o.valid),
                receiver.o.ready.eq(link.i.ready),
                transmitter.i.valid.eq(link.o.valid),
                link.o.ready.eq(transmitter.i.ready),
            ]
        with m.Else():
            m.d.comb += [
                link.i.payload.eq(self.rx_data),
                link.i.valid.eq(self.rx_valid),
                self.rx_ready.eq(link.i.ready),
                receiver.o.ready.eq(1),
                self.tx_valid.eq(link.o.valid),
                link.o.ready.eq(self.tx_ready),
            ]
        return m
