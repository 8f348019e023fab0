"""Prefetch of program words."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.config import Config
from systola_firmware.isa import WORD_BITS
from systola_hdl.trace import ADDRESS_BITS

__all__ = ["Fetcher"]


class Fetcher(Component):
    """Present the program's words in order, one a cycle at best, from ``start_address`` on.

    Members
    -------
    start: In(1), start_address: In(32)
        Begin; the first word is there 2 cycles later.
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
        following, held, fresh = Signal(ADDRESS_BITS), Signal(WORD_BITS), Signal()
        advance, inside = Signal(), following < self._words
        m.d.comb += [
            advance.eq(self.run & (~self.valid | self.consume)),
            self.fetch_enable.eq(advance & inside),
            self.fetch_address.eq(following),
            # The store's output is good for one cycle only.
            self.word.eq(Mux(fresh, self.fetch_data, held)),
        ]
        m.d.sync += [fresh.eq(self.fetch_enable), held.eq(self.word)]
        with m.If(advance):
            m.d.sync += [self.valid.eq(1), self.address.eq(following), self.overrun.eq(~inside)]
            with m.If(inside):
                m.d.sync += following.eq(following + 1)
        with m.If(self.start):
            m.d.sync += [
                self.valid.eq(0),
                following.eq(Mux(self.start_address < self._words, self.start_address, self._words)),
            ]
        return m
