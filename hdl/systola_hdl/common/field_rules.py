"""Checks of instruction fields, made of the rules that stand at the fields in :mod:`systola_firmware.spec.isa`."""

from __future__ import annotations

from amaranth.hdl import Value

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, Condition, Field, Legal, Opcode

__all__ = ["above", "below", "bounds_of", "broken", "outside", "product_bound"]


def _rule(opcode: Opcode, name: str) -> tuple[Field, Legal]:
    field = INSTRUCTIONS[opcode].fields[name]
    if field.legal is None:
        raise ValueError(f"every value of the field {name} of {opcode.name} is legal")
    return field, field.legal


def bounds_of(opcode: Opcode, name: str, config: Config) -> tuple[int, int]:
    """Smallest and largest legal value on the engine of ``config``. Raises ``ValueError`` for a field without rule."""
    field, legal = _rule(opcode, name)
    return legal.bounds(field, config)


def product_bound(opcode: Opcode, config: Config) -> int:
    """Largest legal product of the fields in the one rule that ``opcode`` has on a product."""
    (rule,) = INSTRUCTIONS[opcode].rules
    return rule.bound(config)


def below(opcode: Opcode, name: str, value: Value, config: Config) -> Value:
    """Whether ``value`` is less than the least legal value. For fields that can hold a smaller one."""
    low, _ = bounds_of(opcode, name, config)
    return value == 0 if low == 1 else value < low


def above(opcode: Opcode, name: str, value: Value, config: Config) -> Value:
    """Whether ``value`` is more than the largest legal value. For fields that can hold a larger one."""
    field, legal = _rule(opcode, name)
    _, high = legal.bounds(field, config)
    if legal.reserved is not None:
        return value >= legal.reserved
    return value == field.maximum if high + 1 == field.maximum else value > high


def outside(opcode: Opcode, name: str, value: Value, config: Config) -> Value:
    """Whether ``value`` is not legal for the field; the condition of the rule, if it has one, is not looked at."""
    field, legal = _rule(opcode, name)
    low, high = legal.bounds(field, config)
    parts = []
    if low > field.minimum:
        parts.append(below(opcode, name, value, config))
    if high < field.maximum:
        parts.append(above(opcode, name, value, config))
    return parts[0] | parts[1] if len(parts) == 2 else parts[0]


def _holds(only: Condition, fields: dict[str, Value]) -> Value:
    """Whether a rule's condition, which is on a field of one bit, is met."""
    value = fields[only.field]
    return value if only.values == (1,) else ~value


def broken(opcode: Opcode, name: str, fields: dict[str, Value], config: Config) -> Value:
    """Whether the field ``name`` among ``fields`` breaks its rule."""
    _, legal = _rule(opcode, name)
    is_outside = outside(opcode, name, fields[name], config)
    return is_outside if legal.only is None else is_outside & _holds(legal.only, fields)
