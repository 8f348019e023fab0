"""Decoder of the compact post-processor: words of an instruction become fields and a nest of loops."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS, Combine, Opcode, Rounding
from systola_hdl.common.field_rules import bounds_of, outside
from systola_hdl.compact.address_generator import AddressGenerator, Nest, item_layout
from systola_hdl.compact.interfaces import OPCODE_BITS, PAYLOAD_WORD
from systola_hdl.compact.post.layouts import FIELDS
from systola_hdl.compact.words import field_of, word_of

__all__ = ["ITEM_LAYOUT", "Instruction"]

#: Bits of an instruction's first word that are flags; those below are an address.
_FLAGS_FROM = 20
#: Entries of a memory for one word; more than there are, for a block RAM.
_ENTRIES = 16
#: Entry of the address generator for a group loop of whole words.
_WORDS_ENTRY = 16


def _loop(opcode: Opcode, name: str) -> int:
    return word_of(opcode, f"{name}_count")


def _vector_nest(loops: tuple[tuple[int | None, ...], ...]) -> Nest:
    """A nest for the three addresses of VECTOR, ``loops`` inside of x and y."""
    outer = tuple(
        (_loop(Opcode.VECTOR, loop), word_of(Opcode.VECTOR, f"{loop}_step1"), word_of(Opcode.VECTOR, f"{loop}_step_out"))
        for loop in ("x", "y")
    )
    bases = tuple(word_of(Opcode.VECTOR, name) for name in ("source", "source1", "destination"))
    return Nest(bases, loops + outer)


_GROUP = (_loop(Opcode.VECTOR, "group"),) * 3
_TAPS = tuple((_loop(Opcode.VECTOR, loop), None, None) for loop in ("t0", "t1"))
_POST_NEST = Nest(
    (word_of(Opcode.POST, "destination"), None, None),
    tuple((_loop(Opcode.POST, loop), None, None) for loop in ("x", "y", "group", "block")),
)
#: POST; VECTOR with taps, without, and a fill of whole words.
_NESTS = (_POST_NEST, _vector_nest((*_TAPS, _GROUP)), _vector_nest((_GROUP,)), _vector_nest(((_WORDS_ENTRY,) * 3,)))
#: Words of VECTOR with a base or a step alone.
_LOW_WORDS = tuple(
    word_of(Opcode.VECTOR, name) for name in ("source", "source1", "destination", "x_step1", "x_step_out", "y_step1", "y_step_out")
)


#: An item of the loops. Its address 0 is a POST's destination; of a VECTOR, addresses are source, source1 and
#: destination.
ITEM_LAYOUT = item_layout(_NESTS)


class Instruction(Component):
    """Takes the words of an instruction as they come, checks them, and makes the items of its loops.

    Attributes
    ----------
    words, opcode, start:
        See :class:`~systola_hdl.compact.interfaces.UnitControl`; all words come in order.
    fields:
        From the cycle after ``start``: :data:`~systola_hdl.compact.post.layouts.FIELDS`.
    bad:
        A field breaks a rule; from the cycle after ``start``, until reset.
    begin:
        For one cycle, after ``start``: make the items of this POST or VECTOR.
    items:
        :data:`ITEM_LAYOUT`.
    first_tap, last_tap:
        The item is the first or last tap of its output (VECTOR).
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "words": In(stream.Signature(PAYLOAD_WORD, always_ready=True)),
                "opcode": In(OPCODE_BITS),
                "start": In(1),
                "fields": Out(FIELDS),
                "bad": Out(1),
                "begin": In(1),
                "items": Out(stream.Signature(ITEM_LAYOUT)),
                "first_tap": Out(1),
                "last_tap": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.generator = generator = AddressGenerator(_NESTS, all_ahead=False)
        connect(m, generator.o, flipped(self.items))
        word, index, valid = self.words.payload.word, self.words.payload.index, self.words.valid
        fields, output = self.fields, self.fields.output
        post, vector = self.opcode == Opcode.POST, self.opcode == Opcode.VECTOR
        is_post, is_vector, identity = Signal(), Signal(), Signal()
        with m.If(self.start):
            m.d.sync += [is_post.eq(post), is_vector.eq(vector)]

        # Flags of the first word, and what is requantized with.
        flags = Signal(32 - _FLAGS_FROM)
        first_word = Cat(Const(0, _FLAGS_FROM), flags)

        def flag(opcode: Opcode, name: str) -> Value:
            return field_of(opcode, name, first_word)

        with m.If(valid & (index == 0)):
            m.d.sync += flags.eq(word[_FLAGS_FROM:])
        rounding = Mux(is_post, flag(Opcode.POST, "rounding"), flag(Opcode.VECTOR, "rounding"))
        requantizes = flag(Opcode.VECTOR, "requantize")
        sources = flag(Opcode.VECTOR, "sources")
        m.d.comb += [
            fields.last_columns.eq(flag(Opcode.POST, "last_columns")),
            fields.is_post.eq(is_post),
            fields.is_vector.eq(is_vector),
            fields.per_channel.eq(is_post & flag(Opcode.POST, "per_channel")),
            output.wide.eq(is_post & flag(Opcode.POST, "wide")),
            identity.eq(is_vector & ~requantizes),
            fields.identity.eq(identity),
            output.is_double.eq((rounding == Rounding.DOUBLE) & ~identity),
            output.is_single.eq((rounding == Rounding.SINGLE) | identity),
            fields.fills.eq(sources == 0),
            fields.two_sources.eq(sources[1]),
            fields.takes_maximum.eq(flag(Opcode.VECTOR, "combine") == Combine.MAX),
            fields.table.eq(flag(Opcode.VECTOR, "table")),
            fields.tables.eq(field_of(Opcode.TABLE, "tables", first_word)),
        ]
        self._build_range(m)
        self._build_rules(m, flag)
        by_words, has_taps = self._build_loops(m, generator)
        m.d.comb += [
            fields.by_words.eq(by_words),
            fields.has_taps.eq(has_taps),
            generator.start.eq(self.begin),
            generator.nest.eq(Mux(is_post, 0, Mux(has_taps, 1, Mux(by_words, 3, 2)))),
            self.first_tap.eq(~has_taps | self.items.payload.first[:2].all()),
            self.last_tap.eq(~has_taps | self.items.payload.last[:2].all()),
        ]
        return m

    def _build_range(self, m: Module) -> None:
        """Zero point and bounds, which both opcodes have in the same bits of a word, in block RAM; there two cycles
        after the word."""
        word, index = self.words.payload.word, self.words.payload.index
        m.submodules.range_memory = range_memory = Memory(shape=24, depth=_ENTRIES, init=[])
        write, read = range_memory.write_port(), range_memory.read_port()
        names = ("zero_point", "minimum", "maximum")
        m.d.comb += [
            read.en.eq(1),
            write.data.eq(word[:24]),
            *(self.fields.output[name].eq(field_of(Opcode.POST, name, read.data)) for name in names),
        ]
        is_post = self.opcode == Opcode.POST
        range_word = Mux(is_post, index == word_of(Opcode.POST, "shift"), index == word_of(Opcode.VECTOR, "shift"))
        with m.If(self.words.valid & range_word):
            m.d.comb += write.en.eq(1)

    def _build_loops(self, m: Module, generator: AddressGenerator) -> tuple[Value, Value]:
        """Words for the address generator; whether a fill can be made of whole words, and whether an output has more
        than one tap."""
        word, index, valid = self.words.payload.word, self.words.payload.index, self.words.valid
        written = generator.words.payload
        vector = self.opcode == Opcode.VECTOR
        group = field_of(Opcode.VECTOR, "group_count", word)
        words = Signal(COUNT_BITS - 2)
        by_words, has_taps = Signal(), Signal()
        is_low = Signal()
        spare = index == word_of(Opcode.VECTOR, "shift")  # no loop: the time to write the group loop in words
        with m.Switch(index):
            with m.Case(0):
                m.d.comb += is_low.eq(1)
            with m.Case(*_LOW_WORDS[1:]):
                m.d.comb += is_low.eq(vector)
        m.d.comb += [
            generator.words.valid.eq(valid),
            written.entry.eq(Mux(spare, _WORDS_ENTRY, index)),
            written.low.eq(is_low),
            written.word.eq(Mux(spare, Cat(words, Const(0, 2), Const(4, 20)), word)),
        ]
        with m.If(valid):
            with m.Switch(index):
                with m.Case(0):
                    m.d.sync += by_words.eq(field_of(Opcode.VECTOR, "sources", word) == 0)
                with m.Case(*(word_of(Opcode.VECTOR, name) for name in ("destination", "x_step_out", "y_step_out"))):
                    with m.If(word[:2] != 0):
                        m.d.sync += by_words.eq(0)
                with m.Case(_GROUP[0]):
                    m.d.sync += words.eq(group[2:])
                    with m.If((group[:2] != 0) | (field_of(Opcode.VECTOR, "group_step", word) != 1)):
                        m.d.sync += by_words.eq(0)
            with m.If(index == 0):
                m.d.sync += has_taps.eq(0)
            for loop in ("t0", "t1"):
                with m.If((index == _loop(Opcode.VECTOR, loop)) & (word[:COUNT_BITS] != 1)):
                    m.d.sync += has_taps.eq(1)
        return by_words, has_taps

    def _build_rules(self, m: Module, flag: Callable[[Opcode, str], Value]) -> None:
        """Gather in ``bad`` the rules that the words break."""
        word, index, valid = self.words.payload.word, self.words.payload.index, self.words.valid
        post, vector = self.opcode == Opcode.POST, self.opcode == Opcode.VECTOR
        broken = Signal()

        def is_outside(opcode: Opcode, name: str) -> Value:
            return outside(opcode, name, field_of(opcode, name, word), self.config)

        # Both opcodes have it in the same bits.
        bad_shift = is_outside(Opcode.POST, "shift")
        with m.If(post):
            with m.Switch(index):
                with m.Case(0):
                    m.d.comb += broken.eq(is_outside(Opcode.POST, "last_columns") | is_outside(Opcode.POST, "rounding"))
                with m.Case(*(_loop(Opcode.POST, loop) for loop in ("x", "y", "group", "block"))):
                    m.d.comb += broken.eq(is_outside(Opcode.POST, "x_count"))
                with m.Case(word_of(Opcode.POST, "shift")):
                    m.d.comb += broken.eq(bad_shift & ~flag(Opcode.POST, "per_channel"))
        with m.Elif(vector):
            with m.Switch(index):
                with m.Case(0):
                    requantizes = field_of(Opcode.VECTOR, "requantize", word)
                    m.d.comb += broken.eq(
                        is_outside(Opcode.VECTOR, "sources") | (requantizes & is_outside(Opcode.VECTOR, "rounding"))
                    )
                with m.Case(word_of(Opcode.VECTOR, "last_lanes")):
                    # One lane: a comparison with the one legal value is less than two.
                    (lanes, _) = bounds_of(Opcode.VECTOR, "last_lanes", self.config)
                    m.d.comb += broken.eq(field_of(Opcode.VECTOR, "last_lanes", word) != lanes)
                with m.Case(*(_loop(Opcode.VECTOR, loop) for loop in ("t0", "t1"))):
                    # The rule of the product: where it is at most 1, so is each count.
                    count = field_of(Opcode.VECTOR, "t0_count", word)
                    m.d.comb += broken.eq(
                        is_outside(Opcode.VECTOR, "t0_count") | ((count != 1) & (flag(Opcode.VECTOR, "sources") != 1))
                    )
                with m.Case(*(_loop(Opcode.VECTOR, loop) for loop in ("group", "x", "y"))):
                    m.d.comb += broken.eq(is_outside(Opcode.VECTOR, "x_count"))
                with m.Case(word_of(Opcode.VECTOR, "shift")):
                    m.d.comb += broken.eq(bad_shift & flag(Opcode.VECTOR, "requantize"))
        with m.Else():
            m.d.comb += broken.eq(is_outside(Opcode.TABLE, "tables"))
        with m.If(valid):
            m.d.sync += self.bad.eq(broken | self.bad)  # until reset
