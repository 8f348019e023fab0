"""Signed multiplier with a stationary operand: the body of the array's cells."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Multiplier"]


class Multiplier(Component):
    """``p = a * b``, exact, two's complement; portable body, left to the synthesiser's inference.

    Cycle 1 registers both operands, ``b`` only where ``load`` is set: the stationary operand lives in the multiplier's
    own input register, as the DSP blocks of every FPGA family have one. Cycle 2 registers the product. One product a cycle,
    :attr:`latency` cycles after ``a``; ``load`` with ``b`` applies to the ``a`` of the same cycle and to all that follow.

    Parameters
    ----------
    a_bits, b_bits:
        Operand widths, at least 2.

    Attributes
    ----------
    a:
        Moving operand, ``signed(a_bits)``.
    b:
        Stationary operand, ``signed(b_bits)``, taken when ``load``.
    p:
        Product, ``signed(a_bits + b_bits)``.
    """

    latency = 2

    def __init__(self, a_bits: int = 8, b_bits: int = 8) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if bits < 2:
                raise ValueError(f"{name} must be at least 2, not {bits}")
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "load": In(1), "p": Out(signed(a_bits + b_bits))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        moving = Signal.like(self.a, reset_less=True)
        stationary = Signal.like(self.b, reset_less=True)
        m.d.sync += [moving.eq(self.a), self.p.eq(moving * stationary)]
        with m.If(self.load):
            m.d.sync += stationary.eq(self.b)
        return m
