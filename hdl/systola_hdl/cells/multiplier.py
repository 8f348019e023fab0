"""Signed multiplier with a stationary operand: the array's cells are made of it."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.cells.dsp_cells import MULTIPLIERS, REGISTERS
from systola_hdl.cells.fabric_product import fabric_product
from systola_hdl.cells.families import family_of

__all__ = ["Multiplier"]


class Multiplier(Component):
    """``p = a * b``, exact, two's complement.

    Cycle 1 registers both operands, ``b`` only where ``load`` is set: the stationary operand lives in the multiplier's
    own input register, as the DSP blocks of most FPGA families have one. Cycle 2 registers the product. One product a
    cycle, :attr:`latency` cycles after ``a``; ``load`` with ``b`` applies to the ``a`` of the same cycle and to all
    that follow.

    Implementation: the family's cell (:data:`~systola_hdl.cells.dsp_cells.MULTIPLIERS`) with all registers inside, but
    Gowin's, which has ``b_bits`` registers outside; elsewhere, and for operands that are too wide, ``a * b``, left to
    the synthesiser's inference. On iCE40, :class:`~systola_hdl.cells.multiplier_pair.MultiplierPair` makes two
    multipliers of one cell.

    Parameters
    ----------
    a_bits, b_bits:
        Operand widths, at least 2.
    fabric:
        Make the product of logic, not of a DSP block, on every FPGA: see
        :func:`~systola_hdl.cells.fabric_product.fabric_product`.

    Attributes
    ----------
    a:
        Moving operand, ``signed(a_bits)``.
    b:
        Stationary operand, ``signed(b_bits)``, taken when ``load``.
    p:
        Product, ``signed(a_bits + b_bits)``.
    """

    latency = REGISTERS

    def __init__(self, a_bits: int = 8, b_bits: int = 8, *, fabric: bool = False) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if bits < 2:
                raise ValueError(f"{name} must be at least 2, not {bits}")
        self._fabric = fabric
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "load": In(1), "p": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        family = family_of(platform)
        cell = None if self._fabric else MULTIPLIERS.get(family)
        if cell is not None and cell.takes(self.a, self.b):
            m.d.comb += self.p.eq(cell.add(m, self.a, self.b, self.load))
        else:
            moving = Signal.like(self.a, reset_less=True)
            stationary = Signal.like(self.b, reset_less=True)
            m.d.sync += moving.eq(self.a)
            with m.If(self.load):
                m.d.sync += stationary.eq(self.b)
            product = fabric_product(m, moving, stationary, family) if self._fabric else moving * stationary
            m.d.sync += self.p.eq(product)
        return m
