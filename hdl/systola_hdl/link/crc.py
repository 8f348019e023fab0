"""CRC-32 of the link's frames, a byte at a time."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["LinkCrc"]

#: The generator polynomial of CRC-32 (ISO-HDLC), without its highest term, the lowest bit standing for the highest
#: power.
_POLYNOMIAL = 0xEDB88320
_ONES = (1 << 32) - 1


def _shifted(value: int, steps: int) -> int:
    """``value`` after so many bits that are 0."""
    for _ in range(steps):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


#: What the register holds after bytes and their CRC: the CRC is the register's complement, so that the sum of each of
#: its bytes with the register's is all ones, as if nothing but zeros came after the start.
_RESIDUE = _shifted(_ONES, 32)


class LinkCrc(Component):
    """CRC-32 (ISO-HDLC, as in ``zlib.crc32``) of the bytes since ``start``.

    The sum of register and byte is formed once, and each bit of the register is a sum of few of its bits: half the
    cells of the general form, in which each bit is a sum over register and byte.

    Members
    -------
    start: In(1)
        Forget what has been.
    enable: In(1), byte: In(8)
        Take in a byte, which is in the CRC two cycles later.
    shift: In(1)
        Shift out the byte given by ``low``.
    low: Out(8)
        The CRC's least significant byte: the first one of it on the line.
    good: Out(1)
        The bytes end with their CRC; from three cycles after the last one on.
    """

    start: In(1)
    enable: In(1)
    byte: In(8)
    shift: In(1)
    low: Out(8)
    good: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        register, total = Signal(32, init=_ONES), Signal(8)
        taken, byte = Signal(), Signal(8)
        m.d.sync += [taken.eq(self.enable & ~self.start), byte.eq(self.byte)]
        m.d.comb += [self.low.eq(~register[:8]), total.eq((register[:8] ^ byte) & ~self.shift.replicate(8))]
        m.d.sync += self.good.eq(register == _RESIDUE)
        following = Signal(32)
        for bit in range(32):
            terms = [total[place] for place in range(8) if _shifted(1 << place, 8) >> bit & 1]
            above = [register[bit + 8]] if bit + 8 < 32 else []
            value = (above + terms)[0]
            for term in (above + terms)[1:]:
                value ^= term
            m.d.comb += following[bit].eq(value)
        with m.If(taken | self.shift):
            m.d.sync += register.eq(following)
        with m.If(self.start):
            m.d.sync += register.eq(_ONES)
        return m
