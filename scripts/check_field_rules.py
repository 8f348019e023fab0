"""Finds rules on instruction fields that stand anywhere but at the field, in ``systola_firmware.spec.isa``.

    python scripts/check_field_rules.py [FOLDER ...]

A comparison of a field with a number is such a rule if it, or its opposite, is true for illegal values only: the
comparison then separates what an engine takes from what it refuses. So is an order comparison of a field whose bound is
one of the engine's sizes with that size. A field is known by its name: ``fields.shift``, ``operation["shift"]`` or a
call with the name as a constant, such as ``field_of(Opcode.POST, "shift", word)``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from systola_firmware.spec.isa import INSTRUCTIONS, Field
from systola_firmware.spec.presets import PRESETS

FOLDERS = ("hdl", "firmware", "host", "sim", "boards")
#: The files that may have such rules: the definitions, and the gateware that makes comparisons of them.
ALLOWED = ("systola_firmware/spec/isa.py", "systola_hdl/common/field_rules.py")

_COMPARISONS = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


def _fields() -> dict[str, list[Field]]:
    found: dict[str, list[Field]] = {}
    for definition in INSTRUCTIONS.values():
        for name, field in definition.fields.items():
            if field.legal is not None:
                found.setdefault(name, []).append(field)
    return found


_FIELDS = _fields()


def _names(node: ast.expr) -> list[str]:
    """Names of the fields that an expression may stand for."""
    if isinstance(node, ast.Attribute):
        return [node.attr] if node.attr in _FIELDS else []
    if isinstance(node, ast.Subscript):
        return _text(node.slice)
    if isinstance(node, ast.Call):
        return [name for argument in node.args for name in _text(argument)]
    return []


def _text(node: ast.expr) -> list[str]:
    """The name of a field if it is a constant; the names of all counts if it is made from the name of a loop."""
    if isinstance(node, ast.Constant) and node.value in _FIELDS:
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr) and isinstance(last := node.values[-1], ast.Constant) and last.value == "_count":
        return ["x_count"]
    return []


def _number(node: ast.expr) -> int | None:
    """The value of a number, or of ``Rounding.FP32``."""
    if isinstance(node, ast.Attribute) and node.attr == "FP32":
        return next(field.legal.reserved for field in _FIELDS["rounding"] if field.legal is not None)
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, int) else None


def _is_rule(field: Field, operation: type[ast.cmpop], number: int) -> bool:
    compare = _COMPARISONS[operation]
    config = next(iter(PRESETS.values()))
    assert field.legal is not None
    low, high = field.legal.bounds(field, config)
    legal = {compare(value, number) for value in (low, low + 1, high - 1, high) if low <= value <= high}
    below, above = range(field.minimum, low), range(high + 1, field.maximum + 1)
    ends = [part[index] for part in (below, above) if part for index in (0, -1)]
    illegal = {compare(value, number) for value in ends}
    # A rule has one result for all legal values, and the other result for some illegal value.
    return len(legal) == 1 and bool(illegal - legal) and isinstance(field.legal.high, int | None)


def _sized_rule(field: Field, other: ast.expr) -> bool:
    size = field.legal.high if field.legal is not None else None
    names = {node.attr for node in ast.walk(other) if isinstance(node, ast.Attribute)}
    return isinstance(size, str) and (size in names or (size == "units_per_group" and "columns" in names))


def rules_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each field that a rule is made of in the text of a module."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for left, operation, right in zip(sides, node.ops, sides[1:], strict=False):
            if type(operation) not in _COMPARISONS:
                continue
            for field_side, other, mirrored in ((left, right, False), (right, left, True)):
                kind = _mirror(type(operation)) if mirrored else type(operation)
                number = _number(other)
                for name in _names(field_side):
                    if any(
                        (number is not None and _is_rule(field, kind, number))
                        or (number is None and kind not in (ast.Eq, ast.NotEq) and _sized_rule(field, other))
                        for field in _FIELDS[name]
                    ):
                        yield node.lineno, name


def _mirror(operation: type[ast.cmpop]) -> type[ast.cmpop]:
    return {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}.get(operation, operation)


def main(folders: list[str]) -> int:
    """Print every rule that is found; the exit code is 1 if there is one."""
    found = 0
    for folder in folders or FOLDERS:
        for path in sorted(Path(folder).rglob("*.py")):
            if path.as_posix().endswith(ALLOWED):
                continue
            for line, name in rules_in(path.read_text(encoding="utf-8")):
                found += 1
                print(f"{path}:{line}: a rule on the field {name}; it belongs to the field in systola_firmware/spec/isa.py")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
