"""Requantizer of the compact engine: no multiplier blocks, twelve bits of the value a cycle, and the clamp behind
it."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import SHIFT_MAXIMUM
from systola_hdl.compact.post.layouts import EXPONENT, FACTOR, MULTIPLIER_BITS, OUTPUT, RESULT_BITS

__all__ = ["DIGITS", "IDENTITY_EXPONENT", "Requantizer"]

#: Radix-4 digits of the value that are multiplied in a cycle, and their bits.
DIGITS = 6
_STEP_BITS = 2 * DIGITS
#: Steps that an int32 takes, and a value of few enough bits.
_LONG_STEPS, _SHORT_STEPS = 3, 2
#: Bits of a partial sum.
_SUM_BITS = MULTIPLIER_BITS + _STEP_BITS + 1
#: Exponent and multiplier 2^30 with SINGLE: the identity.
IDENTITY_EXPONENT = SHIFT_MAXIMUM - 1
#: Bits of the window around a result, with the bit that rounds.
_WINDOW_BITS = RESULT_BITS + 1


def _add(a: Value, b: Value, carry: Value, bits: int) -> Value:
    """``a + b + carry`` in one carry chain."""
    total = Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed()
    return total[1 : bits + 1].as_signed()


@dataclass(frozen=True)
class _Digits:
    """What cycle 1 knows: the choice of each digit; whether there is a step, and whether it is the value's first or
    last; the value's sign, and whether it takes few steps."""

    choices: list[Signal]
    multiplying: Signal
    first: Signal
    last: Signal
    negative: Signal
    was_short: Signal


@dataclass(frozen=True)
class _Window:
    """What cycle 3 knows: the window by eights, whether there is one, by how many ones it moves, its sign, whether a
    bit above it differs from that, and whether it is rounded already."""

    coarse: Signal
    found: Signal
    fine: Signal
    sign: Signal
    beyond: Signal
    is_rounded: Signal


