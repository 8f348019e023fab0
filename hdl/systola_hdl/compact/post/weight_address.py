"""Addresses in the weight memory that an instruction of the compact post-processor brings: parameters or tables."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import Opcode
from systola_hdl.compact.interfaces import OPCODE_BITS, PAYLOAD_WORD
from systola_hdl.compact.words import field_of, word_of

__all__ = ["WEIGHT_ADDRESS_BITS", "WeightAddress"]

#: Width of a word address: one bit more than any inside the memory.
WEIGHT_ADDRESS_BITS = 15
#: Entries of the memory for remembered addresses; more than there are, for a block RAM.
_ENTRIES = 16


class WeightAddress(Component):
    """One address that moves, of the next parameter word or of a table, and three that are remembered in block RAM:
    those of both tables, and that of a POST's first parameters.

    Attributes
    ----------
    words, opcode:
        See :class:`~systola_hdl.compact.interfaces.UnitControl`; all words come in order.
    is_post:
        The instruction that runs is a POST.
    address:
        Word of the weight memory: of a POST's parameters or a TABLE's source, or, with the highest bit set, outside of
        the memory.
    advance:
        For one cycle: ``address`` moves to the next word.
    remember, recall:
        For one cycle: ``address`` is remembered; ``address`` is what was remembered.
    set_table, is_second_table:
        For one cycle: ``address`` is where the first table is, or, if ``is_second_table``, that plus a table's length
        is where the second is.
    table_number, kept:
        ``kept`` is, a cycle later, where that table is; while ``is_post``, what was remembered.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "words": In(stream.Signature(PAYLOAD_WORD, always_ready=True)),
                "opcode": In(OPCODE_BITS),
                "is_post": In(1),
                "address": Out(WEIGHT_ADDRESS_BITS),
                "advance": In(1),
                "remember": In(1),
                "recall": In(1),
                "set_table": In(1),
                "is_second_table": In(1),
                "table_number": In(1),
                "kept": Out(WEIGHT_ADDRESS_BITS),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        word, index = self.words.payload.word, self.words.payload.index
        table = (self.opcode != Opcode.POST) & (self.opcode != Opcode.VECTOR)
        wanted = Mux(table, index == 0, index == word_of(Opcode.POST, "parameters"))
        following = Signal(WEIGHT_ADDRESS_BITS)
        m.d.comb += following.eq(self.address + 1)
        given = field_of(Opcode.POST, "parameters", word)
        with m.If(self.words.valid & wanted):
            inside = WEIGHT_ADDRESS_BITS - 1
            m.d.sync += self.address.eq(Cat(given[:inside], given[inside:].any()))
        with m.Elif(self.recall):
            m.d.sync += self.address.eq(self.kept)
        with m.Elif(self.advance):
            m.d.sync += self.address.eq(following)
        m.submodules.memory = memory = Memory(shape=WEIGHT_ADDRESS_BITS, depth=_ENTRIES, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.remember | self.set_table),
            write.addr.eq(Cat(self.is_second_table, self.remember)),
            write.data.eq(Cat(self.address[:8], self.address[8:] + self.is_second_table)),
            read.en.eq(1),
            read.addr.eq(Cat(self.table_number & ~self.is_post, self.is_post)),
            self.kept.eq(read.data),
        ]
        return m
