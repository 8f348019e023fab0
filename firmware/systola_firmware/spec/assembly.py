"""Text form of programs: assembler and disassembler, both derived from the instruction set's tables.

One instruction a line, its fields in any order, a comment from ``#``::

    MATMUL source=0x120 x=32:16 y=16:544 k0=3:16 k1=3:544 group=2:0 weights=0x40 wait=POST
    POST destination=0x4000 last_columns=8 per_channel rounding=DOUBLE x=32:16 y=16:512 group=2:8 signal=MATMUL mark

* A loop is ``count:step`` in bytes, and ``1:0`` if it is not named; any other field that is not named is 0, also a
  count without a step of its own.
* A field of one bit may stand without a value for 1. Numbers are decimal, or have Python's prefixes; ``rounding`` and
  ``combine`` take names.
* ``wait`` and ``signal`` take unit names, separated by commas; ``mark`` stands alone.
* ``.word 0x12345678`` stands for any word; the disassembler writes words that are no instruction in this way.

Assembling a disassembly gives the same words, whatever they are.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

from systola_firmware.spec.isa import INSTRUCTIONS, Combine, Field, Instruction, IsaError, Opcode, Operation, Rounding, Unit, decode

__all__ = ["AssemblyError", "assemble", "disassemble", "format_operation"]

_ENUMERATIONS: dict[str, type[enum.IntEnum]] = {"rounding": Rounding, "combine": Combine}
#: Fields written in hexadecimal: addresses.
_ADDRESSES = frozenset({"source", "source1", "destination", "weights", "parameters", "hidden", "preactivation", "cell"})
_COUNT, _STEP = "_count", "_step"
_DATA = ".word"


class AssemblyError(ValueError):
    """A line that is no instruction; the message begins with the line's number and names the field."""


def _loops(definition: Instruction) -> set[str]:
    """Names of the fields that come as ``count`` and ``step``."""
    names = {name.removesuffix(_COUNT) for name in definition.fields if name.endswith(_COUNT)}
    return {name for name in names if name + _STEP in definition.fields}


def _format_value(field: Field, value: int) -> str:
    if field.name in _ENUMERATIONS:
        names = {member.value: member.name for member in _ENUMERATIONS[field.name]}
        return f"{field.name}={names.get(value, value)}"
    if field.bits == 1:
        return field.name
    return f"{field.name}={value:#x}" if field.name in _ADDRESSES else f"{field.name}={value}"


def format_operation(operation: Operation) -> str:
    """One line of assembly, without line end."""
    definition = operation.definition
    loops = _loops(definition)
    parts = [operation.opcode.name]
    for name, field in definition.fields.items():
        loop = name.removesuffix(_COUNT).removesuffix(_STEP)
        if loop in loops:
            pair = operation[loop + _COUNT], operation[loop + _STEP]
            if name.endswith(_COUNT) and pair != (1, 0):
                parts.append(f"{loop}={pair[0]}:{pair[1]}")
        elif operation[name]:
            parts.append(_format_value(field, operation[name]))
    for word, units in (("wait", operation.wait), ("signal", operation.signal)):
        if units:
            parts.append(f"{word}={','.join(unit.name for unit in units)}")
    if operation.mark:
        parts.append("mark")
    return " ".join(parts)


def disassemble(words: Sequence[int], labels: Mapping[int, str] | None = None) -> str:
    """Assembly of all ``words``, each line with its address in words as a comment.

    ``labels`` maps addresses to titles, such as layer names, that stand on a comment line before their instruction.
    """
    values = [int(word) for word in words]
    lines: list[tuple[str, int]] = []
    position = 0
    while position < len(values):
        try:
            operation, following = decode(values, position)
            exact = operation.encode() == values[position:following]
        except IsaError:
            exact = False
        if exact:
            lines.append((format_operation(operation), position))
            position = following
        else:
            lines.append((f"{_DATA} {values[position]:#010x}", position))
            position += 1
    result = []
    for text, address in lines:
        if labels and address in labels:
            result += ["", f"# {labels[address]}"]
        result.append(f"{text}  # {address}")
    return "\n".join(result).lstrip("\n") + "\n" if result else ""


def _number(text: str, where: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise AssemblyError(f"{where}: {text!r} is not a number") from None


def _units(text: str, where: str) -> tuple[Unit, ...]:
    try:
        return tuple(sorted({Unit[name] for name in text.split(",")}))
    except KeyError as error:
        raise AssemblyError(f"{where}: {error.args[0]!r} is not a unit: {', '.join(unit.name for unit in Unit)}") from None


def _value(field: Field, text: str | None, where: str) -> int:
    if text is None:
        if field.bits != 1:
            raise AssemblyError(f"{where}: a value is missing")
        return 1
    enumeration = _ENUMERATIONS.get(field.name)
    if enumeration and text in enumeration.__members__:
        return int(enumeration[text])
    return _number(text, where)


def _assemble_line(parts: Sequence[str], line: str) -> list[int]:
    if parts[0] == _DATA:
        if len(parts) != 2:
            raise AssemblyError(f"{line}: {_DATA} takes one number")
        word = _number(parts[1], f"{line}: {_DATA}")
        if not 0 <= word < 1 << 32:
            raise AssemblyError(f"{line}: {_DATA}: {parts[1]} does not fit 32 bits")
        return [word]
    if parts[0] not in Opcode.__members__:
        raise AssemblyError(f"{line}: {parts[0]!r} is not an instruction: {', '.join(Opcode.__members__)}")
    definition = INSTRUCTIONS[Opcode[parts[0]]]
    loops = _loops(definition)
    values = {loop + _COUNT: 1 for loop in loops}
    tokens: dict[str, tuple[Unit, ...]] = {"wait": (), "signal": ()}
    mark = False
    seen = set()
    for part in parts[1:]:
        name, equals, rest = part.partition("=")
        text = rest if equals else None
        where = f"{line}: field {name!r}"
        if name in seen:
            raise AssemblyError(f"{where} is given twice")
        seen.add(name)
        if name == "mark" and text is None:
            mark = True
        elif name in tokens:
            tokens[name] = _units(text or "", where)
        elif name in loops:
            count, colon, step = (text or "").partition(":")
            if not colon:
                raise AssemblyError(f"{where}: a loop is count:step")
            values[name + _COUNT], values[name + _STEP] = _number(count, where), _number(step, where)
        elif name in definition.fields and name.removesuffix(_COUNT).removesuffix(_STEP) not in loops:
            values[name] = _value(definition.fields[name], text, where)
        else:
            raise AssemblyError(f"{where} is unknown to {parts[0]}")
    try:
        return Operation(definition.opcode, values, tokens["wait"], tokens["signal"], mark).encode()
    except IsaError as error:
        raise AssemblyError(f"{line}: {error}") from None


def assemble(text: str | Iterable[str]) -> list[int]:
    """Words of a program in assembly, a string or its lines. Raises :class:`AssemblyError` at the first bad line."""
    words: list[int] = []
    for number, line in enumerate(text.splitlines() if isinstance(text, str) else text, start=1):
        parts = line.partition("#")[0].split()
        if parts:
            words += _assemble_line(parts, f"line {number}")
    return words
