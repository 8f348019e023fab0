"""Instructions that break one rule each, made from the rules that stand at the fields."""

from __future__ import annotations

from collections.abc import Iterator

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, Condition, Opcode

Changes = dict[str, int]


def _condition(only: Condition | None) -> Changes:
    return {} if only is None else {only.field: only.values[0]}


def borders(opcode: Opcode, config: Config) -> Iterator[tuple[Changes, bool]]:
    """Changes of fields of an instruction that breaks no rule, and whether it is legal with them: both sides of each
    border.

    Of its other fields counts are 1, where a rule is about their product; a VECTOR has one source.
    """
    for name, field in INSTRUCTIONS[opcode].fields.items():
        if field.legal is None:
            continue
        low, high = field.legal.bounds(field, config)
        needed = _condition(field.legal.only)
        bounds = [rule.bound(config) for rule in INSTRUCTIONS[opcode].rules if name in rule.fields and rule.only is None]
        for value in {low - 1, low, high, high + 1}:
            if field.minimum <= value <= field.maximum and value <= min(bounds, default=value):
                yield {**needed, name: value}, low <= value <= high
    for rule in INSTRUCTIONS[opcode].rules:
        bound = rule.bound(config)
        for name in rule.fields:
            ones = dict.fromkeys(rule.fields, 1)
            for value in (bound, bound + 1):
                yield {**_condition(rule.only), **ones, name: value}, value <= bound
        if bound > 1:
            first, *others = rule.fields
            yield {**_condition(rule.only), **dict.fromkeys(others, 2), first: bound // 2 + 1}, False
