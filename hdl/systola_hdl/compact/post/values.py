"""Values of the compact post-processor: four accumulators, or the operands of VECTOR, on their way to one sum."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.compact.post.layouts import FIELDS, OPERAND, VALUE

__all__ = ["Values"]


class Values(Component):
    """A shift register of four entries, filled at once by POST, or one after the other from its far end by VECTOR, and
    the sum at its near end.

    An operand moves on as soon as the entry before it is free; from the first entry it is *taken*: the sum becomes
    operand + ``bias``; further operands of the same output are added to it (32 bits, wrapping) or replace it if they
    are larger. With several operands of a maximum, whose bias is 0 in a sound program, only the first one's bias is
    added.

    Attributes
    ----------
    fields:
        Of the instruction: :data:`~systola_hdl.compact.post.layouts.FIELDS`.
    load:
        The first ``columns`` (1 to 4) of ``accumulators`` of a position, sent while ``empties`` was high in the cycle
        before or is.
    operands:
        Operands of VECTOR (:data:`~systola_hdl.compact.post.layouts.OPERAND`). At most four are sent and not taken, but
        for operands that are not an output's first.
    bias:
        Of the operand in the first entry.
    occupied, empties:
        An entry is occupied; none will be in the next cycle.
    taken:
        The first entry's operand is taken.
    o:
        Complete values: :data:`~systola_hdl.compact.post.layouts.VALUE`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        load = {"accumulators": data.ArrayLayout(32, config.columns), "columns": range(config.columns + 1)}
        super().__init__(
            {
                "fields": In(FIELDS),
                "load": In(stream.Signature(data.StructLayout(load), always_ready=True)),
                "operands": In(stream.Signature(OPERAND, always_ready=True)),
                "bias": In(signed(32)),
                "occupied": Out(1),
                "empties": Out(1),
                "taken": Out(1),
                "o": Out(stream.Signature(VALUE)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        load, operand, o = self.load.payload, self.operands.payload, self.o.payload
        entries = self.config.columns
        values = [Signal(signed(32), name=f"value_{entry}") for entry in range(entries)]
        valid = Signal(entries)
        first, last = Signal(entries), Signal(entries)
        moves = [Signal(name=f"moves_{entry}") for entry in range(entries)]
        m.d.comb += [
            self.taken.eq(valid[0] & (~self.o.valid | self.o.ready)),
            moves[0].eq(~valid[0] | self.taken),
            *(moves[entry].eq(~valid[entry] | moves[entry - 1]) for entry in range(1, entries)),
            self.occupied.eq(valid.any()),
            self.empties.eq((valid[1:] == 0) & (~valid[0] | self.taken)),
        ]
        for entry, value in enumerate(values):
            end = entry == entries - 1
            with m.If(self.load.valid | moves[entry]):
                m.d.sync += [
                    value.eq(Mux(self.load.valid, load.accumulators[entry], operand.value if end else values[entry + 1])),
                    valid[entry].eq(Mux(self.load.valid, load.columns > entry, self.operands.valid if end else valid[entry + 1])),
                    first[entry].eq(operand.first if end else first[entry + 1]),
                    last[entry].eq(operand.last if end else last[entry + 1]),
                ]
        row = Signal()  # the next value is a row's first
        is_post, takes_maximum = self.fields.is_post, self.fields.takes_maximum
        begins, ends = is_post | first[0], is_post | last[0]
        # One adder: value + bias, value + sum so far, or, for its sign, value - maximum so far.
        compares = takes_maximum & ~first[0] & ~is_post
        addend = Mux(begins, self.bias, o.value ^ compares.replicate(32).as_signed()).as_signed()
        total = Signal(signed(33))
        m.d.comb += total.eq((Cat(Const(1, 1), values[0]).as_signed() + Cat(compares, addend).as_signed()) >> 1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.taken):
            m.d.sync += [self.o.valid.eq(ends), o.first.eq(row | ~is_post), row.eq(0)]
            with m.If(~(compares & total[-1])):
                m.d.sync += o.value.eq(Mux(compares, values[0], total))
        with m.If(self.load.valid):
            m.d.sync += row.eq(1)
        return m
