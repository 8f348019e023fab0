"""Credits, and a queue whose entries are reserved by credits: back-pressure for pipelines that cannot stop."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Shape, ShapeLike, Signal, Value
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

__all__ = ["CreditQueue", "Credits"]


class Credits(Component):
    """A pool of ``count`` credits. A credit is taken before an item enters a pipeline that cannot stop, and given back
    when the item has left the queue behind the pipeline.

    ``free`` and ``empty`` are registers, two cycles behind ``give``. ``free`` is low while fewer than two credits are
    left.

    Parameters
    ----------
    count:
        Number of credits, at least 2.

    Attributes
    ----------
    take:
        High for one cycle: a credit is taken. Allowed while ``free``.
    give:
        High for one cycle: a credit that was taken comes back.
    free:
        A credit may be taken in this cycle.
    empty:
        No credit is taken.
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
            # One credit is kept for a take in this cycle, one for a take in the next, when `free` is still high.
            self.free.eq(taken <= self.count - 2),
            self.empty.eq((taken == 0) & ~self.take),
        ]
        return m


class CreditQueue(Component):
    """Queue behind a pipeline that cannot stop. Its entries are reserved by credits: a producer takes one when an item
    enters the pipeline, and it comes back when the item leaves the queue's memory.

    Throughput is one item a cycle if the pipeline is at least 4 cycles shorter than ``depth``. An item leaves the queue
    :attr:`latency` cycles after it entered, at the earliest.

    Parameters
    ----------
    shape:
        Shape of an item.
    depth:
        Entries of the memory, and so credits; at least 2.

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
        m.submodules.places = credits = Credits(self.depth)
        width = Shape.cast(self.i.payload.shape()).width
        m.submodules.queue = queue = SyncFIFO(width=width, depth=self.depth)
        # A skid buffer: a second item waits in `spare`, so that no path leads from `o.ready` to the pointers of the
        # memory.
        item, spare, spared = Signal(width, reset_less=True), Signal(width, reset_less=True), Signal()
        m.d.comb += [
            credits.take.eq(self.take),
            self.free.eq(credits.free),
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            queue.r_en.eq(~spared),
            Value.cast(self.o.payload).eq(item),
        ]
        m.d.sync += credits.give.eq(queue.r_en & queue.r_rdy)
        with m.If(~spared):
            m.d.sync += spare.eq(queue.r_data)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(spared | queue.r_rdy), spared.eq(0)]
            m.d.sync += item.eq(Mux(spared, spare, queue.r_data))
        with m.Elif(~spared):
            m.d.sync += spared.eq(queue.r_rdy)
        return m
