"""Two signed multipliers with stationary operands that are loaded together: one DSP block of an iCE40."""

from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.cells.dsp_cells import REGISTERS, ice40_multiplier_pair
from systola_hdl.cells.families import Family, family_of
from systola_hdl.cells.multiplier import Multiplier

__all__ = ["MultiplierPair"]


class MultiplierPair(Component):
    """``p0 = a0 * b0`` and ``p1 = a1 * b1``, exact, int8 by int8, in the manner of
    :class:`~systola_hdl.cells.multiplier.Multiplier`.

    Cycle 1 registers the operands, ``b0`` and ``b1`` only where ``load`` is set; cycle 2 registers the products. A pair
    of products a cycle, :attr:`latency` cycles after ``a0`` and ``a1``; ``load`` applies to the operands of the same
    cycle and to all that follow.

    Implementation: iCE40 one ``SB_MAC16`` and nothing else; elsewhere two multipliers. There is one ``load`` because
    ``SB_MAC16`` has one hold for the register of both its B operands (and one for both its A operands).

    Attributes
    ----------
    a0, a1:
        Moving operands.
    b0, b1:
        Stationary operands, taken when ``load``.
    p0, p1:
        Products.
    """

    latency = REGISTERS

    a0: In(signed(8))
    a1: In(signed(8))
    b0: In(signed(8))
    b1: In(signed(8))
    load: In(1)
    p0: Out(signed(16))
    p1: Out(signed(16))

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if family_of(platform) is Family.ICE40:
            products = ice40_multiplier_pair(m, (self.a0, self.a1), (self.b0, self.b1), self.load)
            m.d.comb += [self.p0.eq(products[0]), self.p1.eq(products[1])]
            return m
        for index, (a, b, p) in enumerate(((self.a0, self.b0, self.p0), (self.a1, self.b1, self.p1))):
            m.submodules[f"multiplier{index}"] = multiplier = Multiplier()
            m.d.comb += [multiplier.a.eq(a), multiplier.b.eq(b), multiplier.load.eq(self.load), p.eq(multiplier.p)]
        return m
