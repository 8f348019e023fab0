"""A skid buffer: cuts the combinational paths of a stream in both directions, without a loss of throughput."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ShapeLike, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(Component):
    """A queue of two entries. ``i.ready``, ``o.valid`` and ``o.payload`` depend on registers alone.

    Throughput is one item a cycle, latency 1 cycle.

    Parameters
    ----------
    shape:
        Shape of the payload.

    Members
    -------
    i, o:
        Input and output.
    """

    def __init__(self, shape: ShapeLike) -> None:
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        first, second = Signal(self._shape), Signal(self._shape)
        count, push, pop = Signal(range(3)), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(count != 2),
            self.o.valid.eq(count != 0),
            self.o.payload.eq(first),
            push.eq(self.i.valid & self.i.ready),
            pop.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += count.eq(count + push - pop)
        with m.If(pop | (count == 0)):
            m.d.sync += first.eq(Mux(count == 2, second, self.i.payload))
        with m.If(self.i.ready):
            m.d.sync += second.eq(self.i.payload)
        return m
