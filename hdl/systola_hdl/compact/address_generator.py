"""Address generator: nested affine loops whose outer levels live in a small memory, in the words of the instruction
itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import C, Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from systola_firmware.spec.isa import COUNT_BITS, STEP_BITS

__all__ = ["LOOP_WORD", "AddressGenerator", "Nest", "item_layout"]

#: What the generator's memory holds: a loop word of the instruction set (count, step), or the iterations that are left
#: of a loop and the address at which the present one began.
_WORD = data.StructLayout({"low": COUNT_BITS, "high": signed(STEP_BITS)})
#: Loops and addresses for which there is room beside the entries of the instruction's words.
_MOST_LOOPS, _MOST_ADDRESSES = 8, 4
#: Entries of the generator's memory for words of instructions.
_ENTRIES = 32
#: A word of an instruction, and the entry it goes to. A loop word has the count in bits 11:0 and the step in bits
#: 31:12; with ``low`` the value (a base, or a step without a count) is in bits 19:0.
LOOP_WORD = data.StructLayout({"entry": range(_ENTRIES), "word": 32, "low": 1})


@dataclass(frozen=True)
class Nest:
    """Where the words of one kind of loop nest lie in the generator's memory, as numbers of its entries: those that
    ``words.payload.entry`` takes.

    Parameters
    ----------
    bases:
        For each address, the entry of its first value, or None if the nest does not use it.
    loops:
        Loops, innermost first; for each address the entry of its step, or None if the loop does not move it. The entry
        for address 0 holds the count as well, so it is never None. An address that a loop does not move is not moved by
        the loops inside it either, nor are the addresses after it. All addresses that the innermost loop moves, it
        moves by the step of address 0.
    """

    bases: tuple[int | None, ...]
    loops: tuple[tuple[int | None, ...], ...]

    def __post_init__(self) -> None:
        rows = (*self.loops, self.bases)
        for inner, outer in itertools.pairwise(rows):
            if len(inner) != len(outer) or outer[0] is None or inner[0] is None:
                raise ValueError(f"every loop must move address 0 of as many addresses as there are bases: {rows}")
            if any(entry is None and other is not None for entry, other in zip(outer, inner, strict=True)):
                raise ValueError(f"an address that a loop moves must be moved by the loops around it: {rows}")
        if any(before is None and entry is not None for row in rows for before, entry in itertools.pairwise(row)):
            raise ValueError(f"addresses that a loop moves must come before those it does not: {rows}")
        if {*self.loops[0]} - {None, self.loops[0][0]}:
            raise ValueError(f"the innermost loop has one step, not those of {self.loops[0]}")

    def row(self, level: int) -> tuple[int | None, ...]:
        """Entries of a loop, or of the bases for the level outside of all loops."""
        return (*self.loops, self.bases)[level]


def item_layout(nests: Sequence[Nest]) -> data.StructLayout:
    """Payload of an item of :class:`AddressGenerator`: an address for each base, and a flag for each loop."""
    levels = max(len(nest.loops) for nest in nests)
    address = data.ArrayLayout(signed(STEP_BITS), len(nests[0].bases))
    return data.StructLayout({"address": address, "first": levels, "last": levels})


class AddressGenerator(Component):
    """Steps through a nest of loops and delivers one item an innermost iteration, as
    :class:`systola_hdl.common.address_generator.AddressGenerator` does.

    ``address[a]`` is ``base[a] + Σ index[loop] * step[loop][a]``, modulo 2**20. If a memory has at most 2**19 bytes and
    all addresses before were inside it, an address wrapped to 20 bits is inside exactly if the address was.

    The innermost loop is in registers and steps every cycle. While it runs, the start of its next round (*row*) is made
    from the outer loops, which are in a memory of 32-bit words: for each loop and address the step and the count, as
    the instruction has them, and beside them the address at which the present iteration began and how many follow.
    Items come without a bubble as long as a row is not shorter than :meth:`row_cycles` of the loop that steps after it.

    Parameters
    ----------
    nests:
        The kinds of nest; ``nest`` chooses one.
    row_bits:
        Width of the innermost loop's count less one.
    all_ahead:
        Make every row while the one before it runs. Otherwise those for which address 0 alone moves: there are no
        registers for the next row's other addresses, and it begins :meth:`row_cycles` later.

    Attributes
    ----------
    words:
        Words of the instruction (:data:`LOOP_WORD`), sent while no row is made or left.
    start, nest:
        ``start`` for one cycle, when all words are written and the last item of the nest before was taken, begins a
        nest of that kind; ``nest`` is constant from then to the last item. A count of 0 is 2**12.
    o:
        Items of ``item_layout``: ``address``, a signed number of bytes each, and ``first`` and ``last``, whose bit
        ``l`` tells that the item is in the first or last iteration of loop ``l`` (0 is the innermost; both are set for
        loops that the nest does not have). The last item is the one with ``last.all()``.
    """

    def __init__(self, nests: Sequence[Nest], *, row_bits: int = COUNT_BITS, all_ahead: bool = True) -> None:
        if not nests:
            raise ValueError("an address generator needs a nest")
        self.nests = tuple(nests)
        self.row_bits = row_bits
        self.all_ahead = all_ahead
        self.addresses = len(self.nests[0].bases)
        self.levels = max(len(nest.loops) for nest in self.nests)
        if not 1 <= self.addresses <= _MOST_ADDRESSES or not 2 <= self.levels <= _MOST_LOOPS:
            limits = f"1 to {_MOST_ADDRESSES} addresses and 2 to {_MOST_LOOPS} loops"
            raise ValueError(f"an address generator has {limits}, not {self.addresses} and {self.levels}")
        self.item_layout = item_layout(self.nests)
        super().__init__(
            {
                "words": In(stream.Signature(LOOP_WORD, always_ready=True)),
                "start": In(1),
                "nest": In(ceil_log2(len(self.nests))),
                "o": Out(stream.Signature(self.item_layout)),
            }
        )

    def row_cycles(self, level: int, nest: int = 0) -> int:
        """Cycles that making a row takes after loop ``level`` (at least 1) stepped: the shortest row without a bubble
        after it."""
        moved = sum(entry is not None for entry in self.nests[nest].row(level))
        return moved * (level + 3)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.memory = memory = Memory(shape=_WORD, depth=2 * _ENTRIES, init=[])
        read, write = memory.read_port(), memory.write_port()
        written = self.words.payload

        # The row that is made: which of its loops are at their last iteration, its start, and how many items follow its
        # first.
        ends = Signal(self.levels)  # bit 0 is not used
        total, left = Signal(signed(STEP_BITS)), Signal(COUNT_BITS)
        loaded = Signal(self.addresses)  # the row's start for that address is in `total`
        step = Signal(signed(STEP_BITS))  # of the innermost loop
        made, promoted = Signal(), Signal()  # it is complete; it becomes the present row
        # The loop that is stepped, the one inside of it, and the address that is made.
        level, inside, number = Signal(range(self.levels + 1)), Signal(range(self.levels + 1)), Signal(range(self.addresses))
        starting = Signal()
        m.d.comb += [inside.eq(level - 1), promoted.eq(made & (~self.o.valid | (self.o.ready & self.o.payload.last[0])))]
        self._build_item(m, promoted, left, ends)
        self._build_addresses(m, promoted, total, loaded, step)

        stepping, outside = Signal.like(level), Signal.like(level)
        for loop in reversed(range(1, self.levels)):  # a later assignment wins
            with m.If(~ends[loop]):
                m.d.comb += stepping.eq(loop)  # the innermost not at its end
        m.d.comb += outside.eq(_choose(self.nest, [len(nest.loops) for nest in self.nests]))
        asked_level, asked_number = Signal.like(level), Signal.like(number)
        entry, begins = self._build_entries(m, asked_level, asked_number)
        reads_state = Signal()  # what is left of a loop, not a word of the instruction
        m.d.comb += [
            asked_level.eq(inside),
            read.en.eq(1),
            read.addr.eq(Mux(reads_state, self._state(inside, number), entry)),
            write.en.eq(self.words.valid),
            write.addr.eq(written.entry),
            write.data.low.eq(written.word),
            write.data.high.eq(Mux(written.low, written.word, written.word >> COUNT_BITS)),
        ]

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [starting.eq(1), ends.eq(-1), level.eq(outside), number.eq(self.addresses - 1)]
                    m.next = "STEP"
            with m.State("STEP"):  # step or base is asked for
                m.d.comb += [asked_level.eq(level), asked_number.eq(number)]
                m.next = "STATE"
            with m.State("STATE"):  # it is there; the address and the iterations left of the loop are asked for
                m.d.comb += reads_state.eq(~starting)
                m.d.sync += total.eq(read.data.high)
                m.next = "ADD"
                with m.If(starting):
                    m.d.sync += level.eq(inside)
                    m.next = "INNER"
            with m.State("ADD"):
                m.d.sync += [total.eq(total + read.data.high), left.eq(read.data.low - 1), level.eq(inside)]
                m.next = "INNER"
            with m.State("INNER"):  # the loop outside of `level` is written while the count of that at `level` is there
                m.d.comb += [write.en.eq(1), write.addr.eq(self._state(level, number))]
                m.d.comb += [write.data.high.eq(total), write.data.low.eq(left)]
                m.d.sync += [left.eq(read.data.low - 1), level.eq(inside)]
                for loop in range(1, self.levels):
                    with m.If((number == 0) & (level == loop - 1)):
                        m.d.sync += ends[loop].eq((left == 0) | (starting & (outside == loop)))
                with m.If(level == 0):
                    m.d.sync += step.eq(read.data.high)
                    m.next = "MADE"
                    if self.addresses > 1:
                        with m.If(number != 0):
                            m.d.sync += [level.eq(Mux(starting, outside, stepping)), number.eq(number - 1)]
                            m.next = "STEP"
                    m.d.comb += loaded.bit_select(number, 1).eq(1)
            with m.State("MADE"):  # the step after it is asked for already
                m.d.comb += [made.eq(1), asked_level.eq(stepping), asked_number.eq(begins)]
                m.d.sync += [starting.eq(0), level.eq(stepping), number.eq(begins)]
                with m.If(promoted):
                    m.next = "STATE"
                    if not self.all_ahead:
                        with m.If(begins != 0):
                            m.next = "OVER"
                    with m.If(ends[1:].all()):
                        m.next = "IDLE"
            if not self.all_ahead:
                with m.State("OVER"):
                    m.d.comb += [asked_level.eq(stepping), asked_number.eq(begins)]
                    with m.If(~self.o.valid):
                        m.next = "STATE"
        return m

    def _build_item(self, m: Module, promoted: Value, left: Value, ends: Value) -> None:
        """Flags of the present row, an item at a time."""
        remaining, item = Signal(self.row_bits), self.o.payload
        outer_first, outer_last = Signal(self.levels - 1), Signal(self.levels - 1)
        m.d.comb += [
            item.last.eq(Cat(remaining == 0, outer_last)),
            item.first[1:].eq(outer_first),
        ]
        with m.If(self.start):
            m.d.sync += outer_last.eq(-1)
        with m.If(promoted):
            m.d.sync += [self.o.valid.eq(1), item.first[0].eq(1), remaining.eq(left), outer_last.eq(ends[1:])]
            # The loop that steps is the innermost not at its end; those inside of it start over.
            for index in range(self.levels - 1):
                with m.If(outer_last[:index].all()):
                    m.d.sync += outer_first[index].eq(outer_last[index])
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(~item.last[0]), item.first[0].eq(0), remaining.eq(remaining - 1)]

    def _build_addresses(self, m: Module, promoted: Value, total: Signal, loaded: Signal, step: Value) -> None:
        """Addresses of the present row."""
        for number in range(self.addresses):
            address = self.o.payload.address[number]
            moves = [nest.loops[0][number] is not None for nest in self.nests]
            begins, start = promoted, total
            if number > 0 and self.all_ahead:
                start = Signal(signed(STEP_BITS), name=f"ahead{number}")
                with m.If(loaded[number]):
                    m.d.sync += start.eq(total)
            elif number > 0:
                begins = loaded[number]
            with m.If(begins):
                m.d.sync += address.eq(start)
            if any(moves):
                with m.Elif(self.o.valid & self.o.ready & _choose(self.nest, moves)):
                    m.d.sync += address.eq(address + step)

    def _build_entries(self, m: Module, level: Signal, number: Signal) -> tuple[Signal, Signal]:
        """Entry of ``level``'s step (or the base) for address ``number``, and the last address that ``level`` moves."""
        entry, begins = Signal(range(_ENTRIES)), Signal.like(number)
        with m.Switch(Cat(level, self.nest)):
            for kind, nest in enumerate(self.nests):
                for index in range(len(nest.loops) + 1):
                    entries = [used for used in nest.row(index) if used is not None]
                    with m.Case(index | kind << len(level)):
                        m.d.comb += [entry.eq(_choose(number, entries)), begins.eq(len(entries) - 1)]
        return entry, begins

    @staticmethod
    def _state(level: Signal, number: Signal) -> Value:
        """Entry of the state of the loop outside of ``level``: iterations left, and where the present one began."""
        return Cat(level[: exact_log2(_MOST_LOOPS)], number, C(0, exact_log2(_MOST_ADDRESSES) - len(number)), C(1, 1))


def _choose(index: Value, values: Sequence[int]) -> Value:
    """``values[index]``; anything beyond."""
    bits = bits_for(max(values))
    chosen: Value = C(values[-1], bits)
    for number, value in reversed(list(enumerate(values[:-1]))):
        chosen = Mux(index == number, C(value, bits), chosen)
    return chosen
