"""Requantizer: an int32 accumulator times a real factor below 64, in every rounding mode of the engine."""

from __future__ import annotations

import itertools

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.isa import Rounding

__all__ = ["FACTOR", "ROUNDING_BITS", "SHIFT_BITS", "Requantizer", "add_half", "below_half"]

#: Width of a shift, as in the instruction set.
SHIFT_BITS = 8
#: Width of a rounding mode, as in the instruction set.
ROUNDING_BITS = 3
#: Fraction bits that SINGLE needs below the high product: one more than the largest shift.
_FRACTION_BITS = 7
#: Bits of the product's high part with its fraction: 32 integer bits and the fraction.
_HIGH_BITS = 32 + _FRACTION_BITS
#: Largest right shift of that: 31 by the instruction and the fraction.
_SHIFT_LIMIT = 31 + _FRACTION_BITS


#: The real factor ``multiplier * 2**(shift - 31)``; multiplier 0 or 2^30 to 2^31-1, shift -31 to 6.
FACTOR = data.StructLayout({"multiplier": signed(32), "shift": signed(SHIFT_BITS)})


def below_half(places: ValueLike, limit: int) -> Value:
    """``2**(places - 1) - 1`` for a right shift by ``places``, 1 to ``limit``: what :func:`add_half` takes."""
    return Cat(Value.cast(places) > bit + 1 for bit in range(limit - 1))


def add_half(value: Value, ones: Value, away: ValueLike) -> Value:
    """The signed ``value + 2**(n - 1) - away``, which rounds a right shift by n.

    ``ones`` is :func:`below_half` of n. With ``away`` 0 a half goes up; with ``away`` the sign of ``value`` it goes away from zero.
    """
    return value + Cat(ones, Const(0, 1)).as_signed() + Cat(~Value.cast(away), Const(0, 1)).as_signed()


class Requantizer(Component):
    """One lane of REQ, one value a cycle; ``o`` belongs to the inputs of :attr:`latency` cycles before.

    With v the value, q the multiplier, s the shift::

        DOUBLE  y = ((v << max(s, 0)) * q + 2^30) >> 31     the shifted value wraps at 32 bits
                s < 0: (y + 2^(-s-1) - (y < 0)) >> -s        half away from zero
        UP      the same without the term (y < 0)            half up
        SINGLE  (v * q + 2^(30-s)) >> (31-s)                 nothing wraps

    and ``o`` is the low 32 bits, for every multiplier except -2^31. FP32 and reserved modes give the result of UP. SINGLE with
    q = 2^30, s = 1 is the identity.

    All three are one datapath. Y is the product without its low bits, with 7 bits of fraction: ``p >> 24`` for SINGLE, the
    rounded ``(p + 2^30) >> 31`` and zeros for the others. Then ``o = (Y + 2^(n-1) - away) >> n``, where n = 7 - s for SINGLE
    and 7 + max(-s, 0) for the others. Dropping p's low bits first does not change a floor; where there is no second rounding,
    n = 7, the half lies in the zero bits and vanishes, and so does the one that ``away`` subtracts.

    The product of 32 × 32 bits is made of three, not four, products of halves (A. Karatsuba, Y. Ofman, "Multiplication of
    multidigit numbers on automata", 1962): multipliers are what an engine runs out of first.

    Resources: three 18 × 18 multipliers, two 16-bit adders, one 48-bit, one 40-bit and two 33-bit adders, a 38-place shifter in
    two halves.

    Attributes
    ----------
    i_value, i_factor, i_rounding:
        int32 value, its :data:`FACTOR`, and the :class:`~systola_firmware.isa.Rounding`.
    o:
        int32 result.
    """

    #: Cycles from the inputs to ``o``.
    latency = 8

    def __init__(self) -> None:
        super().__init__({"i_value": In(signed(32)), "i_factor": In(FACTOR), "i_rounding": In(ROUNDING_BITS), "o": Out(signed(32))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        shift = self.i_factor.shift
        is_single = self.i_rounding == Rounding.SINGLE

        # cycle 1: the value shifted left, the right shift n
        a = Signal(signed(32))
        q = Signal(signed(32))
        shifts_left = ~shift[-1] & ~is_single
        shifted = Signal(signed(32))
        m.d.comb += shifted.eq(self.i_value << Mux(shifts_left, shift[:3], 0))
        m.d.sync += [a.eq(shifted), q.eq(self.i_factor.multiplier)]
        n = [Signal(range(_SHIFT_LIMIT + 1), name=f"n_{cycle}") for cycle in range(1, 7)]
        single = [Signal(name=f"single_{cycle}") for cycle in range(1, 5)]
        double = [Signal(name=f"double_{cycle}") for cycle in range(1, 5)]
        m.d.sync += [
            n[0].eq(_FRACTION_BITS - Mux(shifts_left, 0, shift)),
            single[0].eq(is_single),
            double[0].eq(self.i_rounding == Rounding.DOUBLE),
        ]
        for chain in (n, single, double):
            for earlier, later in itertools.pairwise(chain):
                m.d.sync += later.eq(earlier)

        # Halves of 16 bits and a sign; with cycle 1, each operand's sum of halves: 18 bits, the width of the FPGA's multipliers.
        a_low, a_high, q_low, q_high = a[:16], a[16:].as_signed(), q[:16], q[16:].as_signed()
        a_sum, q_sum = Signal(signed(18)), Signal(signed(18))
        m.d.sync += [
            a_sum.eq(shifted[:16] + shifted[16:].as_signed()),
            q_sum.eq(self.i_factor.multiplier[:16] + self.i_factor.multiplier[16:].as_signed()),
        ]

        # cycle 2: products of low halves, of high halves and of the sums, which is all four products of halves together
        low, high, every = Signal(32), Signal(signed(32)), Signal(signed(36))
        m.d.sync += [low.eq(a_low * q_low), high.eq(a_high * q_high), every.eq(a_sum * q_sum)]

        # cycle 3: the two crosswise products, as what is left of all four
        outer, cross = Signal(signed(64)), Signal(signed(33))
        m.d.sync += [outer.eq(Cat(low, high)), cross.eq(every - low - high)]

        # cycle 4: the whole product
        product = Signal(signed(64))
        m.d.sync += product.eq(Cat(outer[:16], outer[16:].as_signed() + cross))

        # cycle 5: its high part with fraction; 2^(n-1) - 1
        high_part = Signal(signed(_HIGH_BITS))
        rounded = Signal(signed(32))
        ones = Signal(_SHIFT_LIMIT - 1)
        away = Signal()
        m.d.comb += rounded.eq(product[31:63].as_signed() + product[30])
        m.d.sync += [
            high_part.eq(Mux(single[3], product[31 - _FRACTION_BITS : 63], Cat(Const(0, _FRACTION_BITS), rounded))),
            ones.eq(below_half(n[3], _SHIFT_LIMIT)),
            away.eq(double[3] & rounded[-1]),
        ]

        # cycle 6: half a step added
        total = Signal(signed(_HIGH_BITS + 1))
        m.d.sync += total.eq(add_half(high_part, ones, away))

        # cycles 7 and 8: shifted right, by eights and then by ones; only the low 32 bits are wanted
        coarse = Signal(signed(32 + 7))
        fine = Signal(3)
        m.d.sync += [coarse.eq(total >> Cat(Const(0, 3), n[5][3:])), fine.eq(n[5][:3])]
        m.d.sync += self.o.eq(coarse >> fine)
        return m
