"""Values of the compact post-processor: four accumulators, or the operands of VECTOR, on their way to one sum."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config

__all__ = ["Values"]


class Values(Component):
    """Four places in a row, filled at once by POST, or one after the other from the far end by VECTOR, and the value at
    their end.

    A value moves on as soon as the place before it is free; from the first place it is *taken*: the value is ``first +
    bias``; further operands of the same output are added to it (32 bits, wrapping) or replace it if they are larger.
    With several operands of a maximum, whose bias is 0 in a sound program, only the first one's is looked at.

    Attributes
    ----------
    is_post, takes_maximum:
        What is executed; constant while there are values. A maximum is VECTOR's only.
    load, columns, accumulators:
        For one cycle, while ``empties`` was high in the cycle before or is: the first ``columns`` accumulators, 1 to 4.
    operand_valid, operand, operand_first, operand_last:
        An operand of VECTOR, first or last of its output; at most four are in the places, but for operands that are not
        first.
    bias:
        For the value at the first place.
    occupied, empties:
        Something is in the places; nothing will be in the next cycle.
    taken:
        The first place's value is taken.
    o_valid, o_ready, o, o_first:
        Complete value, and whether it is the first of a row: of a position, or any of VECTOR.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "is_post": In(1),
                "takes_maximum": In(1),
                "load": In(1),
                "columns": In(range(config.columns + 1)),
                "accumulators": In(data.ArrayLayout(32, config.columns)),
                "operand_valid": In(1),
                "operand": In(signed(32)),
                "operand_first": In(1),
                "operand_last": In(1),
                "bias": In(signed(32)),
                "occupied": Out(1),
                "empties": Out(1),
                "taken": Out(1),
                "o_valid": Out(1),
                "o_ready": In(1),
                "o": Out(signed(32)),
                "o_first": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        places = len(self.accumulators)
        values = [Signal(signed(32), name=f"value_{place}") for place in range(places)]
        valid = Signal(places)
        first, last = Signal(places), Signal(places)
        moves = Signal(places)
        m.d.comb += [
            self.taken.eq(valid[0] & (~self.o_valid | self.o_ready)),
            moves[0].eq(~valid[0] | self.taken),
            *(moves[place].eq(~valid[place] | moves[place - 1]) for place in range(1, places)),
            self.occupied.eq(valid.any()),
            self.empties.eq((valid[1:] == 0) & (~valid[0] | self.taken)),
        ]
        for place, value in enumerate(values):
            end = place == places - 1
            with m.If(self.load | moves[place]):
                m.d.sync += [
                    value.eq(Mux(self.load, self.accumulators[place], self.operand if end else values[place + 1])),
                    valid[place].eq(Mux(self.load, self.columns > place, self.operand_valid if end else valid[place + 1])),
                    first[place].eq(self.operand_first if end else first[place + 1]),
                    last[place].eq(self.operand_last if end else last[place + 1]),
                ]
        row = Signal()  # the next value is a row's first
        begins, ends = self.is_post | first[0], self.is_post | last[0]
        # One adder: value + bias, value + sum so far, or, for its sign, value - maximum so far.
        compares = self.takes_maximum & ~first[0] & ~self.is_post
        addend = Mux(begins, self.bias, self.o ^ compares.replicate(32).as_signed()).as_signed()
        total = Signal(signed(33))
        m.d.comb += total.eq((Cat(Const(1, 1), values[0]).as_signed() + Cat(compares, addend).as_signed()) >> 1)
        with m.If(self.o_ready):
            m.d.sync += self.o_valid.eq(0)
        with m.If(self.taken):
            m.d.sync += [self.o_valid.eq(ends), self.o_first.eq(row | ~self.is_post), row.eq(0)]
            with m.If(~(compares & total[-1])):
                m.d.sync += self.o.eq(Mux(compares, values[0], total))
        with m.If(self.load):
            m.d.sync += row.eq(1)
        return m
