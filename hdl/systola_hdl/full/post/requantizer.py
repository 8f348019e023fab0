"""Requantizer: an int32 accumulator times a real factor below 64, in every rounding mode of the engine."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import Rounding
from systola_hdl.cells.product import Product
from systola_hdl.common.delay import delayed

__all__ = ["FACTOR", "ROUNDING_BITS", "SHIFT_BITS", "Requantizer", "add_half", "below_half"]

#: Width of a shift, as in the instruction set.
SHIFT_BITS = 8
#: Width of a rounding mode, as in the instruction set.
ROUNDING_BITS = 3
#: Fraction bits that SINGLE needs below the high product: one more than the largest left shift.
_FRACTION_BITS = 7
#: Bits of the product below that fraction, which no result depends on.
_DROPPED_BITS = 31 - _FRACTION_BITS
#: Largest right shift of the remaining bits: at most 31 by the instruction, and the fraction.
_SHIFT_LIMIT = 31 + _FRACTION_BITS
#: Bits of a half of an operand.
_HALF_BITS = 16


#: The real factor ``multiplier * 2**(shift - 31)``; multiplier 0 or 2^30 to 2^31-1, shift -31 to 6.
FACTOR = data.StructLayout({"multiplier": signed(32), "shift": signed(SHIFT_BITS)})


def below_half(shift: ValueLike, limit: int) -> Value:
    """``2**(shift - 1) - 1`` for a right ``shift`` of 1 to ``limit``: an operand of :func:`add_half`."""
    return Cat(Value.cast(shift) > bit + 1 for bit in range(limit - 1))


def add_half(value: Value, ones: Value, away: ValueLike) -> Value:
    """The signed ``value + 2**(n - 1) - away``, which rounds a right shift by n.

    ``ones`` is :func:`below_half` of n. With ``away`` 0 a half goes up; with ``away`` the sign of ``value`` it goes
    away from zero.
    """
    return value + Cat(ones, Const(0, 1)).as_signed() + Cat(~Value.cast(away), Const(0, 1)).as_signed()


class Requantizer(Component):
    """One lane of REQ, one value a cycle; ``o`` belongs to the inputs of :attr:`latency` cycles before.

    With v the value, q the multiplier, s the shift::

        DOUBLE  y = ((v << max(s, 0)) * q + 2^30) >> 31     the shifted value wraps at 32 bits
                s < 0: (y + 2^(-s-1) - (y < 0)) >> -s        half away from zero
        UP      the same without the term (y < 0)            half up
        SINGLE  (v * q + 2^(30-s)) >> (31-s)                 nothing wraps

    and ``o`` is the low 32 bits, for every multiplier except -2^31. FP32 and reserved modes give the result of UP.
    SINGLE with q = 2^30, s = 1 is the identity.

    All three are one datapath, ``o = (v * q + C) >> N``, as a floor of a floor is one floor: N = 31 - s for SINGLE and
    31 + max(-s, 0) for the others, and C is all that is added before either shift. For SINGLE and for s >= 0 it is
    2^(N-1), else 2^(N-1) + 2^30, and 2^(N-1) - 2^30 for DOUBLE below zero. Whether y is below zero is taken from the
    signs of v and q, before the multiplication: that differs from the sign of y only where y is 0, and then the result
    is 0 either way. No C has a bit below 2^24, so the product's low bits are dropped before the sum, and n = N - 24 is
    the shift, 1 to 38.

    The product of 32 × 32 bits is made of three, not four, products of halves (A. Karatsuba, Y. Ofman, "Multiplication
    of multidigit numbers on automata", 1962): multipliers are what an engine runs out of first.

    Between two registers lies one adder, whose operands come straight from registers, or one multiplexer.

    Resources: three 18 × 18 multipliers, two 17-bit adders, two 48-bit, one 40-bit and one 33-bit adder, a shifter by
    up to 38 bits in two stages.

    Attributes
    ----------
    i_value, i_factor, i_rounding:
        int32 value, its :data:`FACTOR`, and the :class:`~systola_firmware.spec.isa.Rounding`.
    o:
        int32 result.
    """

    #: Cycles from the inputs to the whole product: left shift in two, three products, their sum in two.
    _product_latency = 2 + Product.latency + 2
    #: Cycles from the inputs to ``o``: product, rounding, right shift in two.
    latency = _product_latency + 1 + 2

    def __init__(self) -> None:
        super().__init__({"i_value": In(signed(32)), "i_factor": In(FACTOR), "i_rounding": In(ROUNDING_BITS), "o": Out(signed(32))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        product = self._build_product(m)
        rounding, shift = self._build_rounding(m)
        total = Signal(signed(64 - _DROPPED_BITS), reset_less=True)
        m.d.sync += total.eq(product + rounding)
        # Right shift, first by multiples of 8, then by up to 7; only the low 32 bits of the result are kept.
        coarse = Signal(signed(32 + 7), reset_less=True)
        m.d.sync += [coarse.eq(total >> Cat(Const(0, 3), shift[3:])), self.o.eq(coarse >> delayed(m, shift[:3], 1, "fine"))]
        return m

    def _build_product(self, m: Module) -> Value:
        """Value times multiplier without its low bits, :attr:`_product_latency` cycles after the inputs."""
        # Cycle 1: the left shift's amount. Cycle 2: the shifted value.
        shift = self.i_factor.shift
        left = Signal(3, reset_less=True)
        for bit in range(len(left)):
            m.d.sync += left[bit].eq(shift[bit] & ~shift[-1] & (self.i_rounding != Rounding.SINGLE))
        a = Signal(32, reset_less=True)
        m.d.sync += a.eq(delayed(m, self.i_value, 1, "value") << left)
        q = delayed(m, self.i_factor.multiplier, 2, "multiplier")

        # Operands are halves of 16 bits, the high ones signed, and sums of both halves: at most 18 bits, the width of
        # the FPGA's multipliers.
        products = []
        for name in ("low", "high", "every"):
            m.submodules[name] = multiplier = Product(18, 18)
            for port, operand in ((multiplier.a, a), (multiplier.b, q)):
                low, high = operand[:_HALF_BITS], operand[_HALF_BITS:].as_signed()
                m.d.comb += port.eq({"low": low, "high": high, "every": low + high}[name])
            products.append(multiplier.p)
        low, high, every = products[0][:32], products[1][:32].as_signed(), products[2]

        # The sum of the cross products is the product of the sums less the outer products. Everything is summed from
        # bit 16 on: no carry comes from below.
        most = Signal(64 - _HALF_BITS, reset_less=True)
        outer = Signal(signed(34), reset_less=True)
        whole = Signal(64 - _HALF_BITS, reset_less=True)
        m.d.sync += [most.eq(Cat(low[_HALF_BITS:], high) + every), outer.eq(low + high), whole.eq(most - outer)]
        return whole[_DROPPED_BITS - _HALF_BITS :].as_signed()

    def _build_rounding(self, m: Module) -> tuple[Value, Value]:
        """``C >> 24``, with the product, and n, one cycle later."""
        # Cycle 1: k = n - 1 if nothing is shifted left. Cycle 2: k, and whether there are two roundings, with or
        # without `away`.
        shift = self.i_factor.shift
        right = Signal(6, reset_less=True)
        flags = Signal(data.StructLayout(dict.fromkeys(("right_only", "twice", "double", "negative"), 1)), reset_less=True)
        is_single = self.i_rounding == Rounding.SINGLE
        m.d.sync += [
            right.eq(_FRACTION_BITS - 1 - shift),
            flags.right_only.eq(shift[-1] | is_single),
            flags.twice.eq(shift[-1] & ~is_single),
            flags.double.eq(self.i_rounding == Rounding.DOUBLE),
            flags.negative.eq(self.i_value[-1] ^ self.i_factor.multiplier[-1]),
        ]
        k, away, up = Signal(6, reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        takes_away = flags.twice & flags.double & flags.negative
        m.d.sync += [k.eq(Mux(flags.right_only, right, _FRACTION_BITS - 1)), away.eq(takes_away), up.eq(flags.twice & ~takes_away)]

        # Two cycles before the product, k in two octal digits: C's ones are at k or, with `away`, below k.
        waits = self._product_latency - 4
        k, away, up = (delayed(m, signal, waits, name) for signal, name in ((k, "k"), (away, "away"), (up, "up")))
        eights, ones = range(-(-_SHIFT_LIMIT // 8)), range(8)
        here, beyond, digit = (Signal(len(digits), reset_less=True) for digits in (eights, eights, ones))
        m.d.sync += [
            here.eq(Cat(k[3:] == number for number in eights)),
            beyond.eq(Cat(away & (k[3:] > number) for number in eights)),
            digit.eq(Cat(Mux(away, k[:3] > number, k[:3] == number) for number in ones)),
        ]
        away, up = delayed(m, away, 1, "away_late"), delayed(m, up, 1, "up_late")
        rounding = Signal(_SHIFT_LIMIT, reset_less=True)
        for bit in range(_SHIFT_LIMIT):
            one = beyond[bit // 8] | (here[bit // 8] & digit[bit % 8])
            if bit < _FRACTION_BITS - 1:  # with `away`, C is a multiple of 2^30: these bits are 0
                one = ~away & here[0] & digit[bit]
            elif bit == _FRACTION_BITS - 1:
                one |= up
            m.d.sync += rounding[bit].eq(one)
        n = Signal(6, reset_less=True)
        m.d.sync += n.eq(delayed(m, k, 2, "k_late") + 1)
        return rounding, n
