"""Layouts of TLP headers as in the standard's tables, and the largest size of our requests."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Value
from amaranth.lib import data

__all__ = [
    "COMPLETION_DWORD",
    "COMPLETION_HEADER",
    "COMPLETION_REQUESTER",
    "FIRST_DWORD",
    "LARGEST_SEGMENT",
    "REQUEST_DWORD",
    "REQUEST_HEADER",
    "CompletionStatus",
    "TypeField",
    "is_completion",
    "swap_bytes",
]

#: Most bytes that one of our requests asks for or carries.
LARGEST_SEGMENT = 256

#: First dword of every header. ``with_data`` and ``long`` (four dwords) are Fmt's lower bits; ``prefix`` is its upper.
FIRST_DWORD = data.StructLayout(
    {
        "length": 10,
        "address_type": 2,
        "attributes_low": 2,
        "poisoned": 1,
        "digest": 1,
        "reserved_low": 2,
        "attributes_high": 1,
        "reserved_high": 1,
        "traffic_class": 3,
        "reserved_top": 1,
        "type": 5,
        "long": 1,
        "with_data": 1,
        "prefix": 1,
    }
)
#: Second dword of a request.
REQUEST_DWORD = data.StructLayout({"first_be": 4, "last_be": 4, "tag": 8, "requester": 16})
#: Second dword of a completion.
COMPLETION_DWORD = data.StructLayout({"byte_count": 12, "modified": 1, "status": 3, "completer": 16})
#: Third dword of a completion.
COMPLETION_REQUESTER = data.StructLayout({"lower_address": 7, "reserved": 1, "tag": 8, "requester": 16})
#: The first two dwords of a request's header; the address follows, in one dword or in two.
REQUEST_HEADER = data.StructLayout({**FIRST_DWORD.members, **REQUEST_DWORD.members})
#: The header of a completion: three dwords.
COMPLETION_HEADER = data.StructLayout({**FIRST_DWORD.members, **COMPLETION_DWORD.members, **COMPLETION_REQUESTER.members})


class TypeField(enum.IntEnum):
    """Type, without Fmt."""

    MEMORY = 0b00000
    MEMORY_LOCKED = 0b00001
    IO = 0b00010
    CONFIGURATION_0 = 0b00100
    CONFIGURATION_1 = 0b00101
    COMPLETION = 0b01010
    COMPLETION_LOCKED = 0b01011
    FETCH_ADD = 0b01100
    SWAP = 0b01101
    COMPARE_AND_SWAP = 0b01110


class CompletionStatus(enum.IntEnum):
    """Completion Status."""

    SUCCESSFUL = 0
    UNSUPPORTED_REQUEST = 1
    CONFIG_RETRY = 2
    COMPLETER_ABORT = 4


def swap_bytes(word: Value) -> Value:
    """Each dword's bytes in reverse order: converts between a TLP's dwords and little-endian words."""
    return Cat(word[low : low + 8] for dword in range(0, len(word), 32) for low in range(dword + 24, dword - 8, -8))


def is_completion(first_beat: Value) -> Value:
    """Whether a TLP's first beat begins a completion (with data or without, locked or not)."""
    return data.View(FIRST_DWORD, first_beat[:32]).type.matches(TypeField.COMPLETION, TypeField.COMPLETION_LOCKED)
