"""Sigmoid and tanh of the LSTM cell: one datapath from int16 to Q0.15, a table of 256 and linear interpolation."""

from __future__ import annotations

import enum
import itertools

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.isa import INSTRUCTIONS, Opcode
from systola_firmware.sigmoid import SIGMOID_TABLE

__all__ = ["EXPONENT_BITS", "EXPONENT_MAXIMUM", "EXPONENT_MINIMUM", "GATE_EXPONENT", "Function", "LstmActivation"]

#: Width of an exponent, as in the instruction set.
EXPONENT_BITS = INSTRUCTIONS[Opcode.LSTM].fields["cell_exponent"].bits
#: log2 of the scale of a gate's preactivation (Q3.12).
GATE_EXPONENT = -12
#: Range of log2 of the scale of the cell state.
EXPONENT_MINIMUM, EXPONENT_MAXIMUM = -15, -9

#: Places below the binary point of a scaled argument, before it is rounded.
_FRACTION_BITS = GATE_EXPONENT - EXPONENT_MINIMUM
_SLOPES = [following - entry for entry, following in itertools.pairwise(SIGMOID_TABLE)]
#: A table entry and the step to the next.
_ENTRY = data.StructLayout({"value": 16, "slope": max(_SLOPES).bit_length()})


class Function(enum.IntEnum):
    """What an :class:`LstmActivation` computes."""

    SIGMOID = 0
    TANH = 1


class LstmActivation(Component):
    """The LSTM's sigmoid or tanh, one value a cycle; ``o`` belongs to the inputs of :attr:`latency` cycles before.

    Both functions are one datapath, for ``tanh(x) = 2 * sigmoid(2x) - 1``. With T the table, e the exponent::

        d = (3 * x * 2^(e + 12) rounded half up)            the table has 24 entries a unit: 3 * 2^12 = 24 * 2^9
        a = |d| for SIGMOID, 2 * |d| for TANH;  u = min(a >> 9, 255)
        V = (T[u] << 9) + (a & 511) * (T[u + 1] - T[u])     the step after the last entry is 0
        W = V where d >= 0, else 2^25 - 1 - V               sigmoid(-x) = 1 - sigmoid(x)
        SIGMOID  o = (W + 512) >> 10                        Q0.15, 0 to 32767
        TANH     o = ((W + 256) >> 9) - 2^15                Q0.15, -32767 to 32767

    These are ``docs/numerics.md``'s formulas: those of TANH doubled, and each function's two signs written as one by the
    complement, which also is why the half is taken off V where it is added to W.

    Resources: one block RAM (256 × 26 bits); the interpolation's product of 9 × 10 bits is made of LUTs.

    Attributes
    ----------
    i_value:
        Argument, int16.
    i_function:
        :class:`Function`.
    i_exponent:
        log2 of the argument's scale: -15 to -9 for TANH, -12 for SIGMOID.
    o:
        Result, int16.
    """

    #: Cycles from the inputs to ``o``.
    latency = 6

    def __init__(self) -> None:
        super().__init__(
            {"i_value": In(signed(16)), "i_function": In(1), "i_exponent": In(signed(EXPONENT_BITS)), "o": Out(signed(16))}
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        tanh = [Signal(name=f"tanh_{cycle}") for cycle in range(1, self.latency)]
        negative = [Signal(name=f"negative_{cycle}") for cycle in range(3, self.latency)]
        m.d.sync += [Cat(tanh).eq(Cat(self.i_function == Function.TANH, tanh)), Cat(negative[1:]).eq(Cat(negative))]

        # cycle 1: three times the argument, and half of what the shift will drop
        left = Signal(range(EXPONENT_MAXIMUM - EXPONENT_MINIMUM + 1))  # places to the left, of a value with a fraction
        places = Signal.like(left)
        half = Cat(left == _FRACTION_BITS - 1 - bit for bit in range(_FRACTION_BITS))
        tripled = Signal(signed(18))
        m.d.comb += left.eq(self.i_exponent - EXPONENT_MINIMUM)
        m.d.sync += [tripled.eq(self.i_value + (self.i_value << 1) + half), places.eq(left)]

        # cycle 2: the scaled argument
        scaled = Signal(signed(len(tripled) + EXPONENT_MAXIMUM - GATE_EXPONENT))
        m.d.sync += scaled.eq((tripled << places) >> _FRACTION_BITS)

        # cycle 3: its entry is read; beyond the table, the last
        magnitude = Signal(len(scaled) - 1)
        doubled = Signal(len(scaled))
        fraction = Signal(9)
        m.submodules.table = table = Memory(
            shape=_ENTRY,
            depth=len(SIGMOID_TABLE),
            init=[{"value": value, "slope": slope} for value, slope in zip(SIGMOID_TABLE, [*_SLOPES, 0], strict=True)],
        )
        read_port = table.read_port()
        m.d.comb += [
            magnitude.eq(Mux(scaled < 0, -scaled, scaled)),
            doubled.eq(Mux(tanh[1], magnitude << 1, magnitude)),
            read_port.addr.eq(doubled[9:17] | doubled[17:].any().replicate(8)),
        ]
        m.d.sync += [fraction.eq(doubled[:9]), negative[0].eq(scaled < 0)]

        # cycle 4: a register for the block RAM's slow output
        entry = Signal(_ENTRY)
        fraction_4 = Signal.like(fraction)
        m.d.sync += [entry.eq(read_port.data), fraction_4.eq(fraction)]

        # cycle 5: the interpolation's product; the entry with half a step of the result, 512 or 256, added or taken off
        product = Signal(len(entry.slope) + len(fraction))
        units = Signal(17)
        # Written as a sum, so that synthesis makes it of LUTs: DSP blocks are what an engine runs out of first.
        terms = [Mux(fraction_4[bit], entry.slope << bit, 0) for bit in range(len(fraction_4))]
        m.d.sync += [
            product.eq(sum(terms)),
            units.eq(entry.value + Mux(negative[1], Const(-1, signed(2)), ~tanh[3])),
        ]

        # cycle 6: the sum, complemented where the argument is negative, and its high part
        total = Signal(25)
        m.d.comb += total.eq((Cat(Const(0, 8), tanh[4], units) + product) ^ negative[2].replicate(25))
        m.d.sync += self.o.eq(Mux(tanh[4], Cat(total[9:24], ~total[24]), Cat(total[10:], Const(0, 1))))
        return m
