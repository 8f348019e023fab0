"""Forms of logic that take few LUTs of four inputs."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Mux, Value

__all__ = ["is_below", "moved", "one_of"]

#: A comparison lists the values below its limit, instead of using a carry chain, if they are no more than this.
_LISTED = 32


def is_below(value: Value, limit: int) -> Value:
    """``value < limit`` for an unsigned value and a positive limit, made of only those bits that decide it."""
    low = (limit & -limit).bit_length() - 1
    high = (limit - 1).bit_length()
    if limit == 1 << high:
        return ~value[high:].any()
    if limit >> low > _LISTED:
        return value < limit
    return ~value[high:].any() & value[low:high].matches(*range(limit >> low))


def moved(value: Value, base: int, size: int) -> Value:
    """``base + value`` for values below ``size``. Without an adder if ``base`` is a multiple of a power of two that is
    at least ``size``."""
    bits = (size - 1).bit_length()
    if base % (1 << bits):
        return value + base
    return Cat(value[:bits], Const(base >> bits, max(base.bit_length() - bits, 1)))


def one_of(choices: Iterable[tuple[Value, Value | int]]) -> Value:
    """The value whose condition is true, 0 if none is; at most one condition may be true."""
    return functools.reduce(operator.or_, (Mux(condition, value, 0) for condition, value in choices))
