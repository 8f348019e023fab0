"""Asynchronous serial line, 8 data bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

__all__ = ["DIVISOR_BITS", "UartReceiver", "UartTransmitter"]

#: Width of a divisor: clock cycles a bit.
DIVISOR_BITS = 16


class UartReceiver(Component):
    """Bytes from the line.

    Each bit is sampled once in its middle, counted from the start bit's edge: the line's rate may differ by almost half
    a bit in 9.5, about 4%, less one clock cycle for the edge. A start bit that is high again in its middle is ignored;
    a byte with a low stop bit is dropped and the line must go high before the next start. A byte that finds the last
    one still waiting in ``o`` is dropped.

    Members
    -------
    rx: In(1)
        The line, asynchronous.
    divisor: In(``divisor_bits``)
        Clock cycles a bit, at least 4.
    o: Out(stream of 8 bits)
        Bytes received.
    """

    def __init__(self, divisor_bits: int = DIVISOR_BITS) -> None:
        super().__init__({"rx": In(1, init=1), "divisor": In(divisor_bits), "o": Out(stream.Signature(8))})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        timer = Signal.like(self.divisor)
        shift = Signal(8)  # with a one ahead of the bits, whose arrival at the end says that the next one is the last
        sample = Signal()
        m.d.comb += sample.eq(timer == 0)
        m.d.sync += timer.eq(timer - 1)
        with m.If(sample):
            m.d.sync += timer.eq(self.divisor - 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += timer.eq((self.divisor >> 1) - 1)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += shift.eq(0x80)
                with m.If(sample):
                    with m.If(line):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(sample):
                    m.d.sync += shift.eq(Cat(shift[1:], line))
                    with m.If(shift[0]):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(sample):
                    with m.If(line):
                        with m.If(~self.o.valid | self.o.ready):
                            m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(shift)]
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(Component):
    """Bytes to the line: 10 bits of ``divisor`` clock cycles a byte, without a gap between bytes that wait.

    Members
    -------
    i: In(stream of 8 bits)
        Bytes to send.
    divisor: In(``divisor_bits``)
        Clock cycles a bit, at least 4.
    tx: Out(1)
        The line, from a register.
    """

    def __init__(self, divisor_bits: int = DIVISOR_BITS) -> None:
        super().__init__({"i": In(stream.Signature(8)), "divisor": In(divisor_bits), "tx": Out(1, init=1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        timer, tick = Signal.like(self.divisor), Signal()
        shift = Signal(10, init=1)  # bits to send, and a one above them; if only the one is left, the stop bit is on the line
        last, idle = Signal(init=1), Signal(init=1)
        m.d.comb += self.i.ready.eq(idle | (tick & last))
        m.d.sync += [timer.eq(timer - 1), tick.eq(timer == 1), last.eq(shift[1:] == 0)]
        with m.If(tick):
            m.d.sync += timer.eq(self.divisor - 1)
            with m.If(last):
                m.d.sync += idle.eq(1)
            with m.Else():
                m.d.sync += [self.tx.eq(shift[0]), shift.eq(shift[1:])]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, Const(3, 2))), timer.eq(self.divisor - 1), tick.eq(0)]
            m.d.sync += [idle.eq(0), last.eq(0)]
        return m
