"""Signed product of two operands that both change every cycle: what the requantizer and the LSTM cell multiply with."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.cells.dsp_cells import MULTIPLIERS, REGISTERS
from systola_hdl.cells.families import family_of

__all__ = ["WIDEST", "Product"]

#: Widest operand: the width of the FPGAs' multipliers.
WIDEST = 18


class Product(Component):
    """``p = a * b``, exact, two's complement, one a cycle, :attr:`latency` cycles after the operands.

    Cycle 1 registers the operands, cycle 2 the product. No register has a reset. Implementation: the family's cell
    (:data:`~systola_hdl.cells.dsp_cells.MULTIPLIERS`) with all registers inside; elsewhere ``a * b``, left to the
    synthesiser's inference.

    The multiplier's own pipeline register is not used: from register to register an ECP5 of speed grade 6 needs 4 ns
    without it (Project Trellis' timing data: 3.5 ns from an input to the output register).

    Parameters
    ----------
    a_bits, b_bits:
        Operand widths, 2 to :data:`WIDEST`. An unsigned operand needs one bit more, a zero above it.

    Attributes
    ----------
    a, b:
        Operands, ``signed(a_bits)`` and ``signed(b_bits)``.
    p:
        Product, ``signed(a_bits + b_bits)``.
    """

    latency = REGISTERS

    def __init__(self, a_bits: int, b_bits: int) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 2 <= bits <= WIDEST:
                raise ValueError(f"{name} must be from 2 to {WIDEST}, not {bits}")
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "p": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        cell = MULTIPLIERS.get(family_of(platform))
        if cell is not None and cell.takes(self.a, self.b):
            m.d.comb += self.p.eq(cell.add(m, self.a, self.b))
        else:
            a = Signal.like(self.a, reset_less=True)
            b = Signal.like(self.b, reset_less=True)
            m.d.sync += [a.eq(self.a), b.eq(self.b), self.p.eq(a * b)]
        return m
