"""Weight queue: holds a tile's weights at the array until the tile before it has been swapped in."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.common.delay import delayed
from systola_hdl.full.matmul.systolic_array import WeightWord

__all__ = ["WeightQueue"]

#: Bits of a slice, which has pointers of its own.
_SLICE = 32


class WeightQueue(Component):
    """A queue of weight words, ``row_groups`` for each tile, in order. The words of a tile leave one a cycle: after the
    swap of the tile before it, and before its own swap.

    The loader reserves an entry before it reads a word, so the queue needs no back-pressure. Design: distributed RAM in
    slices of 32 bits, each with registered copies of what is pushed and popped.

    Attributes
    ----------
    i:
        ``valid`` and the bytes of a word, which leaves :attr:`latency` cycles later at the earliest.
    pass_start:
        A pass begins. Words of the next tile are at ``o`` from :attr:`release_latency` cycles later on.
    o:
        :class:`WeightWord`, to the array.
    freed:
        For one cycle: a word has left, and its entry is free.
    """

    #: Entries, of one word each.
    depth = 16
    #: Cycles from ``i`` to ``o``, at least: written, popped, registered.
    latency = 3
    #: Cycles from ``pass_start`` to ``o``.
    release_latency = 2

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(data.StructLayout({"valid": 1, "weights": data.ArrayLayout(8, config.weight_word_bytes)})),
                "pass_start": In(1),
                "o": Out(WeightWord(config)),
                "freed": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        groups = self.config.row_groups
        waiting, some = Signal(range(self.depth + 1)), Signal()  # words in the queue; whether there is one at least
        loaded, full = Signal(range(groups + 1)), Signal()  # words of the next tile that have left; whether all have
        tag = Signal(range(groups))
        pop = Signal()
        m.d.comb += pop.eq(some & (~full | self.pass_start))
        m.d.sync += [
            waiting.eq(waiting + self.i.valid - pop),
            some.eq(Mux(pop, self.i.valid | (waiting != 1), self.i.valid | some)),
            self.freed.eq(pop),
            tag.eq(tag + pop),  # wraps: row_groups is a power of two
        ]
        with m.If(self.pass_start):
            m.d.sync += [loaded.eq(pop), full.eq(0)]
        with m.Elif(pop):
            m.d.sync += [loaded.eq(loaded + 1), full.eq(loaded == groups - 1)]
        m.d.comb += [
            self.o.valid.eq(delayed(m, pop, self.release_latency, "left", init=0)),
            self.o.tag.eq(delayed(m, tag, self.release_latency, "tag_left")),
        ]
        for number in range(-(-len(self.i.weights.as_value()) // _SLICE)):
            part = slice(number * _SLICE, (number + 1) * _SLICE)
            m.submodules[f"slice{number}"] = memory = Memory(shape=_SLICE, depth=self.depth, init=[])
            write, read = memory.write_port(), memory.read_port(domain="comb")
            pushes = delayed(m, self.i.valid, 1, f"pushes{number}", init=0, keep=True)
            pops = delayed(m, pop, 1, f"pops{number}", init=0, keep=True)
            head, tail = (Signal(range(self.depth), name=f"{name}{number}", attrs={"keep": 1}) for name in ("head", "tail"))
            m.d.sync += [tail.eq(tail + pushes), head.eq(head + pops)]
            m.d.comb += [
                write.addr.eq(tail),
                write.en.eq(pushes),
                write.data.eq(delayed(m, self.i.weights.as_value()[part], 1, f"pushed{number}")),
                read.addr.eq(head),
                self.o.weights.as_value()[part].eq(delayed(m, read.data, 1, f"popped{number}")),
            ]
        return m
