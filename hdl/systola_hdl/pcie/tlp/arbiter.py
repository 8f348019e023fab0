"""Several streams of TLPs become one."""

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.pcie.tlp.stream import TlpStream

__all__ = ["TlpArbiter"]


class TlpArbiter(Component):
    """Two streams in turns, a whole TLP at a time. No cycle is lost; what is offered to the output stays until it is
    taken.

    Members
    -------
    i0, i1: In(TlpStream)
        Inputs.
    o: Out(TlpStream)
        Output.
    """

    i0: In(TlpStream())
    i1: In(TlpStream())
    o: Out(TlpStream())

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        turn = Signal()  # the input whose TLP is under way, or was offered in the cycle before; otherwise the input with priority
        locked = Signal()
        chosen = Signal()
        m.d.comb += chosen.eq(turn)
        with m.If(~locked):
            with m.If(turn & ~self.i1.valid):
                m.d.comb += chosen.eq(0)
            with m.Elif(~turn & ~self.i0.valid):
                m.d.comb += chosen.eq(1)
        for index, i in enumerate((self.i0, self.i1)):
            with m.If(chosen == index):
                m.d.comb += [self.o.payload.eq(i.payload), self.o.valid.eq(i.valid), i.ready.eq(self.o.ready)]
        with m.If(self.o.valid):
            m.d.sync += [locked.eq(1), turn.eq(chosen)]
            with m.If(self.o.ready & self.o.payload.last):
                m.d.sync += [locked.eq(0), turn.eq(~chosen)]
        return m
