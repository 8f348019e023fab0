"""What the blocks of the compact post-processor tell each other."""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data

__all__ = ["EXPONENT", "FACTOR", "FIELDS", "MULTIPLIER_BITS", "OPERAND", "OUTPUT", "RESULT_BITS", "VALUE"]

#: Bits of a multiplier, which is never negative.
MULTIPLIER_BITS = 31
#: Shape of an exponent: 6 - shift, 0 to 37.
EXPONENT = range(64)
#: Bits of a result before the clamp to 8.
RESULT_BITS = 16

#: The real factor of a requantization: multiplier (0 or 2^30 to 2^31 - 1) and 6 - shift.
FACTOR = data.StructLayout({"multiplier": MULTIPLIER_BITS, "exponent": EXPONENT})

#: How a value becomes a result. ``is_double``, ``is_single``: the rounding is DOUBLE or SINGLE; neither means UP. The
#: zero point is added, and the sum is clamped; with ``wide``, none of these three matters, and the result is int16.
OUTPUT = data.StructLayout(
    {
        "is_double": 1,
        "is_single": 1,
        "wide": 1,
        "zero_point": signed(8),
        "minimum": signed(8),
        "maximum": signed(8),
    }
)

#: What the unit's blocks know of the instruction that runs; it is constant while values are under way.
#:
#: ``is_post``, ``is_vector``
#:     The opcode; neither is TABLE.
#: ``last_columns``, ``per_channel``
#:     Fields of a POST; ``per_channel`` is low for other instructions.
#: ``tables``
#:     Field of a TABLE.
#: ``output``
#:     :data:`OUTPUT`; SINGLE also stands for the identity. ``wide`` is low for other instructions than a POST.
#: ``identity``
#:     A VECTOR that does not requantize: its factor is to be that of the identity.
#: ``fills``
#:     A VECTOR without operands.
#: ``by_words``
#:     Such a VECTOR whose runs are whole words of four bytes, in steps of one: it is written word by word.
#: ``two_sources``
#:     A VECTOR of two operands.
#: ``has_taps``
#:     A VECTOR with more than one tap an output.
#: ``takes_maximum``
#:     A VECTOR that combines by MAX, not by SUM.
#: ``table``
#:     A VECTOR that maps each operand byte through its table.
#:
#: Fields without a remark mean nothing for instructions that do not have them.
FIELDS = data.StructLayout(
    {
        "is_post": 1,
        "is_vector": 1,
        "last_columns": 3,
        "per_channel": 1,
        "tables": 2,
        "output": OUTPUT,
        "identity": 1,
        "fills": 1,
        "by_words": 1,
        "two_sources": 1,
        "has_taps": 1,
        "takes_maximum": 1,
        "table": 1,
    }
)

#: An operand of VECTOR, and whether it is its output's first or last.
OPERAND = data.StructLayout({"value": signed(32), "first": 1, "last": 1})

#: A value before requantization, and whether it is the first of a row: of a position of POST, or any of VECTOR.
VALUE = data.StructLayout({"value": signed(32), "first": 1})
