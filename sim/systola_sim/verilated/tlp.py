"""The transaction-layer packets that a root complex needs, as bytes in wire order: requests and completions, both
ways."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Completion", "MemoryRequest", "completions", "parse", "read_request", "write_request"]

_MEMORY_READ, _MEMORY_WRITE, _COMPLETION, _COMPLETION_DATA = 0x00, 0x40, 0x0A, 0x4A
_FOUR_DWORDS = 0x20
_POISONED = 1 << 14
_LENGTH_MASK = 0x3FF
_PAGE = 4096


@dataclass(frozen=True)
class MemoryRequest:
    """A memory read, or a write of ``payload`` (whole dwords), from ``address``, a multiple of 4."""

    write: bool
    address: int
    dwords: int
    first_enables: int
    last_enables: int
    requester: int
    tag: int
    attributes: int
    payload: bytes = b""

    def byte_range(self) -> tuple[int, int]:
        """The bytes asked for: address of the first, and how many. A byte that is not enabled counts if it is between
        two that are."""
        enables = [self.first_enables] if self.dwords == 1 else [self.first_enables, self.last_enables]
        skipped = (enables[0] & -enables[0]).bit_length() - 1 if enables[0] else 0
        end = 4 * (self.dwords - 1) + (enables[-1].bit_length() if enables[-1] else 1)
        return self.address + skipped, end - skipped


@dataclass(frozen=True)
class Completion:
    """A completion; ``payload`` is empty without data."""

    status: int
    tag: int
    payload: bytes


def _dwords(*words: int) -> bytes:
    return struct.pack(f">{len(words)}I", *words)


def _request(kind: int, address: int, requester: int, tag: int, payload: bytes) -> bytes:
    address_words = (address >> 32, address & 0xFFFF_FFFF) if address >> 32 else (address,)
    kind |= _FOUR_DWORDS if address >> 32 else 0
    return _dwords(kind << 24 | 1, requester << 16 | tag << 8 | 0xF, *address_words) + payload


def read_request(address: int, requester: int, tag: int) -> bytes:
    """A read of the word at ``address``, a multiple of 4."""
    return _request(_MEMORY_READ, address, requester, tag, b"")


def write_request(address: int, value: int, requester: int) -> bytes:
    """A write of the word at ``address``, a multiple of 4."""
    return _request(_MEMORY_WRITE, address, requester, 0, value.to_bytes(4, "little"))


def parse(packet: bytes) -> MemoryRequest | Completion:
    """What the device has sent. Raises ``ValueError`` for a packet that it should not send."""
    first, second, third = struct.unpack_from(">3I", packet)
    kind, dwords = first >> 24, (first & _LENGTH_MASK) or _LENGTH_MASK + 1
    if kind in (_COMPLETION, _COMPLETION_DATA):
        return Completion(second >> 13 & 7, third >> 8 & 0xFF, packet[12:])
    if kind & ~(_FOUR_DWORDS | _MEMORY_WRITE):
        raise ValueError(f"a packet of kind {kind:#04x} from the device")
    address, header = (third, 12) if not kind & _FOUR_DWORDS else (third << 32 | struct.unpack_from(">I", packet, 12)[0], 16)
    write = bool(kind & _MEMORY_WRITE)
    if len(packet) != header + (4 * dwords if write else 0):
        raise ValueError(f"a packet of {len(packet)} bytes whose header says {dwords} dwords")
    return MemoryRequest(
        write, address, dwords, second & 0xF, second >> 4 & 0xF, second >> 16, second >> 8 & 0xFF, first & 0x3000, packet[header:]
    )


def completions(request: MemoryRequest, data: bytes | None, most: int, *, status: int = 0, poisoned: bool = False) -> list[bytes]:
    """The answer to a read, in packets of up to ``most`` bytes that end at multiples of ``most``.

    ``data`` are the bytes of ``request.byte_range()``; None if the read is refused, with ``status``.
    """
    start, left = request.byte_range()
    packets = []
    while left:
        lower = start & 0x7F
        identity = _dwords(status << 13 | left & 0xFFF, request.requester << 16 | request.tag << 8 | lower)
        if data is None:
            return [_dwords(_COMPLETION << 24 | request.attributes) + identity]
        count = min(left, most - start % most)
        body = bytes(start % 4) + data[:count]
        body += bytes(-len(body) % 4)
        flags = _POISONED if poisoned else 0
        packets.append(
            _dwords(_COMPLETION_DATA << 24 | flags | request.attributes | len(body) // 4 & _LENGTH_MASK) + identity + body
        )
        data, start, left = data[count:], start + count, left - count
    return packets