class Requantizer(Component):
    """``clamp(REQ(value, multiplier, 6 - exponent) + zero_point, minimum, maximum)``, or int16 ``REQ`` saturated, every
    2 cycles.

    REQ is that of :class:`systola_hdl.full.post.requantizer.Requantizer`. With v the value, q the multiplier, s the
    shift, n = 31 - s, every mode is one rounding of one sum::

        o = (p >> n) + p[n - 1],  p = v * q + f

    where f is 0 for SINGLE and for s >= 0; otherwise 2^30, which is the first rounding of the two, or, if the mode is
    DOUBLE and v negative, 2^30 - 2^31, which makes the second one round half away from zero. (The definition looks at
    the sign of the product's high part instead: this differs only if that is 0, and then both results are 0.)

    For s > 0 there are two exceptions. DOUBLE and UP wrap ``v << s`` at 32 bits: the top s bits of v are copies of the
    bit below them. SINGLE wraps the result at 32 bits: f is 2^(n - 1), so that the rounding carries into the bit that
    becomes the sign, p[n - 1] is not added again, and bits of p above bit 62 - s are copies of that one.

    Design::

        value ─▶ digits -1, 0, 1, 2 ─▶ sum >> 12 + Σ digit·q ─▶ window, coarse ─▶ window, fine; + zero point ─▶ clamp
                 a step a cycle: two if the value has at most 23 bits, three otherwise

    Bits of p below 2^24 are never needed; those below 2^12 fall off after the first step, those below 2^24 after a
    second or in the window.

    Attributes
    ----------
    i:
        Values, int32. A value takes two or three cycles, and its transfer is in the last of them.
    begins:
        The first of a value's cycles.
    factor:
        :data:`~systola_hdl.compact.post.layouts.FACTOR` of the value, from the cycle after ``begins`` until the next
        value's ``begins``, both included.
    output:
        :data:`~systola_hdl.compact.post.layouts.OUTPUT`, constant while values are inside. If the range is empty,
        ``maximum`` is the result.
    busy:
        A value is inside, after its transfer.
    o:
        Results, int8 in the low bits or int16, each :attr:`latency` cycles after the transfer of its value.
    """

    #: Cycles from a value's transfer to its result: digits, multiply, coarse, fine, clamp.
    latency = 5

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(signed(32))),
                "begins": Out(1),
                "factor": In(FACTOR),
                "output": In(OUTPUT),
                "busy": Out(1),
                "o": Out(stream.Signature(RESULT_BITS, always_ready=True)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        digits = self._build_digits(m)
        so_far = self._build_product(m, digits)
        window, multiplied = self._build_window(m, so_far, digits)
        total, total_valid, total_beyond, total_sign = self._build_sum(m, window)
        # cycle 5: clamped
        self._build_clamp(m, total, total_beyond, total_sign)
        m.d.sync += self.o.valid.eq(total_valid)
        m.d.comb += self.busy.eq(Cat(digits.multiplying, multiplied, window.found, total_valid, self.o.valid).any())
        return m

    def _build_digits(self, m: Module) -> _Digits:
        """Cycle 1: the step's digits, each as the choice of a multiple."""
        value = self.i.payload
        shifts_left = Signal(3)  # by how many bits
        step = Signal(range(_LONG_STEPS))
        short = Signal()
        # Twelve digits of -1 to 2 reach from -(4^12-1)/3 to twice that: bits 22 to 31 alike is enough.
        m.d.comb += [
            short.eq((value[22:] == 0) | value[22:].all()),
            self.begins.eq(self.i.valid & (step == 0)),
            self.i.ready.eq(self.i.valid & (step[1] | (step[0] & short))),
        ]
        with m.If(self.i.valid):
            m.d.sync += step.eq(Mux(self.i.ready, 0, step + 1))

        # The top bits, as they are when the value has been shifted left and wrapped.
        with m.If(~self.output.is_single & (self.factor.exponent < SHIFT_MAXIMUM)):
            m.d.comb += shifts_left.eq(SHIFT_MAXIMUM - self.factor.exponent[:3])
        top = Signal(8)
        wrapped_sign = Signal()
        m.d.comb += wrapped_sign.eq(Cat(value[31 - bit] for bit in range(7)).bit_select(shifts_left, 1))
        m.d.comb += top.eq(value[24:])
        for bit in range(2, 8):
            with m.If(shifts_left > 7 - bit):
                m.d.comb += top[bit].eq(wrapped_sign)
        bits = Signal(_STEP_BITS)
        with m.Switch(step):
            with m.Case(0):
                m.d.comb += bits.eq(value[:12])
            with m.Case(1):
                m.d.comb += bits.eq(value[12:24])
            with m.Default():
                m.d.comb += bits.eq(Cat(top, wrapped_sign.replicate(4)))

        # cycle 1: digits; 3 becomes -1 with a carry into the next one
        carry_register = Signal()
        carry: Value = Mux(step == 0, 0, carry_register)
        multiplying = Signal()
        first = Signal()
        last = Signal()
        negative = Signal()
        was_short = Signal()
        choices = [Signal(2, name=f"choice_{digit}") for digit in range(DIGITS)]
        for digit, choice in enumerate(choices):
            low, high = bits[2 * digit], bits[2 * digit + 1]
            # 0, q, 2q and ~q are chosen by 0, 1, 2 and 3.
            m.d.sync += choice.eq(Cat(low ^ carry, high ^ (low & carry)))
            following = Signal(name=f"carry_{digit}")
            m.d.comb += following.eq(high & (low | carry))
            carry = following
        m.d.sync += [
            carry_register.eq(carry),
            multiplying.eq(self.i.valid),
            first.eq(step == 0),
            last.eq(self.i.ready),
            was_short.eq(short),
            negative.eq(value[-1]),
        ]
        return _Digits(choices, multiplying, first, last, negative, was_short)

    def _build_product(self, m: Module, digits: _Digits) -> Signal:
        """Cycle 2: the sum of the products so far."""
        choices, multiplying, first, negative = digits.choices, digits.multiplying, digits.first, digits.negative
        # cycle 2: multiplied; the lowest bit of each complement's negation is a carry into some sum
        q = self.factor.multiplier
        parts, ones = [], []
        for digit, choice in enumerate(choices):
            part = Signal(signed(MULTIPLIER_BITS + 2), name=f"part_{digit}")
            for bit in range(MULTIPLIER_BITS + 2):
                once = q[bit] if bit < MULTIPLIER_BITS else Const(0, 1)
                twice = q[bit - 1] if 0 < bit <= MULTIPLIER_BITS else Const(0, 1)
                m.d.comb += part[bit].eq(Mux(choice[1], Mux(choice[0], ~once, twice), choice[0] & once))
            parts.append(part)
            ones.append(choice.all())
        pairs = []
        for low in range(0, DIGITS, 2):
            pair = Signal(signed(MULTIPLIER_BITS + 5), name=f"pair_{low}")
            m.d.comb += pair.eq(Cat(parts[low][:2], _add(parts[low][2:].as_signed(), parts[low + 1], ones[low + 1], 34)))
            pairs.append(pair)
        product = pairs[0]
        for number, pair in enumerate(pairs[1:], 1):
            low_bits = 4 * number
            bits_above = MULTIPLIER_BITS + 5 + 1
            total = Signal(signed(low_bits + bits_above), name=f"product_{number}")
            m.d.comb += total.eq(Cat(product[:low_bits], _add(product[low_bits:].as_signed(), pair, ones[2 * number], bits_above)))
            product = total
        so_far = Signal(signed(_SUM_BITS))
        two_roundings = Signal()
        start = Signal(signed(32))
        m.d.comb += [
            two_roundings.eq(~self.output.is_single & (self.factor.exponent > SHIFT_MAXIMUM)),
            start.eq(Cat(Const(0, 30), two_roundings, two_roundings & self.output.is_double & negative)),
        ]
        with m.If(self.output.is_single):
            with m.Switch(self.factor.exponent):
                for exponent in range(SHIFT_MAXIMUM):  # n - 1 is 24 + exponent
                    with m.Case(exponent):
                        m.d.comb += start[24 + exponent].eq(1)
        with m.If(multiplying):
            m.d.sync += so_far.eq(_add(Mux(first, start, so_far[_STEP_BITS:].as_signed()), product, ones[0], _SUM_BITS))
        return so_far

    def _build_window(self, m: Module, so_far: Signal, digits: _Digits) -> tuple[_Window, Signal]:
        """Cycle 3: the bits around the result, by eights; and whether the product was complete a cycle before."""
        last, was_short = digits.last, digits.was_short
        # cycle 3: the window by eights, and whether all above it is sign
        multiplied = Signal()
        window_shift = Signal(EXPONENT)
        m.d.sync += [
            multiplied.eq(last),
            window_shift.eq(self.factor.exponent + Mux(was_short, _STEP_BITS, 0)),
        ]
        single_left = Signal()  # SINGLE with a positive shift
        m.d.comb += single_left.eq(self.output.is_single & (self.factor.exponent < SHIFT_MAXIMUM))
        wraps, was_rounded = Signal(), Signal()  # so, and three steps: bit 32 + exponent is the sign
        m.d.sync += [wraps.eq(single_left & ~was_short), was_rounded.eq(single_left)]
        sign = Signal()
        above = Signal(_SUM_BITS - 24)
        m.d.comb += [sign.eq(so_far[-1]), above.eq(so_far[24:])]
        with m.If(wraps):
            m.d.comb += sign.eq(so_far[32:38].bit_select(window_shift[:3], 1))
            for bit in range(1, 6):
                with m.If(window_shift[:3] < bit):
                    m.d.comb += above[8 + bit].eq(sign)
            m.d.comb += above[14:].eq(sign.replicate(_SUM_BITS - 38))
        coarse = Signal(_WINDOW_BITS + 7)
        extended = Cat(so_far, sign.replicate(2 * len(coarse)))
        for bit in range(len(coarse)):
            near = Cat(extended[bit + 8 * eights] for eights in range(4)).bit_select(window_shift[3:5], 1)
            far = Mux(window_shift[3], extended[bit + 40], extended[bit + 32])  # by 48 and more leaves the sign
            m.d.sync += coarse[bit].eq(Mux(window_shift[5], Mux(window_shift[4], sign, far), near))
        differs = Cat((group != sign.replicate(len(group))) for group in (above[:8], above[8:16], above[16:]))
        eights_below = Cat(window_shift[3:] <= eights for eights in range(3))
        found, fine, coarse_sign, beyond, is_rounded = Signal(), Signal(3), Signal(), Signal(), Signal()
        m.d.sync += [
            found.eq(multiplied),
            fine.eq(window_shift[:3]),
            coarse_sign.eq(sign),
            is_rounded.eq(was_rounded),
            beyond.eq((differs & eights_below).any()),
        ]
        return _Window(coarse, found, fine, coarse_sign, beyond, is_rounded), multiplied

    def _build_sum(self, m: Module, found_window: _Window) -> tuple[Signal, Signal, Signal, Signal]:
        """Cycle 4: the result plus the zero point, whether it is valid, whether it is beyond 16 bits, and its sign
        then."""
        coarse, found, fine = found_window.coarse, found_window.found, found_window.fine
        coarse_sign, beyond = found_window.sign, found_window.beyond
        # cycle 4: the window by ones; rounded, zero point added
        window = Signal(_WINDOW_BITS)
        m.d.comb += window.eq(coarse >> fine)
        lost = Cat((coarse[_WINDOW_BITS + bit] ^ coarse_sign) & (fine <= bit) for bit in range(7)).any()
        total = Signal(signed(RESULT_BITS + 2))
        total_valid, total_beyond, total_sign = Signal(), Signal(), Signal()
        rounded = _add(
            Cat(window[1:], coarse_sign).as_signed(),
            Mux(self.output.wide, 0, self.output.zero_point).as_signed(),
            window[0] & ~found_window.is_rounded,
            RESULT_BITS + 2,
        )
        m.d.sync += [
            total_valid.eq(found),
            total.eq(rounded),
            total_beyond.eq(beyond | lost),
            total_sign.eq(coarse_sign),
        ]
        return total, total_valid, total_beyond, total_sign

    def _build_clamp(self, m: Module, total: Signal, beyond: Signal, beyond_sign: Signal) -> None:
        """``o.payload`` from the sum, or from its sign alone if it is ``beyond``."""
        negative = Signal()
        fits = Signal()
        upper = total[7:]
        m.d.comb += [
            negative.eq(Mux(beyond, beyond_sign, total[-1])),
            fits.eq(~beyond & Mux(self.output.wide, (upper[8:] == 0) | upper[8:].all(), (upper == 0) | upper.all())),
        ]
        low = Mux(fits, total[:7], (~negative).replicate(7))
        byte = Cat(low, negative).as_signed()  # saturated to 8 bits
        # The range does not change while values are inside, so its comparison has cycles; the byte's two go side by
        # side.
        empty, below, above = Signal(), Signal(), Signal()
        clamped = Signal(signed(8))
        m.d.sync += empty.eq(self.output.minimum > self.output.maximum)
        m.d.comb += [
            below.eq(byte < self.output.minimum),
            above.eq((byte > self.output.maximum) | (below & empty)),
            clamped.eq(Mux(above, self.output.maximum, Mux(below, self.output.minimum, byte))),
        ]
        word_low = Mux(fits, total[:8], (~negative).replicate(8))
        word_high = Cat(Mux(fits, total[8:15], (~negative).replicate(7)), negative)
        m.d.sync += self.o.payload.eq(Cat(Mux(self.output.wide, word_low, clamped.as_unsigned()), word_high))
