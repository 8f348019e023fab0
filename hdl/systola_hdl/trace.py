"""Trace memory: a snapshot of the counters whenever a marked instruction completes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, ValueLike
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.config import Config
from systola_firmware.isa import Unit
from systola_firmware.memory_map import MARK_WORDS
from systola_hdl.bus_target import BusTarget
from systola_hdl.counters import COUNTER_LAYOUT
from systola_hdl.interfaces import Bus

__all__ = ["ADDRESS_BITS", "MARK_LAYOUT", "QUEUE_DEPTH", "Trace"]

#: Width of a program address in a mark.
ADDRESS_BITS = 17
#: Instructions whose marks may wait to be written.
QUEUE_DEPTH = 8

#: The units that complete an instruction with a mark in this cycle, and its address.
MARK_LAYOUT = data.ArrayLayout(data.StructLayout({"valid": 1, "address": ADDRESS_BITS}), len(Unit))

_ENTRY = data.StructLayout({"marks": MARK_LAYOUT, "counters": COUNTER_LAYOUT})


class Trace(Component):
    """Keep the first ``config.trace_marks`` marks, count all.

    A mark is :data:`~systola_firmware.memory_map.MARK_WORDS` words and takes as many cycles to write, so snapshots wait in a
    queue of :data:`QUEUE_DEPTH` entries; an entry holds the marks of all units of one cycle, written in the order of the
    units' numbers. Nothing is lost while at most ``QUEUE_DEPTH - level`` instructions with marks are executing.

    Members
    -------
    clear: In(1)
        Forget all marks; only while ``idle``.
    marks: In(MARK_LAYOUT), counters: In(COUNTER_LAYOUT)
        Completions of this cycle, and the counters.
    level: Out
        Entries in the queue.
    idle: Out(1)
        Every mark has been written.
    count: Out(32)
        Marks since ``clear``.
    host:
        The host's access; the address is the byte offset in the region. Writing does nothing.
    """

    def __init__(self, config: Config) -> None:
        self._capacity = config.trace_marks
        super().__init__(
            {
                "clear": In(1),
                "marks": In(MARK_LAYOUT),
                "counters": In(COUNTER_LAYOUT),
                "level": Out(range(QUEUE_DEPTH + 1)),
                "idle": Out(1),
                "count": Out(32),
                "host": In(Bus()),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        words = len(MARK_WORDS)
        depth = self._capacity * words
        m.submodules.memory = memory = Memory(shape=32, depth=depth, init=[])
        m.submodules.queue = queue = SyncFIFO(width=_ENTRY.size, depth=QUEUE_DEPTH)
        m.submodules.target = target = BusTarget()
        connect(m, flipped(self.host), target.bus)
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            read.addr.eq(target.address[2 : 2 + ceil_log2(depth)]),
            read.en.eq(target.enable),
            target.read_data.eq(read.data),
        ]

        arrived = data.View(_ENTRY, queue.w_data)
        any_mark = Cat(self.marks[unit].valid for unit in Unit).any()
        m.d.comb += [
            arrived.marks.eq(self.marks),
            arrived.counters.eq(self.counters),
            queue.w_en.eq(any_mark),
            self.level.eq(queue.level),
            self.idle.eq(queue.level == 0),
        ]

        entry = data.View(_ENTRY, queue.r_data)
        valid = Cat(entry.marks[unit].valid for unit in Unit)
        written = Signal(len(Unit))  # marks of the entry that are done
        word = Signal(range(words))
        place = Signal(range(depth + 1))  # of the next word; counted, for a multiplication by the words of a mark would take a DSP
        left = Signal(len(Unit))
        unit_bit = Signal(len(Unit))
        address = Signal(ADDRESS_BITS)
        m.d.comb += [left.eq(valid & ~written), unit_bit.eq(left & (~left + 1))]
        for unit in Unit:
            with m.If(unit_bit[unit]):
                m.d.comb += address.eq(entry.marks[unit].address)
        columns: dict[str, ValueLike] = {"address": address, **{name: entry.counters[name] for name in COUNTER_LAYOUT.members}}
        with m.Switch(word):
            for index, name in enumerate(MARK_WORDS):
                with m.Case(index):
                    m.d.comb += write.data.eq(columns[name])
        m.d.comb += [
            write.addr.eq(place),
            write.en.eq(queue.r_rdy & (self.count < self._capacity)),
        ]
        with m.If(write.en):
            m.d.sync += place.eq(place + 1)
        with m.If(queue.r_rdy):
            m.d.sync += word.eq(word + 1)
            with m.If(word == words - 1):
                m.d.sync += [word.eq(0), self.count.eq(self.count + 1), written.eq(written | unit_bit)]
                with m.If(left == unit_bit):
                    m.d.comb += queue.r_en.eq(1)
                    m.d.sync += written.eq(0)
        with m.If(self.clear):
            m.d.sync += [self.count.eq(0), place.eq(0)]
        return m
