"""Accumulators of the compact array: two halves in one memory, whose read port the drain shares."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.common.delay import delayed
from systola_hdl.compact.interfaces import AccumulatorDrain
from systola_hdl.compact.matmul.dot_array import DotArray

__all__ = ["SUM_FLAGS", "Accumulators"]

#: What a sum is: the first one of its position, the last one of its pass, or the last one of its job.
SUM_FLAGS = data.StructLayout({"first": 1, "pass_last": 1, "job_last": 1})


class Accumulators(Component):
    """Adds the array's sums into int32 accumulators, one position a cycle; the post-processor drains full halves.

    A job fills one half: position 0 is its first sum, and again the one after ``pass_last``. With ``first`` the sum is
    kept as it is, else it is added to what is there, wrapping at 32 bits. After ``job_last`` the next job fills the
    other half, which must be claimed before. A position may come again :attr:`shortest_pass` cycles later.

    The drain reads in cycles in which the array does not: without a sum, or with a ``first`` one. When it has waited
    for :attr:`patience` cycles, it asks for such a cycle.

    Attributes
    ----------
    i:
        A sum comes in the next cycle; :data:`SUM_FLAGS`.
    sums:
        That sum, one a column.
    free, claim:
        A half is free; ``claim`` in such a cycle takes one for the next job.
    drain:
        :class:`AccumulatorDrain`, flipped.
    pause:
        For one cycle: let the array have no vector.
    """

    #: Cycles from the read of a position to the first read that sees its new value.
    shortest_pass = 2
    #: Cycles from an accepted drain request to its data.
    drain_latency = 1
    #: Cycles that a drain request waits before it asks for a pause: each word that POST writes costs the array a
    #: vector, and a drain instead of that vector costs nothing.
    patience = 9

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(SUM_FLAGS, always_ready=True)),
                "sums": In(data.ArrayLayout(signed(DotArray.sum_bits(config)), config.columns)),
                "free": Out(1),
                "claim": In(1),
                "drain": In(AccumulatorDrain(config)),
                "pause": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        columns = self.config.columns
        m.submodules.memory = memory = Memory(
            shape=data.ArrayLayout(signed(32), columns), depth=2 * self.config.accumulator_depth, init=[]
        )
        read, write = memory.read_port(), memory.write_port()

        # Cycle 0: the read. Cycle 1: the sum, added and written; a half is full when its last sum is.
        position, half, drained = Signal(range(self.config.accumulator_depth)), Signal(), Signal()
        with m.If(self.i.valid):
            m.d.sync += position.eq(Mux(self.i.payload.pass_last, 0, position + 1))
            m.d.sync += half.eq(half ^ self.i.payload.job_last)
        reads = Signal()
        m.d.comb += [
            reads.eq(self.i.valid & ~self.i.payload.first),
            read.en.eq(1),
            read.addr.eq(Mux(reads, Cat(position, half), Cat(self.drain.position, drained))),
            self.drain.ready.eq(~reads),
            write.addr.eq(delayed(m, Cat(position, half), 1, "written_address")),
            write.en.eq(delayed(m, self.i.valid, 1, "written", init=0)),
            self.drain.data.eq(read.data),
        ]
        m.d.sync += self.drain.data_valid.eq(self.drain.valid & self.drain.ready)
        kept = delayed(m, self.i.payload.first, 1, "kept")
        for column in range(columns):
            m.d.comb += write.data[column].eq(Mux(kept, self.sums[column], read.data[column] + self.sums[column]))

        claimed, full = Signal(range(3)), Signal(range(3))
        filled = delayed(m, self.i.valid & self.i.payload.job_last, 1, "filled", init=0)
        m.d.comb += [self.free.eq(claimed != 2), self.drain.full.eq(full != 0)]
        m.d.sync += [
            claimed.eq(claimed + (self.claim & self.free) - self.drain.release),
            full.eq(full + filled - self.drain.release),
            drained.eq(drained ^ self.drain.release),
        ]

        # It keeps counting while the pause is on its way, so that it asks only once.
        waited = Signal(range(self.patience + 1 + DotArray.latency + 4))
        m.d.comb += self.pause.eq(waited == self.patience)
        with m.If(self.drain.valid & ~self.drain.ready):
            m.d.sync += waited.eq(waited + 1)
        with m.Else():
            m.d.sync += waited.eq(0)
        return m
