"""Memory of the program: fetched by the sequencer, written and read by the host."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.common.memory_ports import BeatRead, BeatWrite
from systola_hdl.host.bus import Bus
from systola_hdl.host.bus_target import BusTarget

__all__ = ["ProgramStore"]


class ProgramStore(Component):
    """``config.program_words`` words of 32 bits with one read port, so that it takes no more block RAM than its bits
    need.

    A fetch always wins the read port; the host's access waits for a cycle without one (there are many: the sequencer
    stops fetching when its issue slots are full, and when a program ends).

    Members
    -------
    fetch_enable: In(1), fetch_address: In
        Read a word; the address counts words.
    fetch_data: Out(32)
        The word, one cycle after ``fetch_enable``; only in that cycle, as the host's reads change it.
    host:
        The host's access; the address is the byte offset in the region.
    dma_read, dma_write:
        :class:`BeatRead` and :class:`BeatWrite`, flipped; only with ``config.dma``. The host goes first, and a beat
        takes two cycles: its low word's, then its high word's. A beat that was read comes two cycles after it was
        taken.
    """

    def __init__(self, config: Config) -> None:
        self._words = config.program_words
        self._dma = config.dma
        members = {
            "fetch_enable": In(1),
            "fetch_address": In(ceil_log2(config.program_words)),
            "fetch_data": Out(32),
            "host": In(Bus()),
        }
        if config.dma:
            members["dma_read"] = In(BeatRead(4 * config.program_words))
            members["dma_write"] = In(BeatWrite(4 * config.program_words))
        super().__init__(members)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=self._words, init=[])
        m.submodules.target = target = BusTarget()
        connect(m, flipped(self.host), target.bus)
        write, read = memory.write_port(), memory.read_port()
        word = target.address[2 : 2 + ceil_log2(self._words)]
        read_word, writes, write_word, written = word, target.enable & target.write, word, target.data
        if self._dma:
            dma_read_word = self._build_dma_read(m, target.enable, read.data)
            dma_writes, dma_write_word, dma_written = self._build_dma_write(m, target.enable)
            read_word = Mux(target.enable, word, dma_read_word)
            writes = writes | dma_writes
            write_word, written = Mux(target.enable, word, dma_write_word), Mux(target.enable, target.data, dma_written)
        m.d.comb += [
            target.grant.eq(~self.fetch_enable),
            write.addr.eq(write_word),
            write.data.eq(written),
            write.en.eq(writes),
            read.addr.eq(Mux(self.fetch_enable, self.fetch_address, read_word)),
            read.en.eq(1),
            self.fetch_data.eq(read.data),
            target.read_data.eq(read.data),
        ]
        return m

    def _build_dma_read(self, m: Module, host: Value, read_data: Value) -> Value:
        """Which word the DMA reads, in a cycle without a fetch or the host."""
        dma, high = self.dma_read, Signal()
        turn, low_taken, high_taken = Signal(), Signal(), Signal()
        m.d.comb += [turn.eq(dma.valid & ~self.fetch_enable & ~host), dma.ready.eq(turn & high)]
        m.d.sync += [high.eq(high ^ turn), low_taken.eq(turn & ~high), high_taken.eq(turn & high), dma.data_valid.eq(high_taken)]
        with m.If(low_taken):
            m.d.sync += dma.data[:32].eq(read_data)
        with m.If(high_taken):
            m.d.sync += dma.data[32:].eq(read_data)
        return Cat(high, dma.address[3:])

    def _build_dma_write(self, m: Module, host: Value) -> tuple[Value, Value, Value]:
        """Whether the DMA writes a word in this cycle, which, and its data."""
        dma, high = self.dma_write, Signal()
        turn = Signal()
        m.d.comb += [turn.eq(dma.valid & ~host), dma.ready.eq(turn & high)]
        m.d.sync += high.eq(high ^ turn)
        return turn & Mux(high, dma.mask[4], dma.mask[0]), Cat(high, dma.address[3:]), dma.data.word_select(high, 32)
