"""Asynchronous serial line, 8 data bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

__all__ = ["DIVISOR_BITS", "UartReceiver", "UartTransmitter"]

#: Width of a divisor: clock cycles a bit.
DIVISOR_BITS = 16


class UartReceiver(Component):
    """Bytes from the line.

    Each bit is sampled once in its middle, counted from the start bit's edge: the line's rate may differ by almost half a bit
    in 9.5, about 4%, less one clock cycle for the edge. A start bit that is high again in its middle is ignored; a byte with
    a low stop bit is dropped and the line must go high before the next start. A byte that finds the last one still waiting in
    ``o`` is dropped.

    Members
    -------
    rx: In(1)
        The line, asynchronous.
    divisor: In(16)
        Clock cycles a bit, at least 4.
    o: Out(stream of 8 bits)
        Bytes received.
    """

    rx: In(1, init=1)
    divisor: In(DIVISOR_BITS)
    o: Out(stream.Signature(8))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        timer, bits, shift = Signal(DIVISOR_BITS), Signal(range(9)), Signal(8)
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
                m.d.sync += bits.eq(0)
                with m.If(sample):
                    with m.If(line):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(sample):
                    m.d.sync += [shift.eq(Cat(shift[1:], line)), bits.eq(bits + 1)]
                    with m.If(bits == 7):
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
    divisor: In(16)
        Clock cycles a bit, at least 4.
    tx: Out(1)
        The line, from a register.
    """

    i: In(stream.Signature(8))
    divisor: In(DIVISOR_BITS)
    tx: Out(1, init=1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        timer, left, shift = Signal(DIVISOR_BITS), Signal(range(11)), Signal(9, init=0x1FF)
        last = Signal()
        m.d.comb += [last.eq((timer == 0) & (left <= 1)), self.i.ready.eq(last | (left == 0))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, 1)), left.eq(10), timer.eq(self.divisor - 1)]
        with m.Elif(left != 0):
            m.d.sync += timer.eq(timer - 1)
            with m.If(timer == 0):
                m.d.sync += [self.tx.eq(shift[0]), shift.eq(Cat(shift[1:], 1)), left.eq(left - 1), timer.eq(self.divisor - 1)]
        return m
