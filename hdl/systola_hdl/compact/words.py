"""Where the fields of an instruction lie: in which payload word, and at which bits."""

from __future__ import annotations

from amaranth.hdl import Value

from systola_firmware.spec.isa import INSTRUCTIONS, Opcode

__all__ = ["field_of", "word_of"]


def word_of(opcode: Opcode, name: str) -> int:
    """Number of the payload word of ``opcode`` that has the field ``name``."""
    for index, word in enumerate(INSTRUCTIONS[opcode].words):
        if any(field.name == name for field in word):
            return index
    raise KeyError(f"{opcode.name} has no field {name}")


def field_of(opcode: Opcode, name: str, word: Value) -> Value:
    """The field ``name`` of ``opcode``, if ``word`` is its payload word."""
    position = 0
    for field in INSTRUCTIONS[opcode].words[word_of(opcode, name)]:
        if field.name == name:
            value = word[position : position + field.bits]
            return value.as_signed() if field.signed else value
        position += field.bits
    raise KeyError(name)
