"""Instruction layouts for gateware, derived from :mod:`systola_firmware.spec.isa`."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data

from systola_firmware.spec import isa

__all__ = ["ERROR_CODE", "HEADER", "STREAM_LOOPS", "instruction_payload", "payload_layout", "words_layout"]


def words_layout(words: Sequence[Sequence[isa.Field]]) -> data.StructLayout:
    """Words of fields as one packed structure, first word in the low bits; bits that belong to no field are padding."""
    members: dict[str, object] = {}
    for index, word in enumerate(words):
        used = 0
        for field in word:
            members[field.name] = Shape(field.bits, field.signed)
            used += field.bits
        if used < isa.WORD_BITS:
            members[f"_pad{index}"] = isa.WORD_BITS - used
    return data.StructLayout(members)


#: Shape of an :class:`~systola_firmware.spec.isa.ErrorCode`.
ERROR_CODE = unsigned(8)
#: Loops of a MATMUL, outermost first.
STREAM_LOOPS = ("block", "group", "k2", "k1", "k0", "y", "x")
#: The header word.
HEADER = words_layout([isa.HEADER])


def payload_layout(opcode: isa.Opcode) -> data.StructLayout:
    """Payload words of ``opcode`` as one packed structure, first word in the low bits."""
    return words_layout(isa.INSTRUCTIONS[opcode].words)


def instruction_payload(unit: isa.Unit) -> data.StructLayout:
    """What the sequencer hands to a unit: the opcode, and as many payload words as the unit's longest instruction has.

    View ``words`` of an instruction by ``data.View(payload_layout(opcode), payload.words[:
    payload_layout(opcode).size])``.
    """
    return data.StructLayout({"opcode": 8, "words": isa.WORD_BITS * isa.MAX_PAYLOAD_WORDS[unit]})
