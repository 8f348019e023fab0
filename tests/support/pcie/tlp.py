"""Transaction-layer packets in Python: fields to dwords and back, from the standard's tables and nothing of the
gateware's.

A TLP on its way is a list of dwords, each an integer whose top byte is the first on the wire: what the two halves of a
beat of ``systola_hdl.pcie.tlp.stream.TlpStream`` hold.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Status",
    "Tlp",
    "TlpType",
    "byte_enables",
    "completion_count",
    "completion_lower_address",
    "dwords_of_bytes",
    "from_beats",
    "memory_read",
    "memory_write",
    "to_beats",
]


class TlpType(enum.IntEnum):
    """Fmt and Type, the first byte of a TLP."""

    MEMORY_READ_32 = 0x00
    MEMORY_READ_LOCKED_32 = 0x01
    IO_READ = 0x02
    CONFIG_READ_0 = 0x04
    CONFIG_READ_1 = 0x05
    COMPLETION = 0x0A
    COMPLETION_LOCKED = 0x0B
    MEMORY_READ_64 = 0x20
    MEMORY_READ_LOCKED_64 = 0x21
    MESSAGE_LOCAL = 0x34
    MEMORY_WRITE_32 = 0x40
    IO_WRITE = 0x42
    CONFIG_WRITE_0 = 0x44
    CONFIG_WRITE_1 = 0x45
    COMPLETION_DATA = 0x4A
    COMPLETION_DATA_LOCKED = 0x4B
    FETCH_ADD_32 = 0x4C
    SWAP_32 = 0x4D
    COMPARE_AND_SWAP_32 = 0x4E
    MEMORY_WRITE_64 = 0x60
    FETCH_ADD_64 = 0x6C
    SWAP_64 = 0x6D
    COMPARE_AND_SWAP_64 = 0x6E
    MESSAGE_DATA_LOCAL = 0x74

    @property
    def header_dwords(self) -> int:
        return 4 if self & 0x20 else 3

    @property
    def has_data(self) -> bool:
        return bool(self & 0x40)

    @property
    def is_memory(self) -> bool:
        """Memory read or write, not a locked one."""
        return self & 0x1F == 0

    @property
    def is_completion(self) -> bool:
        return self & 0x1E == 0x0A

    @property
    def is_message(self) -> bool:
        return self & 0x18 == 0x10

    @property
    def is_configuration(self) -> bool:
        return self & 0x1E == 4

    @property
    def is_posted(self) -> bool:
        """A request that is never answered."""
        return self.is_message or (self.is_memory and self.has_data)


class Status(enum.IntEnum):
    """Completion status."""

    SUCCESSFUL = 0
    UNSUPPORTED_REQUEST = 1
    CONFIG_RETRY = 2
    COMPLETER_ABORT = 4


@dataclass
class Tlp:
    """One packet. ``length`` (dwords, 1 to 1024) is the header's field, which of a malformed one may contradict
    ``payload``."""

    type: TlpType
    length: int = 1
    requester: int = 0
    tag: int = 0
    first_be: int = 0xF
    last_be: int = 0
    address: int = 0  #: of a memory or I/O request: bytes, a multiple of 4
    register: int = 0  #: of a configuration request: bytes, a multiple of 4
    completer: int = 0  #: of a completion; of a configuration request the function that it is meant for
    status: int = 0
    byte_count: int = 4
    modified: bool = False  #: the completion's BCM bit
    lower_address: int = 0
    traffic_class: int = 0
    attributes: int = 0  #: three bits
    poisoned: bool = False
    digest: bool = False
    payload: bytes = b""

    def dwords(self) -> list[int]:
        """The packet on its way."""
        high, low = self.attributes >> 2, self.attributes & 3
        first = (self.type << 24) | (self.traffic_class << 20) | (high << 18) | (self.digest << 15) | (self.poisoned << 14)
        words = [first | (low << 12) | (self.length & 0x3FF)]
        request = (self.requester << 16) | (self.tag << 8)
        if self.type.is_completion:
            words.append((self.completer << 16) | (self.status << 13) | (self.modified << 12) | (self.byte_count & 0xFFF))
            words.append(request | self.lower_address)
        elif self.type.is_configuration:
            words += [request | (self.last_be << 4) | self.first_be, (self.completer << 16) | self.register]
        else:
            words.append(request | (self.last_be << 4) | self.first_be)
            words += [self.address >> 32] if self.type.header_dwords == 4 else []
            words.append(self.address & 0xFFFF_FFFF)
        return words + dwords_of_bytes(self.payload)

    @classmethod
    def from_dwords(cls, words: Sequence[int]) -> Tlp:
        """The packet that ``words`` are. Raises ``ValueError`` if it is of no type known here or shorter than its
        header."""
        kind = TlpType(words[0] >> 24)
        header = kind.header_dwords
        if len(words) < header:
            raise ValueError(f"{len(words)} dwords, less than the header of {kind.name}")
        tlp = cls(
            kind,
            length=(words[0] & 0x3FF) or 1024,
            traffic_class=words[0] >> 20 & 7,
            attributes=(words[0] >> 16 & 4) | (words[0] >> 12 & 3),
            digest=bool(words[0] >> 15 & 1),
            poisoned=bool(words[0] >> 14 & 1),
            payload=b"".join(word.to_bytes(4, "big") for word in words[header:]),
        )
        if kind.is_completion:
            tlp.completer, tlp.status, tlp.modified = words[1] >> 16, words[1] >> 13 & 7, bool(words[1] >> 12 & 1)
            tlp.byte_count = (words[1] & 0xFFF) or 4096
            tlp.requester, tlp.tag, tlp.lower_address = words[2] >> 16, words[2] >> 8 & 0xFF, words[2] & 0x7F
            return tlp
        tlp.requester, tlp.tag, tlp.last_be, tlp.first_be = words[1] >> 16, words[1] >> 8 & 0xFF, words[1] >> 4 & 15, words[1] & 15
        if kind.is_configuration:
            tlp.completer, tlp.register = words[2] >> 16, words[2] & 0xFFC
        else:
            tlp.address = words[2] if header == 3 else (words[2] << 32) | words[3]
        return tlp


def dwords_of_bytes(content: bytes) -> list[int]:
    return [int.from_bytes(content[start : start + 4], "big") for start in range(0, len(content), 4)]


def byte_enables(address: int, length: int) -> tuple[int, int, int]:
    """Dwords, first and last byte enables of an access to ``length`` bytes (at least 1) from byte ``address`` on."""
    start, end = address % 4, address % 4 + length
    dwords = (end + 3) // 4
    first, last = 0xF << start & 0xF, 0xF >> (-end % 4)
    return (1, first & last, 0) if dwords == 1 else (dwords, first, last)


def memory_read(address: int, length: int = 4, **fields: Any) -> Tlp:
    """A read of ``length`` bytes from byte ``address`` on; ``fields`` as of :class:`Tlp`. ``length`` 0: a zero-length
    read."""
    dwords, first, last = byte_enables(address, length) if length else (1, 0, 0)
    kind = TlpType.MEMORY_READ_64 if address >> 32 else TlpType.MEMORY_READ_32
    return Tlp(kind, length=dwords, address=address & ~3, first_be=first, last_be=last, **fields)


def memory_write(address: int, content: bytes, **fields: Any) -> Tlp:
    """A write of ``content`` (at least a byte) from byte ``address`` on."""
    dwords, first, last = byte_enables(address, len(content))
    kind = TlpType.MEMORY_WRITE_64 if address >> 32 else TlpType.MEMORY_WRITE_32
    payload = (bytes(address % 4) + content).ljust(4 * dwords, b"\0")
    return Tlp(kind, length=dwords, address=address & ~3, first_be=first, last_be=last, payload=payload, **fields)


def _enabled(first_be: int) -> range:
    """Bytes of a dword from its first enabled to its last enabled one; byte 0 if none is."""
    return range((first_be & -first_be).bit_length() - 1, first_be.bit_length()) if first_be else range(1)


def completion_count(request: Tlp) -> int:
    """Byte Count of a memory read's first completion."""
    if request.length == 1:
        return len(_enabled(request.first_be))
    return 4 * request.length - _enabled(request.first_be).start - (4 - _enabled(request.last_be).stop)


def completion_lower_address(request: Tlp) -> int:
    """Lower Address of a memory read's first completion."""
    return (request.address & 0x7C) | _enabled(request.first_be).start


def to_beats(words: Sequence[int], **flags: int) -> list[dict[str, int]]:
    """Beats of a TLP stream; ``flags`` (``error``, ``bar_hit``) are set in all of them."""
    beats = []
    for start in range(0, len(words), 2):
        pair = words[start : start + 2]
        word = pair[0] | (pair[1] << 32 if len(pair) == 2 else 0)
        marks = {"keep": 3 if len(pair) == 2 else 1, "first": int(start == 0), "last": int(start + 2 >= len(words))}
        beats.append({"data": word, "error": 0, "bar_hit": 0} | marks | flags)
    return beats


def from_beats(beats: Iterable[tuple[int, int]]) -> list[int]:
    """Dwords of a TLP from the ``data`` and ``keep`` of its beats."""
    words = []
    for word, keep in beats:
        words += [word & 0xFFFF_FFFF, word >> 32] if keep == 3 else [word & 0xFFFF_FFFF]
    return words
