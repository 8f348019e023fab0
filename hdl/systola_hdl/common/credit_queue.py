"""Credits taken ahead of use, and a queue built on them: back-pressure that never has to stop a pipeline at once."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Shape, ShapeLike, Signal, Value
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

__all__ = ["CreditQueue", "Credits"]


class Credits(Component):
    """Counts ``count`` places. Whoever starts something takes one, and gives it back when it has gone where nothing can
    hold it up.

    Both answers are registers: ``free`` may stay low for a cycle or two although a place is free, ``empty`` as well.

    Parameters
    ----------
    count:
        Number of places, at least 2.

    Attributes
    ----------
    take:
        For one cycle: a place is taken; allowed while ``free``.
    give:
        For one cycle: a taken place is given back.
    free:
        A place may be taken.
    empty:
        No place is taken.
    """

    def __init__(self, count: int) -> None:
        if count < 2:
            raise ValueError(f"count must be at least 2, not {count}")
        self.count = count
        super().__init__({"take": In(1), "give": In(1), "free": Out(1, init=1), "empty": Out(1, init=1)})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        taken = Signal(range(self.count + 1))
        m.d.sync += [
            taken.eq(taken + self.take - self.give),
            # One place is for what is taken in this cycle, one for the next.
            self.free.eq(taken <= self.count - 2),
            self.empty.eq((taken == 0) & ~self.take),
        ]
        return m


class CreditQueue(Component):
    """Queue behind a pipeline that cannot stop: its place is taken when an item enters the pipeline.

    Throughput is one item a cycle if the pipeline is shorter than ``depth`` by at least 4. An item leaves
    :attr:`latency` cycles after it came, at the earliest.

    Parameters
    ----------
    shape:
        Of an item.
    depth:
        Entries of the queue, at least 2.

    Attributes
    ----------
    take, free:
        See :class:`Credits`. One ``take`` for each item of ``i``, in the same cycle or before.
    i, o:
        Items; ``o`` comes from registers.
    """

    latency = 2

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        self.depth = depth
        super().__init__(
            {
                "take": In(1),
                "free": Out(1, init=1),
                "i": In(stream.Signature(shape, always_ready=True)),
                "o": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.places = places = Credits(self.depth)
        width = Shape.cast(self.i.payload.shape()).width
        m.submodules.queue = queue = SyncFIFO(width=width, depth=self.depth)
        # One item waits beside the one at the output, so that the output's ready stops registers only, not the queue's
        # pointers.
        item, spare, spared = Signal(width, reset_less=True), Signal(width, reset_less=True), Signal()
        m.d.comb += [
            places.take.eq(self.take),
            self.free.eq(places.free),
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            queue.r_en.eq(~spared),
            Value.cast(self.o.payload).eq(item),
        ]
        m.d.sync += places.give.eq(queue.r_en & queue.r_rdy)
        with m.If(~spared):
            m.d.sync += spare.eq(queue.r_data)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(spared | queue.r_rdy), spared.eq(0)]
            m.d.sync += item.eq(Mux(spared, spare, queue.r_data))
        with m.Elif(~spared):
            m.d.sync += spared.eq(queue.r_rdy)
        return m
