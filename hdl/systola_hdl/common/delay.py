"""Delay lines."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, ValueLike

__all__ = ["delayed"]


def delayed(
    m: Module, value: ValueLike, cycles: int, name: str = "delayed", *, init: int | None = None, keep: bool = False
) -> ValueLike:
    """``value``, ``cycles`` cycles later, through plain registers; ``init`` gives them a reset value, else they have
    none.

    ``keep``: synthesis must not merge them with registers that hold the same value for other parts of the chip. Call
    this outside every ``m.If``, because the registers must follow in every cycle.
    """
    attributes = {"keep": 1} if keep else {}
    for cycle in range(cycles):
        register = Signal.like(value, name=f"{name}_{cycle + 1}", init=init, reset_less=init is None, attrs=attributes)
        m.d.sync += register.eq(value)
        value = register
    return value
