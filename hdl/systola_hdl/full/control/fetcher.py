"""Prefetch of program words."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WORD_BITS
from systola_hdl.host.trace import ADDRESS_BITS

__all__ = ["Fetcher"]

#: Words fetched and not yet presented, at most: also the cycles from a word's fetch to the next fetch for its entry.
_DEPTH = 4


class Fetcher(Component):
    """Present the program's words in order, from ``start_address`` on, and fetch ahead. Throughput is about four words
    in five cycles.

    Between the program store and the decoder lie two registers and a queue, because the output of the block RAM comes
    late in its cycle.

    Members
    -------
    start: In(1), start_address: In(32)
        Begin; the first word is there 5 cycles later.
    run: In(1)
        Fetch.
    valid: Out(1), word: Out(32), address: Out(17)
        The word and its address.
    overrun: Out(1)
        With ``valid``: there is no such word, the program store has ended.
    consume: In(1)
        Go on to the next word.
    fetch_enable, fetch_address: Out, fetch_data: In(32)
        The program store.
    """

    def __init__(self, config: Config) -> None:
        self._words = config.program_words
        super().__init__(
            {
                "start": In(1),
                "start_address": In(32),
                "run": In(1),
                "valid": Out(1),
                "word": Out(WORD_BITS),
                "address": Out(ADDRESS_BITS),
                "overrun": Out(1),
                "consume": In(1),
                "fetch_enable": Out(1),
                "fetch_address": Out(ceil_log2(config.program_words)),
                "fetch_data": In(WORD_BITS),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # After an error or before a new start, words are left in the queue and on their way to it: they are discarded.
        m.submodules.queue = queue = ResetInserter(self.start)(SyncFIFO(width=WORD_BITS + 1, depth=_DEPTH))
        following, ended, room = Signal(range(self._words)), Signal(), Signal(range(_DEPTH + 1), init=_DEPTH)
        issue, issued, issued_ended, arrived, pop = Signal(), Signal(), Signal(), Signal(), Signal()
        word, overrun = Signal(WORD_BITS), Signal()
        m.d.comb += [
            issue.eq(self.run & (room != 0)),
            self.fetch_enable.eq(issue & ~ended),
            self.fetch_address.eq(following),
            queue.w_en.eq(arrived),
            queue.w_data.eq(Cat(word, overrun)),
            pop.eq(queue.r_rdy & (~self.valid | self.consume)),
            queue.r_en.eq(pop),
        ]
        # The store's output is valid for one cycle only, and late in it: it goes straight into a register.
        m.d.sync += [
            issued.eq(issue),
            issued_ended.eq(ended),
            arrived.eq(issued),
            word.eq(self.fetch_data),
            overrun.eq(issued_ended),
        ]
        m.d.sync += room.eq(room - issue + pop)
        with m.If(issue):
            m.d.sync += following.eq(following + 1)
            with m.If(following == self._words - 1):
                m.d.sync += ended.eq(1)
        with m.If(self.consume):
            m.d.sync += self.valid.eq(0)
        with m.If(self.valid & self.consume):
            m.d.sync += self.address.eq(self.address + 1)
        with m.If(pop):
            m.d.sync += [self.valid.eq(1), Cat(self.word, self.overrun).eq(queue.r_data)]
        with m.If(self.start):
            m.d.sync += [self.valid.eq(0), issued.eq(0), arrived.eq(0), room.eq(_DEPTH)]
            m.d.sync += [following.eq(self.start_address), ended.eq(0), self.address.eq(self.start_address)]
            with m.If(self.start_address >= self._words):
                m.d.sync += [ended.eq(1), self.address.eq(self._words)]
        return m
