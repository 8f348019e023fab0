"""CRC-32 of the link's frames, a byte at a time."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["LinkCrc"]

#: The generator polynomial of CRC-32 (ISO-HDLC), without its highest term, the lowest bit standing for the highest
#: power.
_POLYNOMIAL = 0xEDB88320
_ONES = (1 << 32) - 1


def _shifted(value: int, steps: int) -> int:
    """The register after ``steps`` bits of 0, if it is ``value`` before."""
    for _ in range(steps):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


#: What the register holds after bytes that are followed by their CRC. The CRC is the register's complement: XORed with
#: the register it gives all ones, the value at ``start``, so the result is that of 32 bits of 0 after ``start``.
_RESIDUE = _shifted(_ONES, 32)


class LinkCrc(Component):
    """CRC-32 (ISO-HDLC, as in ``zlib.crc32``) of the bytes since ``start``.

    The XOR of the register's low byte with the input byte is formed once, and each bit of the next register is an XOR
    of few of its bits. That takes half the cells of the general form, in which each bit is an XOR over register and
    byte.

    Members
    -------
    start: In(1)
        Forget all bytes so far.
    enable: In(1), byte: In(8)
        Take in a byte, which is in the CRC two cycles later.
    shift: In(1)
        Shift out the byte given by ``low``.
    low: Out(8)
        The CRC's least significant byte, which is sent first.
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
            terms = [total[index] for index in range(8) if _shifted(1 << index, 8) >> bit & 1]
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
