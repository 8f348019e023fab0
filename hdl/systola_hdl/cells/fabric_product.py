"""A signed product without a DSP block: partial products, summed by a tree of adders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Instance, Module, Mux, Signal, Value, ValueLike

from systola_hdl.cells.families import Family

__all__ = ["fabric_product"]


def _table(invert: int) -> int:
    """Look-up table of half a ``CCU2C`` over its inputs A, B, C and D, A being the lowest bit of the index: the sum bit
    of A·B + C·D or, with ``invert``, of A·B + ~C·D."""
    return sum((((i & i >> 1) ^ ((i >> 2 ^ invert) & i >> 3)) & 1) << i for i in range(16))


@dataclass
class _Ecp5Adders:
    """Adders of an ECP5's carry chains, of which each bit multiplies as well: Lattice FPGA-DS-02012,
    "ECP5 and ECP5-5G Family Data Sheet", ripple mode.

    In half a ``CCU2C``, the table's value is the sum bit of the two terms. Where that is 0, so that no carry is
    propagated, the carry out is the table's value for C = D = 0, which is A·B: right, because both terms are equal
    there.
    """

    m: Module
    count: int = 0

    def add(self, a: Value, b: ValueLike, c: Value, d: ValueLike, *, invert: bool = False) -> Value:
        """``a * b + c * d`` for signed ``a`` and ``c`` and bits ``b`` and ``d``; ``a * b - c * d`` with ``invert``."""
        bits = max(len(a), len(c)) + 1
        total = Signal((bits + 1) // 2 * 2, name=f"sum_{self.count}")
        b, d = Value.cast(b), Value.cast(d)
        terms = list(zip(self._extended(a, len(total)), self._extended(c, len(total)), strict=True))
        carry: Value = d if invert else Const(0, 1)  # the 1 of -c = ~c + 1
        for index in range(0, len(total), 2):
            carry_out = Signal(name=f"carry_{self.count}_{index}")
            self.m.submodules[f"adder_{self.count}_{index}"] = Instance(
                "CCU2C",
                p_INIT0=Const(_table(invert), 16),
                p_INIT1=Const(_table(invert), 16),
                p_INJECT1_0="NO",
                p_INJECT1_1="NO",
                i_CIN=carry,
                **({"o_COUT": carry_out} if index + 2 < len(total) else {}),
                **{f"i_A{half}": terms[index + half][0] for half in (0, 1)},
                **{f"i_B{half}": b for half in (0, 1)},
                **{f"i_C{half}": terms[index + half][1] for half in (0, 1)},
                **{f"i_D{half}": d for half in (0, 1)},
                **{f"o_S{half}": total[index + half] for half in (0, 1)},
            )
            carry = carry_out
        self.count += 1
        return total[:bits].as_signed()

    @staticmethod
    def _extended(value: Value, bits: int) -> Iterator[Value]:
        return (value[min(index, len(value) - 1)] for index in range(bits))


class _PortableAdders:
    """Adders that are left to the synthesiser's inference."""

    @staticmethod
    def add(a: Value, b: ValueLike, c: Value, d: ValueLike, *, invert: bool = False) -> Value:
        """As :meth:`_Ecp5Adders.add`."""
        term = Mux(d, c, 0)
        return Mux(b, a, 0) + (-term if invert else term)


def fabric_product(m: Module, a: Value, b: Value, family: Family) -> Value:
    """``a * b``, signed, combinational: partial products are added in pairs, then the sums in pairs, and so on.

    Resources for 8 by 8 bits in an ECP5: 7 carry chains, together 36 ``CCU2C`` (72 LUTs), and 28 LUTs that nextpnr adds
    at the chains' ends. Timing from register to register, with nothing else on the chip: 121 MHz at speed grade 6.
    """
    adders = _Ecp5Adders(m) if family is Family.ECP5 else _PortableAdders()
    doubled = Cat(Const(0, 1), a).as_signed()
    if len(b) % 2:
        b = Cat(b, b[-1]).as_signed()
    sums = [adders.add(a, b[low], doubled, b[low + 1], invert=low + 2 == len(b)) for low in range(0, len(b), 2)]
    distance = 2  # weight of a sum relative to the one before it, in bits
    while len(sums) > 1:
        pairs = [
            Cat(low[:distance], adders.add(low[distance:].as_signed(), 1, high, 1)).as_signed()
            for low, high in zip(sums[::2], sums[1::2], strict=False)
        ]
        sums = pairs + sums[2 * len(pairs) :]
        distance *= 2
    return sums[0][: len(a) + len(b)].as_signed()
