"""The program's words, one at a time, and what the sequencer keeps of a header."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WORD_BITS, Opcode
from systola_hdl.common.layouts import HEADER
from systola_hdl.common.logic import is_below
from systola_hdl.compact.interfaces import ProgramFetch

__all__ = ["FETCHED", "KIND", "POST_OPCODES", "VARIANT_BITS", "Fetcher"]

#: What the POST unit of this engine executes.
POST_OPCODES = (Opcode.POST, Opcode.VECTOR, Opcode.TABLE)
#: Low bits of an opcode that tell them apart; the others are POST's.
VARIANT_BITS = max(opcode ^ Opcode.POST for opcode in POST_OPCODES).bit_length()

#: What a header begins: ``end``, something ``illegal``, or else an instruction of POST or of MATMUL.
KIND = data.StructLayout({"end": 1, "illegal": 1, "post": 1})
#: A word of the program, and what it is as a header.
FETCHED = data.StructLayout({"word": WORD_BITS, "kind": KIND})


class Fetcher(Component):
    """Fetch from the address that was loaded on.

    Members
    -------
    load: In(1), start_address: In(32)
        Begin there; an address outside the store is taken as its end.
    want: In(1)
        The word at ``address`` is wanted; stays until it comes.
    o: Out(stream.Signature(FETCHED, always_ready=True))
        That word, for one cycle.
    advance: In(1)
        With ``o.valid``: go on to the next word.
    address: Out
        Of the word.
    overrun: Out(1)
        The store has ended: there is no such word.
    fetch: Out(ProgramFetch)
        The program.
    """

    def __init__(self, config: Config) -> None:
        self._words = config.program_words
        super().__init__(
            {
                "load": In(1),
                "start_address": In(32),
                "want": In(1),
                "o": Out(stream.Signature(FETCHED, always_ready=True)),
                "advance": In(1),
                "address": Out(range(config.program_words + 1)),
                "overrun": Out(1),
                "fetch": Out(ProgramFetch(config)),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        requested = Signal()
        m.d.comb += [
            self.overrun.eq(self.address == self._words),
            self.fetch.valid.eq(self.want & ~self.overrun & ~requested),
            self.fetch.address.eq(self.address),
            self.o.valid.eq(self.fetch.data_valid),
            self.o.payload.word.eq(self.fetch.data),
        ]
        m.d.sync += requested.eq((requested & ~self.o.valid) | (self.fetch.valid & self.fetch.ready))
        with m.If(self.load):
            m.d.sync += self.address.eq(Mux(is_below(self.start_address, self._words), self.start_address, self._words))
        with m.Elif(self.o.valid & self.advance):
            m.d.sync += self.address.eq(self.address + 1)

        header, kind = data.View(HEADER, self.fetch.data), self.o.payload.kind
        m.d.comb += [kind.end.eq(header.opcode == Opcode.END), kind.illegal.eq(1)]
        with m.Switch(header.opcode):
            with m.Case(Opcode.END, Opcode.MATMUL):
                m.d.comb += kind.illegal.eq(0)
            with m.Case(*POST_OPCODES):
                m.d.comb += [kind.illegal.eq(0), kind.post.eq(1)]
        return m
