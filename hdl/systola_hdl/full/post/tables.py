"""Look-up tables of VECTOR: their memories and their loader."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_hdl.cells.block_memory import BlockMemory
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import WeightRead
from systola_hdl.full.memory.word_fetcher import WordFetcher

__all__ = ["TABLES", "TABLE_ENTRIES", "TABLE_WRITE", "LookUpTables", "TableLoader"]

#: Entries of a table, one a byte value; the byte's unsigned reading is the index.
TABLE_ENTRIES = 256
#: Tables: one for each operand.
TABLES = 2
#: An entry on its way to every lane. ``index`` counts through T0 and then T1.
TABLE_WRITE = data.StructLayout({"index": range(TABLES * TABLE_ENTRIES), "entry": signed(32)})


class LookUpTables(Component):
    """T0 and T1, once a lane, each copy in one memory of 512 × 32 bits (one block RAM).

    ``o`` is the entry of every lane's byte in table ``i_table``, :attr:`latency` cycles after both.

    Parameters
    ----------
    lanes:
        Number of copies, at least 1.

    Attributes
    ----------
    write:
        Entries for all lanes; visible to bytes given :attr:`write_latency` cycles later.
    i_table, i_bytes:
        Table number, the same for all lanes, and a byte a lane.
    o:
        int32 a lane.
    """

    #: Cycles from ``i_table`` and ``i_bytes`` to ``o``: the memory's.
    latency = BlockMemory.read_latency
    #: Cycles from ``write`` to the first bytes that see it: two registers of the broadcast, the second for each lane,
    #: and the memory.
    write_latency = 3

    def __init__(self, lanes: int) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        self.lanes = lanes
        super().__init__(
            {
                "write": In(stream.Signature(TABLE_WRITE, always_ready=True)),
                "i_table": In(range(TABLES)),
                "i_bytes": In(data.ArrayLayout(8, lanes)),
                "o": Out(data.ArrayLayout(signed(32), lanes)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        write = delayed(m, Cat(self.write.valid, self.write.payload), 1, "write", init=0)
        for lane in range(self.lanes):
            m.submodules[f"lane{lane}"] = memory = BlockMemory(signed(32), TABLES * TABLE_ENTRIES)
            enable = Signal(name=f"enable{lane}", attrs={"keep": 1})
            entry = Signal(TABLE_WRITE, name=f"entry{lane}", reset_less=True, attrs={"keep": 1})
            m.d.sync += Cat(enable, entry).eq(write)
            m.d.comb += [
                memory.write_enable.eq(enable),
                memory.write_address.eq(entry.index),
                memory.write_data.eq(entry.entry),
                memory.read_address.eq(Cat(self.i_bytes[lane], self.i_table)),
                self.o[lane].eq(memory.read_data),
            ]
        return m


class TableLoader(Component):
    """Executes TABLE: reads one or two tables from the weight memory and delivers one entry a cycle.

    The next words, up to :attr:`words`, are read while the entries of the last one leave; if these words together have
    fewer entries than the memory has cycles of latency, the loader waits for them.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress; ``address`` (words) and ``tables`` (1 or 2) are taken then.
    finished:
        Every entry since the last ``start`` has left; low from the cycle after ``start``.
    outside:
        The next word lies outside the weight memory; stays until reset.
    o:
        Entries, T0 first.
    weights:
        Port of the weight memory.
    """

    #: Words requested or waiting.
    words = 4

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(24),
                "tables": In(2),
                "finished": Out(1),
                "outside": Out(1),
                "o": Out(stream.Signature(TABLE_WRITE, always_ready=True)),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        word_entries = self.config.weight_word_bytes // 4
        table_words = TABLE_ENTRIES // word_entries
        m.submodules.fetcher = fetcher = WordFetcher(self.config, limit=self.words)
        m.submodules.queue = queue = SyncFIFO(width=len(self.weights.data.as_value()), depth=self.words)
        connect(m, fetcher.weights, flipped(self.weights))
        m.d.comb += [
            self.outside.eq(fetcher.outside),
            fetcher.start.valid.eq(self.start),
            fetcher.start.payload.address.eq(self.address),
            fetcher.start.payload.count.eq(self.tables * table_words),
            queue.w_en.eq(self.weights.data_valid),
            queue.w_data.eq(self.weights.data),
        ]

        # The entries of a word leave one by one; `left` has a one for each that remains.
        entries = Signal(data.ArrayLayout(signed(32), word_entries), reset_less=True)
        left = Signal(word_entries)
        is_last = ~left[1] if word_entries > 1 else Const(1)  # or none remains at all
        index = Signal(range(TABLES * TABLE_ENTRIES + 1))
        end = Signal(range(TABLES * TABLE_ENTRIES + 1))
        load = Signal()
        m.d.comb += [
            load.eq(queue.r_rdy & is_last),
            queue.r_en.eq(load),
            fetcher.consumed.eq(load),
            self.o.valid.eq(left[0]),
            self.o.payload.index.eq(index),
            self.o.payload.entry.eq(entries[0]),
        ]
        m.d.sync += [
            left.eq(Mux(load, -1, left >> 1)),
            entries.eq(Mux(load, queue.r_data, entries.as_value() >> 32)),
            index.eq(index + left[0]),
            self.finished.eq((index == end) & ~self.start),
        ]
        with m.If(self.start):
            m.d.sync += [index.eq(0), end.eq(self.tables * TABLE_ENTRIES)]
        return m
