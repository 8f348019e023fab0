"""Trace memory: a snapshot of the counters whenever a marked instruction completes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Unit
from systola_firmware.spec.memory_map import MARK_WORDS
from systola_hdl.cells.block_memory import BlockMemory
from systola_hdl.host.bus import Bus
from systola_hdl.host.bus_target import BusTarget
from systola_hdl.host.counters import COUNTER_LAYOUT

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

    A mark is :data:`~systola_firmware.spec.memory_map.MARK_WORDS` words and takes as many cycles to write, so snapshots
    wait in a queue of :data:`QUEUE_DEPTH` entries; an entry holds the marks of all units of one cycle, written in the
    order of the units' numbers. Nothing is lost while at most ``QUEUE_DEPTH - level`` instructions with marks are
    executing.

    Members
    -------
    clear: In(1)
        Forget all marks; only while ``idle``.
    marks: In(MARK_LAYOUT)
        Completions of this cycle.
    counters: In(COUNTER_LAYOUT)
        The counters, a cycle late, as they come from :class:`~systola_hdl.host.counters.Counters`.
    level: Out
        Entries in the queue, the one being pushed included.
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
        m.submodules.queue = queue = SyncFIFO(width=_ENTRY.size, depth=QUEUE_DEPTH)
        m.submodules.target = target = BusTarget(read_latency=BlockMemory.read_latency)
        connect(m, flipped(self.host), target.bus)
        writes, write_address, written = Signal(), Signal(ceil_log2(depth)), Signal(32)
        if depth > 0:
            m.submodules.memory = memory = BlockMemory(32, depth)
            m.d.comb += [
                memory.read_address.eq(target.address[2:]),
                target.read_data.eq(memory.read_data),
                memory.write_enable.eq(writes),
                memory.write_address.eq(write_address),
                memory.write_data.eq(written),
            ]

        # The counters lag behind by a cycle, so the marks wait for them.
        arriving, marks = data.View(_ENTRY, queue.w_data), Signal(MARK_LAYOUT)
        arrived = Signal()
        m.d.sync += [marks.eq(self.marks), arrived.eq(Cat(self.marks[unit].valid for unit in Unit).any())]
        m.d.comb += [
            arriving.marks.eq(marks),
            arriving.counters.eq(self.counters),
            queue.w_en.eq(arrived),
            self.level.eq(queue.level + queue.w_en),
        ]

        # The counters of the entry being written rotate by a word, so that the next word to write is always the lowest.
        entry = data.View(_ENTRY, queue.r_data)
        left, addresses = Signal(len(Unit)), Signal(data.ArrayLayout(ADDRESS_BITS, len(Unit)))
        counters = Signal(COUNTER_LAYOUT)
        word, last_word = Signal(range(words)), Signal()
        place = Signal(range(depth + 1))  # address of the next word; counted, as a multiplication would take a DSP
        last_kept, full = Signal(), Signal(init=self._capacity == 0)
        unit_bit = Signal(len(Unit))
        m.d.comb += [
            unit_bit.eq(left & (~left + 1)),
            queue.r_en.eq(left == 0),
            self.idle.eq(~queue.w_en & (queue.level == 0) & (left == 0) & ~writes),
        ]
        address = Signal(ADDRESS_BITS)
        for unit in Unit:
            with m.If(unit_bit[unit]):
                m.d.comb += address.eq(addresses[unit])
        m.d.sync += [last_kept.eq(self.count == self._capacity - 1), last_word.eq(word == words - 2)]
        m.d.sync += [
            writes.eq((left != 0) & ~full),
            write_address.eq(place),
            written.eq(Mux(word == 0, address, counters.as_value()[:32])),
        ]
        with m.If(left == 0):
            with m.If(queue.r_rdy):
                m.d.sync += [left.eq(Cat(entry.marks[unit].valid for unit in Unit)), counters.eq(entry.counters)]
                m.d.sync += [addresses[unit].eq(entry.marks[unit].address) for unit in Unit]
        with m.Else():
            m.d.sync += word.eq(word + 1)
            with m.If(~full):
                m.d.sync += place.eq(place + 1)
            with m.If(word != 0):
                m.d.sync += counters.eq(counters.as_value().rotate_right(32))
            with m.If(last_word):
                m.d.sync += [word.eq(0), left.eq(left & ~unit_bit), self.count.eq(self.count + 1), full.eq(full | last_kept)]
        with m.If(self.clear):
            m.d.sync += [self.count.eq(0), place.eq(0), full.eq(self._capacity == 0)]
        return m
