"""What the compact post-processor keeps of an instruction: loops in the walker, some fields in registers, whether it is
sound."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS, Combine, Opcode, Rounding
from systola_hdl.common.field_rules import bounds_of, outside
from systola_hdl.compact.address_generator import AddressGenerator, Nest
from systola_hdl.compact.interfaces import OPCODE_BITS, WORD_INDEX
from systola_hdl.compact.words import field_of, word_of

__all__ = ["PLACE_BITS", "Instruction"]

#: Width of a word address: one bit more than any inside the memory.
PLACE_BITS = 15
#: Bits of an instruction's first word that are flags; those below are an address.
_FLAGS_FROM = 20
#: Words of a memory for tables and parameters; more than there are, for a block RAM.
_KEPT_PLACES = 16
#: Slot of the walker for a group loop of whole words.
_WORDS_SLOT = 16


def _loop(opcode: Opcode, name: str) -> int:
    return word_of(opcode, f"{name}_count")


def _vector_nest(loops: tuple[tuple[int | None, ...], ...]) -> Nest:
    """A walk of the three addresses of VECTOR, ``loops`` inside of x and y."""
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
_NESTS = (_POST_NEST, _vector_nest((*_TAPS, _GROUP)), _vector_nest((_GROUP,)), _vector_nest(((_WORDS_SLOT,) * 3,)))
#: Words of VECTOR with a base or a step alone.
_LOW_WORDS = tuple(
    word_of(Opcode.VECTOR, name) for name in ("source", "source1", "destination", "x_step1", "x_step_out", "y_step1", "y_step_out")
)


class Instruction(Component):
    """Takes the words of an instruction as they come, and walks its loops.

    Attributes
    ----------
    word_valid, word, word_index, opcode, start:
        See :class:`~systola_hdl.compact.interfaces.UnitControl`; all words come in order.
    is_post, is_vector:
        The opcode; neither is TABLE. From the cycle after ``start``, like everything that follows.
    bad:
        A field breaks a rule.
    place:
        Word of the weight memory: of a POST's parameters or a TABLE's source, or :attr:`PLACE_BITS` bits beyond the
        memory. It moves by one on ``advance``; ``remember`` keeps it, and ``recall`` brings it back.
    set_table, is_second_table:
        For one cycle: ``place`` is where the first table is, or, if ``is_second_table``, that plus a table's length is
        where the second is.
    table_number, kept:
        Where that table is, a cycle later; while :attr:`is_post`, what was remembered.
    first_tap, last_tap:
        The walker's item is the first or last tap of its output (VECTOR).

    last_columns, tables:
        Fields of a POST and a TABLE; of another instruction they mean nothing. So with the next ones.
    per_channel, wide:
        Fields of a POST; low for other instructions.
    zero_point, minimum, maximum:
        Fields of a POST or VECTOR, two cycles after the word that has them.
    identity:
        A VECTOR that does not requantize: multiplier and exponent are to be those of the identity.
    is_double, is_single:
        The rounding: DOUBLE; SINGLE, with which the identity is computed too. Neither is UP.
    fills:
        A VECTOR without operands.
    by_words:
        Such a VECTOR whose runs are whole words of four bytes, in steps of one: it is written word by word.
    two_sources:
        A VECTOR of two operands.
    has_taps:
        A VECTOR with more than one tap an output; valid from its ``t1`` word on.
    takes_maximum:
        A VECTOR that combines by MAX, not by SUM.
    table:
        A VECTOR that maps each operand byte through its table.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Its address 0 is a POST's destination; of a VECTOR, addresses are source, source1 and destination.
        self.walker = AddressGenerator(_NESTS, all_ahead=False)
        super().__init__(
            {
                "word_valid": In(1),
                "word": In(32),
                "word_index": In(WORD_INDEX),
                "opcode": In(OPCODE_BITS),
                "start": In(1),
                "is_post": Out(1),
                "is_vector": Out(1),
                "bad": Out(1),
                "last_columns": Out(3),
                "per_channel": Out(1),
                "wide": Out(1),
                "identity": Out(1),
                "is_double": Out(1),
                "is_single": Out(1),
                "zero_point": Out(signed(8)),
                "minimum": Out(signed(8)),
                "maximum": Out(signed(8)),
                "fills": Out(1),
                "by_words": Out(1),
                "two_sources": Out(1),
                "has_taps": Out(1),
                "takes_maximum": Out(1),
                "table": Out(1),
                "first_tap": Out(1),
                "last_tap": Out(1),
                "place": Out(PLACE_BITS),
                "advance": In(1),
                "remember": In(1),
                "recall": In(1),
                "tables": Out(2),
                "set_table": In(1),
                "is_second_table": In(1),
                "table_number": In(1),
                "kept": Out(PLACE_BITS),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.walker = walker = self.walker
        word, index, valid = self.word, self.word_index, self.word_valid
        post, vector = self.opcode == Opcode.POST, self.opcode == Opcode.VECTOR
        with m.If(self.start):
            m.d.sync += [self.is_post.eq(post), self.is_vector.eq(vector)]

        # Flags of the first word, and what is requantized with.
        flags = Signal(32 - _FLAGS_FROM)
        first_word = Cat(Const(0, _FLAGS_FROM), flags)

        def flag(opcode: Opcode, name: str) -> Value:
            return field_of(opcode, name, first_word)

        with m.If(valid & (index == 0)):
            m.d.sync += flags.eq(word[_FLAGS_FROM:])
        rounding = Mux(self.is_post, flag(Opcode.POST, "rounding"), flag(Opcode.VECTOR, "rounding"))
        requantizes = flag(Opcode.VECTOR, "requantize")
        sources = flag(Opcode.VECTOR, "sources")
        m.d.comb += [
            self.last_columns.eq(flag(Opcode.POST, "last_columns")),
            self.per_channel.eq(self.is_post & flag(Opcode.POST, "per_channel")),
            self.wide.eq(self.is_post & flag(Opcode.POST, "wide")),
            self.identity.eq(self.is_vector & ~requantizes),
            self.is_double.eq((rounding == Rounding.DOUBLE) & ~self.identity),
            self.is_single.eq((rounding == Rounding.SINGLE) | self.identity),
            self.fills.eq(sources == 0),
            self.two_sources.eq(sources[1]),
            self.takes_maximum.eq(flag(Opcode.VECTOR, "combine") == Combine.MAX),
            self.table.eq(flag(Opcode.VECTOR, "table")),
            self.tables.eq(field_of(Opcode.TABLE, "tables", first_word)),
        ]
        # What follows requantization, in block RAM, too.
        m.submodules.range_memory = range_memory = Memory(shape=24, depth=_KEPT_PLACES, init=[])
        range_write, range_read = range_memory.write_port(), range_memory.read_port()
        m.d.comb += [
            range_read.en.eq(1),
            range_write.data.eq(word[:24]),
            *(
                getattr(self, name).eq(field_of(Opcode.POST, name, range_read.data))
                for name in ("zero_point", "minimum", "maximum")
            ),
        ]
        range_word = Mux(post, index == word_of(Opcode.POST, "shift"), index == word_of(Opcode.VECTOR, "shift"))
        with m.If(valid & range_word):
            m.d.comb += range_write.en.eq(1)

        self._build_rules(m, flag)
        self._build_places(m)
        by_words = self._build_loops(m)
        m.d.comb += [
            self.by_words.eq(by_words),
            walker.nest.eq(Mux(self.is_post, 0, Mux(self.has_taps, 1, Mux(by_words, 3, 2)))),
            self.first_tap.eq(~self.has_taps | walker.first[:2].all()),
            self.last_tap.eq(~self.has_taps | walker.last[:2].all()),
        ]
        return m

    def _build_loops(self, m: Module) -> Value:
        """Words for the walker; whether a fill can be made of whole words."""
        word, index, valid, walker = self.word, self.word_index, self.word_valid, self.walker
        vector = self.opcode == Opcode.VECTOR
        group = field_of(Opcode.VECTOR, "group_count", word)
        words = Signal(COUNT_BITS - 2)
        by_words = Signal()
        is_low = Signal()
        spare = index == word_of(Opcode.VECTOR, "shift")  # no loop: the time to write the group loop in words
        with m.Switch(index):
            with m.Case(0):
                m.d.comb += is_low.eq(1)
            with m.Case(*_LOW_WORDS[1:]):
                m.d.comb += is_low.eq(vector)
        m.d.comb += [
            walker.write_valid.eq(valid),
            walker.write_slot.eq(Mux(spare, _WORDS_SLOT, index)),
            walker.write_low.eq(is_low),
            walker.write_word.eq(Mux(spare, Cat(words, Const(0, 2), Const(4, 20)), word)),
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
                m.d.sync += self.has_taps.eq(0)
            for loop in ("t0", "t1"):
                with m.If((index == _loop(Opcode.VECTOR, loop)) & (word[:COUNT_BITS] != 1)):
                    m.d.sync += self.has_taps.eq(1)
        return by_words

    def _build_rules(self, m: Module, flag: Callable[[Opcode, str], Value]) -> None:
        """Gather in ``bad`` the rules that the words break."""
        word, index, valid = self.word, self.word_index, self.word_valid
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

    def _build_places(self, m: Module) -> None:
        """Words of the weight memory."""
        word = self.word
        table = (self.opcode != Opcode.POST) & (self.opcode != Opcode.VECTOR)
        wanted = Mux(table, self.word_index == 0, self.word_index == word_of(Opcode.POST, "parameters"))
        following = Signal(PLACE_BITS)
        m.d.comb += following.eq(self.place + 1)
        given = field_of(Opcode.POST, "parameters", word)
        with m.If(self.word_valid & wanted):
            m.d.sync += self.place.eq(Cat(given[: PLACE_BITS - 1], given[PLACE_BITS - 1 :].any()))
        with m.Elif(self.recall):
            m.d.sync += self.place.eq(self.kept)
        with m.Elif(self.advance):
            m.d.sync += self.place.eq(following)
        # Both tables' places and the remembered one, in block RAM.
        m.submodules.memory = memory = Memory(shape=PLACE_BITS, depth=_KEPT_PLACES, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.remember | self.set_table),
            write.addr.eq(Cat(self.is_second_table, self.remember)),
            write.data.eq(Cat(self.place[:8], self.place[8:] + self.is_second_table)),
            read.en.eq(1),
            read.addr.eq(Cat(self.table_number & ~self.is_post, self.is_post)),
            self.kept.eq(read.data),
        ]
