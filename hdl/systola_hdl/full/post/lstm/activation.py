"""Sigmoid and tanh of the LSTM cell: one datapath from int16 to Q0.15, a table of 256 and linear interpolation."""

from __future__ import annotations

import enum
import itertools

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import CELL_EXPONENT_MAXIMUM, CELL_EXPONENT_MINIMUM, INSTRUCTIONS, Opcode
from systola_firmware.spec.sigmoid import SIGMOID_TABLE

__all__ = ["EXPONENT_BITS", "GATE_EXPONENT", "Function", "LstmActivation"]

#: Width of an exponent, as in the instruction set.
EXPONENT_BITS = INSTRUCTIONS[Opcode.LSTM].fields["cell_exponent"].bits
#: log2 of the scale of a gate's preactivation (Q3.12).
GATE_EXPONENT = -12

#: Fraction bits of a scaled argument, before it is rounded.
_FRACTION_BITS = GATE_EXPONENT - CELL_EXPONENT_MINIMUM
_SLOPES = [following - entry for entry, following in itertools.pairwise(SIGMOID_TABLE)]
#: An entry of the table, and the difference of the next entry from it.
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

    These are the formulas of ``docs/numerics.md``; those of TANH are doubled. The complement makes one formula of those
    for either sign of the argument. It also is why the half that rounds W is subtracted from V where W is V's
    complement.

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
    latency = 9

    def __init__(self) -> None:
        super().__init__(
            {"i_value": In(signed(16)), "i_function": In(1), "i_exponent": In(signed(EXPONENT_BITS)), "o": Out(signed(16))}
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        # Flags travel with their value: `tanh[n]` and `negative[n]` belong to the value in the registers of cycle n.
        tanh = {cycle: Signal(name=f"tanh_{cycle}", reset_less=True) for cycle in range(1, self.latency)}
        negative = {cycle: Signal(name=f"negative_{cycle}", reset_less=True) for cycle in range(4, self.latency)}
        m.d.sync += tanh[1].eq(self.i_function == Function.TANH)
        m.d.sync += [tanh[cycle + 1].eq(tanh[cycle]) for cycle in range(1, self.latency - 1)]
        m.d.sync += [negative[cycle + 1].eq(negative[cycle]) for cycle in range(4, self.latency - 1)]

        # cycle 1: three times the argument
        tripled = Signal(signed(18), reset_less=True)
        # `places`: the left shift by which a value gets `_FRACTION_BITS` fraction bits.
        places = Signal(range(CELL_EXPONENT_MAXIMUM - CELL_EXPONENT_MINIMUM + 1), reset_less=True)
        m.d.sync += [tripled.eq(self.i_value + (self.i_value << 1)), places.eq(self.i_exponent - CELL_EXPONENT_MINIMUM)]

        # cycle 2: scaled, with the fraction
        scaled = Signal(signed(len(tripled) + CELL_EXPONENT_MAXIMUM - CELL_EXPONENT_MINIMUM), reset_less=True)
        m.d.sync += scaled.eq(tripled << places)

        # cycle 3: magnitude of the rounded argument. The fraction's first bit r rounds q up, and -(q + r) = ~q + (1 -
        # r).
        sign = scaled[-1]
        magnitude = Signal(len(scaled) - _FRACTION_BITS, reset_less=True)
        complemented = Signal(reset_less=True)
        m.d.sync += [
            magnitude.eq((scaled[_FRACTION_BITS:] ^ sign.replicate(len(magnitude))) + (scaled[_FRACTION_BITS - 1] ^ sign)),
            complemented.eq(sign),
        ]

        # cycle 4: the table's entry is read, the last one for arguments beyond the table. An argument that was rounded
        # up to 0 is not negative.
        doubled = Signal(len(magnitude) + 1)
        fraction = Signal(9, reset_less=True)
        m.submodules.table = table = Memory(
            shape=_ENTRY,
            depth=len(SIGMOID_TABLE),
            init=[{"value": value, "slope": slope} for value, slope in zip(SIGMOID_TABLE, [*_SLOPES, 0], strict=True)],
        )
        read_port = table.read_port()
        m.d.comb += [
            doubled.eq(Mux(tanh[3], magnitude << 1, magnitude)),
            read_port.addr.eq(doubled[9:17] | doubled[17:].any().replicate(8)),
        ]
        m.d.sync += [fraction.eq(doubled[:9]), negative[4].eq(complemented & magnitude.any())]

        # cycle 5: a register for the block RAM's slow output
        entry = Signal(_ENTRY, reset_less=True)
        fraction_5 = Signal.like(fraction)
        m.d.sync += [entry.eq(read_port.data), fraction_5.eq(fraction)]

        # cycles 6 to 8: the interpolation's product, and the entry, with the half that rounds the result (512 or 256)
        # added or subtracted. The product is written as sums, so that synthesis makes it of LUTs: DSP blocks are what
        # an engine runs out of first.
        bits, width = len(fraction), len(entry.slope)
        terms = [Mux(fraction_5[bit], entry.slope, 0) for bit in range(bits)]
        pairs = [Signal(width + 2, name=f"pair_{pair}", reset_less=True) for pair in range(bits // 2)]
        quads = [Signal(width + 4, name=f"quad_{quad}", reset_less=True) for quad in range(bits // 4)]
        product = Signal(width + bits - 1, reset_less=True)  # without the fraction's highest bit
        highest = [Signal(width, name=f"highest_{cycle}", reset_less=True) for cycle in (6, 7)]
        units = [Signal(17, name=f"units_{cycle}", reset_less=True) for cycle in (6, 7)]
        base = Signal(17, reset_less=True)
        m.d.sync += [
            *(pair.eq(terms[2 * index] + (terms[2 * index + 1] << 1)) for index, pair in enumerate(pairs)),
            *(quad.eq(pairs[2 * index] + (pairs[2 * index + 1] << 2)) for index, quad in enumerate(quads)),
            product.eq(quads[0] + (quads[1] << 4)),
            highest[0].eq(terms[-1]),
            highest[1].eq(highest[0]),
            units[0].eq(entry.value + Mux(negative[5], Const(-1, signed(2)), ~tanh[5])),
            units[1].eq(units[0]),
            base.eq(Cat(tanh[7], units[1]) + highest[1]),
        ]

        # cycle 9: the sum, complemented where the argument is negative, and its high part
        total = Signal(25)
        m.d.comb += total.eq((Cat(Const(0, 8), base) + product) ^ negative[8].replicate(25))
        m.d.sync += self.o.eq(Mux(tanh[8], Cat(total[9:24], ~total[24]), Cat(total[10:], Const(0, 1))))
        return m
