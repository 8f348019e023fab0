"""Affine loop nest: the address generator of the streamer and of the post-processor."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.interfaces import ADDRESS_BITS

__all__ = ["COUNT_BITS", "STEP_BITS", "LoopNest"]

#: Width of an iteration count, as in the instruction set.
COUNT_BITS = 12
#: Width of a signed address step, as in the instruction set.
STEP_BITS = 20


class LoopNest(Component):
    """Walks nested loops and delivers one item an innermost iteration.

    The item's ``address[a]`` is ``base[a] + Σ index[loop] * steps[loop][a]``, modulo ``2**ADDRESS_BITS``.

    Throughput is one item a cycle while ``o.ready``, also from the last item of a nest to the first of the next, if ``start`` is
    valid early enough. Latency is :attr:`latency` cycles from the transfer of ``start`` to the first item.

    The loop carries nothing longer than a multiplexer over the loops and one adder: counters run one item ahead of the
    addresses and tell them, registered, which loop steps next and by how much. Counters count down, and whether a loop's next
    iteration is its last is known a cycle before it matters.

    Parameters
    ----------
    loops:
        Names of the loops, outermost first.
    addresses:
        Number of addresses that step together; 0 for the flags alone.
    tag_bits:
        Bits that every item of a nest carries from its start.

    Attributes
    ----------
    start:
        ``counts.<loop>`` (at least 1; 0 counts as 2**12), ``steps.<loop>[a]``, ``base[a]``, ``tag``.
    o:
        ``address[a]``, ``tag``, and the flags ``first.<loop>`` and ``last.<loop>``: it is the first or last iteration of that loop.
    """

    latency = 3

    def __init__(self, loops: Sequence[str], addresses: int = 1, *, tag_bits: int = 0) -> None:
        if not loops or len(set(loops)) != len(loops):
            raise ValueError(f"loops must be different names, at least one, not {tuple(loops)!r}")
        if addresses < 0:
            raise ValueError(f"addresses must not be negative, not {addresses}")
        self.loops = tuple(loops)
        self.addresses = addresses
        flags = data.StructLayout(dict.fromkeys(self.loops, 1))
        address = data.ArrayLayout(signed(ADDRESS_BITS), addresses)
        self.start_layout = data.StructLayout(
            {
                "counts": data.StructLayout(dict.fromkeys(self.loops, COUNT_BITS)),
                "steps": data.StructLayout(dict.fromkeys(self.loops, data.ArrayLayout(signed(STEP_BITS), addresses))),
                "base": address,
                "tag": tag_bits,
            }
        )
        self.item_layout = data.StructLayout({"address": address, "first": flags, "last": flags, "tag": tag_bits})
        super().__init__({"start": In(stream.Signature(self.start_layout)), "o": Out(stream.Signature(self.item_layout))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        levels = len(self.loops)

        # Stage 1: counters. `begins` marks the first item of a nest, which takes the base instead of a step.
        nest = Signal(self.start_layout)
        active = Signal()
        begins = Signal()
        first = Signal(levels)
        last = Signal(levels)
        single = Signal(levels)  # the loop has one iteration
        double = Signal(levels)  # it has two
        left = [Signal(COUNT_BITS, name=f"left_{loop}") for loop in self.loops]  # iterations, with the present one
        next_last = Signal(levels)  # two are left
        # Stage 2: which loop steps to reach this item (one-hot, none for a base) and by how much.
        stepping = Signal(levels)
        delta = Signal(data.ArrayLayout(signed(ADDRESS_BITS), self.addresses))
        waiting = Signal()
        waiting_flags = Signal(2 * levels)
        waiting_tag = Signal.like(nest.tag)

        take_item = Signal()  # stage 3 is free
        take_count = Signal()  # stage 2 is free
        m.d.comb += take_item.eq(~self.o.valid | self.o.ready)
        m.d.comb += take_count.eq(~waiting | take_item)
        m.d.comb += self.start.ready.eq(~active | (take_count & last.all()))

        # `last` after this item tells which loop steps next: the innermost that is not at its last iteration.
        steps_next = Signal(levels)
        for level in range(levels):
            m.d.comb += steps_next[level].eq(~last[level] & last[level + 1 :].all())
        steps_now = Signal(levels)  # the loop that was stepped to reach the counters' present item

        with m.If(take_count):
            m.d.sync += waiting.eq(active)
            with m.If(active):
                m.d.sync += [begins.eq(0), steps_now.eq(steps_next), stepping.eq(steps_now), waiting_flags.eq(Cat(first, last))]
                m.d.sync += waiting_tag.eq(nest.tag)
                for level, counter in enumerate(left):
                    inner_of_stepped = last[level:].all()  # an outer loop steps, so this one starts over
                    with m.If(inner_of_stepped):
                        m.d.sync += [first[level].eq(1), last[level].eq(single[level]), next_last[level].eq(double[level])]
                        m.d.sync += counter.eq(nest.counts[self.loops[level]])
                    with m.Elif(steps_next[level]):
                        m.d.sync += [first[level].eq(0), last[level].eq(next_last[level]), next_last[level].eq(counter == 3)]
                        m.d.sync += counter.eq(counter - 1)
                for address in range(self.addresses):
                    chosen = nest.base[address] & begins.replicate(ADDRESS_BITS).as_signed()
                    for level, loop in enumerate(self.loops):
                        chosen |= Mux(steps_now[level], nest.steps[loop][address], 0)
                    m.d.sync += delta[address].eq(chosen)
                with m.If(last.all()):
                    m.d.sync += active.eq(0)

        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [nest.eq(self.start.payload), active.eq(1), begins.eq(1), first.eq(-1), steps_now.eq(0)]
            for level, loop in enumerate(self.loops):
                count = self.start.payload.counts[loop]
                m.d.sync += [last[level].eq(count == 1), single[level].eq(count == 1), left[level].eq(count)]
                m.d.sync += [next_last[level].eq(count == 2), double[level].eq(count == 2)]

        # Stage 3: one base a loop, the address at which its present iteration starts. The innermost is the item's address.
        with m.If(take_item):
            m.d.sync += self.o.valid.eq(waiting)
            with m.If(waiting):
                m.d.sync += Cat(self.o.payload.first.as_value(), self.o.payload.last.as_value()).eq(waiting_flags)
                m.d.sync += self.o.payload.tag.eq(waiting_tag)
        for address in range(self.addresses):
            bases = [Signal(signed(ADDRESS_BITS), name=f"base{address}_{loop}") for loop in self.loops]
            m.d.comb += self.o.payload.address[address].eq(bases[-1])
            origin = 0
            for level, base in enumerate(bases):
                origin |= Mux(stepping[level], base, 0)
            reached = Signal(signed(ADDRESS_BITS), name=f"reached{address}")
            m.d.comb += reached.eq(origin + delta[address])
            for level, base in enumerate(bases):
                outer_keeps = stepping[level + 1 :].any()  # a loop further in steps: this base stays
                with m.If(take_item & waiting & ~outer_keeps):
                    m.d.sync += base.eq(reached)
        return m
