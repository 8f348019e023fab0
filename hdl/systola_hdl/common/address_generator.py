"""Affine loop nest: the address generator of the streamer and of the post-processor."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.isa import COUNT_BITS, STEP_BITS
from systola_hdl.common.credit_queue import CreditQueue
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import ADDRESS_BITS

__all__ = ["AddressGenerator"]


class AddressGenerator(Component):
    """Walks nested loops and delivers one item for each iteration of the innermost loop.

    The item's ``address[a]`` is ``base[a] + Σ index[loop] * steps[loop][a]``, modulo ``2**ADDRESS_BITS``.

    Throughput is one item a cycle while ``o.ready``. Nests follow each other without a gap if ``start`` is valid early
    enough and each nest has at least :attr:`shortest_nest` items. Latency is :attr:`latency` cycles from the transfer
    of ``start`` to the first item.

    Design: a pipeline that never stops, with a credit queue at its end. Each item that enters takes a credit, and the
    queue's ``free`` is a register, so no path leads from ``o.ready`` to the stages before the queue. The counters are
    one stage ahead of the addresses; registers between them say which loop steps. Each counter counts down, and a
    register says one cycle ahead that the loop's next iteration is its last. While one nest runs, the next waits in
    registers, where its counts are compared with 1 and 2::

        start ─ waits ─ compared ─▶ 1: counters ─▶ 2: by how much ─▶ 3: address ─▶ queue ─▶ o

    Parameters
    ----------
    loops:
        Names of the loops, outermost first.
    addresses:
        Number of addresses that step together; 0 for the flags alone.
    tag_bits:
        Bits that every item of a nest carries from its start.
    held:
        The payload of ``start`` is not copied to registers. Whoever drives it keeps it unchanged until the nest's last
        item has left, and starts no other nest before that.

    Attributes
    ----------
    start:
        ``counts.<loop>`` (at least 1; 0 counts as 2**12), ``steps.<loop>[a]``, ``base[a]``, ``tag``.
    o:
        ``address[a]``, ``tag``, and the flags ``first.<loop>`` and ``last.<loop>``: it is the first or last iteration
        of that loop.
    """

    #: Cycles from ``start`` to the first item: two to wait and be compared, three stages, the queue.
    latency = 2 + 3 + 1 + CreditQueue.latency
    #: Least cycles from one nest's start to the next one's: it is copied, compared, and taken.
    shortest_nest = 3
    #: Credits of the queue: more than the cycles from taking a credit until it can be taken again.
    _depth = 16

    def __init__(self, loops: Sequence[str], addresses: int = 1, *, tag_bits: int = 0, held: bool = False) -> None:
        if not loops or len(set(loops)) != len(loops):
            raise ValueError(f"loops must be different names, at least one, not {tuple(loops)!r}")
        if addresses < 0:
            raise ValueError(f"addresses must not be negative, not {addresses}")
        self.loops = tuple(loops)
        self.addresses = addresses
        self._held = held
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
        m.submodules.queue = queue = CreditQueue(self.item_layout, self._depth)
        connect(m, queue.o, flipped(self.o))
        offered, item = self.start.payload, queue.i.payload
        taken = Signal()  # the counters begin the waiting nest in the next cycle
        issued, flags, origin = self._build_counters(m, queue.free, taken)
        _, tag = self._build_nest(m, offered.tag, taken, "tag")
        m.d.comb += [
            queue.take.eq(issued),
            queue.i.valid.eq(delayed(m, issued, 3, "valid", init=0)),
            Cat(item.first.as_value(), item.last.as_value()).eq(delayed(m, flags, 3, "flags")),
            item.tag.eq(delayed(m, tag, 2, "tag")),
        ]
        for address in range(self.addresses):
            steps = [offered.steps[loop][address] for loop in self.loops]
            _, nest = self._build_nest(m, Cat(*steps, offered.base[address]), taken, f"address{address}")
            # Each address has copies of these registers, because each drives a multiplexer of its own.
            ways = delayed(m, origin, 1, f"origin{address}", keep=True)
            valid = delayed(m, issued, 2, f"valid{address}", init=0, keep=True)
            m.d.comb += item.address[address].eq(self._build_address(m, nest, ways, valid, address))
        return m

    def _build_nest(self, m: Module, offered: Value, taken: Signal, name: str) -> tuple[Value, Value]:
        """Two ranks of registers for a part of ``start``. Returns the part of the nest that waits, which is stable
        until the cycle after ``taken``, and that of the nest that runs, which follows from the cycle after that. Each
        part has enables of its own, to limit their fan-out.
        """
        if self._held:
            return offered, offered
        waits, goes = Signal(name=f"{name}_waits", attrs={"keep": 1}), delayed(m, taken, 1, f"{name}_goes", init=0, keep=True)
        waiting = Signal(len(offered), name=f"{name}_waiting", reset_less=True)
        running = Signal(len(offered), name=f"{name}_running", reset_less=True)
        with m.If(~waits):
            m.d.sync += [waits.eq(self.start.valid), waiting.eq(offered)]
        with m.Elif(taken):
            m.d.sync += waits.eq(0)
        with m.If(goes):
            m.d.sync += running.eq(waiting)
        return waiting, running

    def _build_counters(self, m: Module, free: Value, taken: Signal) -> tuple[Value, Value, Value]:
        """Stage 1. Returns whether an item leaves it, the item's flags and, one-hot, the loop that was stepped to reach
        the item; the last bit stands for the nest's base."""
        levels = len(self.loops)
        waits, compared = Signal(), Signal()
        waiting, running = self._build_nest(m, self.start.payload.counts.as_value(), taken, "counts")
        m.d.comb += self.start.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += waits.eq(self.start.valid)
        with m.Elif(taken):
            m.d.sync += waits.eq(0)
        m.d.sync += compared.eq(waits & ~taken)

        # Without a nest, every loop is held at its last iteration; no item leaves, because `active` is low.
        active, begins, steps_now = Signal(), Signal(), Signal(levels)
        first, last, next_last = Signal(levels), Signal(levels, init=-1), Signal(levels)
        single, double = Signal(levels), Signal(levels)  # the loop has one iteration; it has two
        single_waiting, double_waiting = Signal(levels, init=-1), Signal(levels)
        # A loop steps when all loops inside it are at their last iteration; `ends`: the nest's last item.
        inner_last = [last[level + 1 :].all() for level in range(levels)]
        ends = last.all()
        m.d.comb += taken.eq(free & compared & ends)
        with m.If(taken):
            m.d.sync += [single.eq(single_waiting), double.eq(double_waiting)]
        with m.If(free):
            m.d.sync += [begins.eq(ends), steps_now.eq(Cat(inner_last) & ~last)]
            with m.If(ends):
                m.d.sync += active.eq(compared)
        for level in range(levels):
            count = slice(level * COUNT_BITS, (level + 1) * COUNT_BITS)
            # Iterations left, the present one included.
            left = Signal(COUNT_BITS, name=f"left_{self.loops[level]}", reset_less=True)
            m.d.sync += [
                single_waiting[level].eq(~waits | taken | (waiting[count] == 1)),
                double_waiting[level].eq(waiting[count] == 2),
            ]
            with m.If(free & inner_last[level]):
                m.d.sync += first[level].eq(last[level])
                with m.If(last[level]):  # the loop starts over, from the nest's count
                    m.d.sync += [
                        last[level].eq(Mux(ends, single_waiting[level], single[level])),
                        next_last[level].eq(Mux(ends, double_waiting[level], double[level])),
                        # `running` may not be up to date for one cycle, in which only loops of one iteration start
                        # over.
                        left.eq(Mux(ends, waiting[count], running[count])),
                    ]
                with m.Else():
                    m.d.sync += [last[level].eq(next_last[level]), next_last[level].eq(left == 3), left.eq(left - 1)]
        return free & active, Cat(first, last), Cat(steps_now, begins)

    def _build_address(self, m: Module, nest: Value, ways: Value, valid: Value, address: int) -> Value:
        """Stages 2 and 3 of one address. ``ways`` says, one-hot, which loop was stepped to reach the item, or that it
        is the nest's first."""
        # Stage 2: the amount of the step. A nest's first item steps from 0 by the nest's base.
        delta = Signal(signed(ADDRESS_BITS), name=f"delta{address}", reset_less=True)
        stepping = Signal(len(self.loops), name=f"stepping{address}", reset_less=True)
        chosen = Value.cast(0)
        for way in range(len(self.loops) + 1):
            width = STEP_BITS if way < len(self.loops) else ADDRESS_BITS
            chosen |= Mux(ways[way], nest[way * STEP_BITS : way * STEP_BITS + width].as_signed(), 0)
        m.d.sync += [delta.eq(chosen), stepping.eq(ways)]
        # Stage 3: for each loop a base, the address at which its present iteration starts. The innermost loop's is the
        # item's address.
        bases = [Signal(signed(ADDRESS_BITS), name=f"base{address}_{loop}", reset_less=True) for loop in self.loops]
        origin = Value.cast(0)
        for level, base in enumerate(bases):
            origin |= Mux(stepping[level], base, 0)
        reached = Signal(signed(ADDRESS_BITS), name=f"reached{address}")
        m.d.comb += reached.eq(origin + delta)
        for level, base in enumerate(bases):
            outer_keeps = stepping[level + 1 :].any()  # a loop inside this one steps, so this base stays
            with m.If(valid & ~outer_keeps):
                m.d.sync += base.eq(reached)
        return bases[-1]
