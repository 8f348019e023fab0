"""What every board has inside, up to its pins."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from systola_firmware.spec.config import Config
from systola_hdl.link.frames import Link
from systola_hdl.link.serial_link import add_uart, check_uart
from systola_hdl.tops.engines import engine_for

__all__ = ["Systola"]

#: Clock cycles for which the activity light stays on after a byte: 21 ms at 50 MHz.
ACTIVITY_CYCLES = 1 << 20


class Systola(Component):
    """UART, link and engine at ``config.clock_hz`` and ``config.uart_baud``. Raises ``ValueError`` if the UART's
    divisor has too many bits.

    Members
    -------
    rx: In(1), tx: Out(1)
        The serial line; ``rx`` may be asynchronous.
    led_busy: Out(1)
        A program runs.
    led_activity: Out(1)
        A byte was received or sent in the last :data:`ACTIVITY_CYCLES` cycles.
    """

    rx: In(1, init=1)
    tx: Out(1, init=1)
    led_busy: Out(1)
    led_activity: Out(1)

    def __init__(self, config: Config) -> None:
        check_uart(config)
        self._config = config
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.link = link = Link()
        m.submodules.engine = engine = engine_for(self._config)
        receiver, transmitter = add_uart(m, self._config, link)
        connect(m, link.bus, engine.bus)
        light = Signal(range(ACTIVITY_CYCLES))
        with m.If(receiver.o.valid | link.o.valid):
            m.d.sync += light.eq(ACTIVITY_CYCLES - 1)
        with m.Elif(light != 0):
            m.d.sync += light.eq(light - 1)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            self.led_busy.eq(engine.busy),
            self.led_activity.eq(light != 0),
        ]
        return m
