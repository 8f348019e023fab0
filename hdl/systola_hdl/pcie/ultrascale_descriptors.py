"""Descriptors of the UltraScale+ hard block's streams, and their conversion from and to TLP headers.

AMD PG213, "UltraScale+ Devices Integrated Block for PCI Express", chapter "Designing with the Core"; the header's fields are those
of the PCI Express Base Specification. A descriptor's dwords are numbers, and its payload bytes ascend with the bits; a
:class:`~systola_hdl.pcie.stream.TlpStream` has the first wire byte of each dword on top: :func:`swapped` goes between the payloads.
"""

from __future__ import annotations

import enum

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, ValueCastable
from amaranth.lib import data

__all__ = [
    "CompleterCompletion",
    "CompleterRequest",
    "CompletionHeader",
    "CompletionStatus",
    "ErrorCode",
    "RequestHeader",
    "RequestType",
    "RequesterCompletion",
    "RequesterRequest",
    "completion_descriptor",
    "completion_header",
    "is_completion",
    "request_descriptor",
    "request_header",
    "swapped",
]


class RequestType(enum.IntEnum):
    """``request_type`` of both request descriptors. From 12 on there are messages, which have another descriptor."""

    MEMORY_READ = 0
    MEMORY_WRITE = 1
    IO_READ = 2
    IO_WRITE = 3
    FETCH_ADD = 4
    SWAP = 5
    COMPARE_AND_SWAP = 6
    LOCKED_READ = 7


class ErrorCode(enum.IntEnum):
    """``error_code`` of :class:`RequesterCompletion`: what the hard block found when it matched a completion to its request."""

    NONE = 0
    POISONED = 1
    BAD_STATUS = 2
    INVALID_LENGTH = 3
    MISMATCH = 4
    INVALID_ADDRESS = 5
    INVALID_TAG = 6
    FUNCTION_RESET = 8
    TIMEOUT = 9


class CompletionStatus(enum.IntEnum):
    """Status of a completion."""

    SUCCESSFUL = 0
    UNSUPPORTED_REQUEST = 1
    CONFIGURATION_RETRY = 2
    COMPLETER_ABORT = 4


#: Type field of a TLP (its lower five bits) for each request type that has one.
_TYPES = {
    RequestType.MEMORY_READ: 0b00000,
    RequestType.MEMORY_WRITE: 0b00000,
    RequestType.IO_READ: 0b00010,
    RequestType.IO_WRITE: 0b00010,
    RequestType.FETCH_ADD: 0b01100,
    RequestType.SWAP: 0b01101,
    RequestType.COMPARE_AND_SWAP: 0b01110,
    RequestType.LOCKED_READ: 0b00001,
}
#: Those whose TLP carries data.
_WITH_DATA = {
    RequestType.MEMORY_WRITE,
    RequestType.IO_WRITE,
    RequestType.FETCH_ADD,
    RequestType.SWAP,
    RequestType.COMPARE_AND_SWAP,
}
_COMPLETION, _LOCKED_COMPLETION = 0b01010, 0b01011

_REQUEST_FIELDS = {"at": 2, "address": 62, "dwords": 11, "request_type": 4}

#: A request from the host, on CQ: four dwords.
CompleterRequest = data.StructLayout(
    {
        **_REQUEST_FIELDS,
        "_reserved": 1,
        "requester_id": 16,
        "tag": 8,
        "target_function": 8,
        "bar_id": 3,
        "bar_aperture": 6,
        "traffic_class": 3,
        "attributes": 3,
        "_reserved2": 1,
    }
)

#: A request to the host, on RQ: four dwords.
RequesterRequest = data.StructLayout(
    {
        **_REQUEST_FIELDS,
        "poisoned": 1,
        "requester_id": 16,
        "tag": 8,
        "completer_id": 16,
        "requester_id_enable": 1,
        "traffic_class": 3,
        "attributes": 3,
        "force_ecrc": 1,
    }
)

_COMPLETION_TAIL = {
    "byte_count": 13,
    "locked": 1,
    "request_completed": 1,
    "_reserved2": 1,
    "dwords": 11,
    "status": 3,
    "poisoned": 1,
    "_reserved3": 1,
    "requester_id": 16,
    "tag": 8,
    "completer_id": 16,
    "completer_id_enable": 1,
    "traffic_class": 3,
    "attributes": 3,
    "force_ecrc": 1,
}

#: A completion for the host, on CC: three dwords. ``request_completed`` is reserved here.
CompleterCompletion = data.StructLayout({"lower_address": 7, "_reserved0": 1, "at": 2, "_reserved1": 6, **_COMPLETION_TAIL})

#: A completion from the host, on RC: three dwords. ``completer_id_enable`` and ``force_ecrc`` are reserved here.
RequesterCompletion = data.StructLayout({"lower_address": 12, "error_code": 4, **_COMPLETION_TAIL})

#: First dword of every header, from bit 0 on.
_HEADER_COMMON = {
    "length": 10,
    "at": 2,
    "attributes": 2,
    "poisoned": 1,
    "digest": 1,
    "hint": 1,
    "_reserved0": 1,
    "attribute_ido": 1,
    "_reserved1": 1,
    "traffic_class": 3,
    "_reserved2": 1,
    "type": 5,
    "four_dwords": 1,
    "with_data": 1,
    "prefix": 1,
}

#: First two dwords of a request's header; the address follows, in one dword or in two.
RequestHeader = data.StructLayout({**_HEADER_COMMON, "first_be": 4, "last_be": 4, "tag": 8, "requester_id": 16})

#: Header of a completion, three dwords.
CompletionHeader = data.StructLayout(
    {
        **_HEADER_COMMON,
        "byte_count": 12,
        "byte_count_modified": 1,
        "status": 3,
        "completer_id": 16,
        "lower_address": 7,
        "_reserved3": 1,
        "tag": 8,
        "requester_id": 16,
    }
)


def swapped(value: Value) -> Value:
    """The bytes of each dword in opposite order."""
    return Cat(value[low + 24 - 8 * index :][:8] for low in range(0, len(value), 32) for index in range(4))


def is_completion(first_beat: Value) -> Value:
    """Whether a TLP's first beat begins a completion (with data or without, locked or not)."""
    return data.View(RequestHeader, first_beat).type.matches(_COMPLETION, _LOCKED_COMPLETION)


def _common(descriptor: data.View) -> dict[str, ValueCastable | Value]:
    """Fields of a header that are in every descriptor; a length of 1024 dwords is 0 there."""
    return {
        "length": descriptor.dwords[:10],
        "attributes": descriptor.attributes[:2],
        "attribute_ido": descriptor.attributes[2],
        "traffic_class": descriptor.traffic_class,
        "requester_id": descriptor.requester_id,
        "tag": descriptor.tag,
    }


def request_header(m: Module, descriptor: data.View, first_be: Value, last_be: Value) -> tuple[data.View, Value]:
    """For a descriptor of CQ: the first two dwords of the header, and whether the request is a message, which has no such header.

    An address below 4 GiB makes a header of three dwords, as the standard demands.
    """
    header = Signal(RequestHeader)
    fields = _common(descriptor) | {"at": descriptor.at, "first_be": first_be, "last_be": last_be}
    m.d.comb += [getattr(header, name).eq(value) for name, value in fields.items()]
    m.d.comb += header.four_dwords.eq(descriptor.address[30:].any())
    with m.Switch(descriptor.request_type):
        for request_type, tlp_type in _TYPES.items():
            with m.Case(request_type):
                m.d.comb += [header.type.eq(tlp_type), header.with_data.eq(request_type in _WITH_DATA)]
    return header, descriptor.request_type[2:].all()


def request_descriptor(m: Module, header: data.View, address: Value) -> data.View:
    """For a request's header and address: the descriptor of RQ. All are memory requests."""
    descriptor = Signal(RequesterRequest)
    fields = {
        "at": header.at,
        "address": address[2:],
        "dwords": _eleven_bits(header.length),
        "request_type": Mux(header.with_data, C(RequestType.MEMORY_WRITE, 4), C(RequestType.MEMORY_READ, 4)),
        "poisoned": header.poisoned,
        "requester_id": header.requester_id,
        "tag": header.tag,
        "traffic_class": header.traffic_class,
        "attributes": Cat(header.attributes, header.attribute_ido),
    }
    m.d.comb += [getattr(descriptor, name).eq(value) for name, value in fields.items()]
    return descriptor


def completion_descriptor(m: Module, header: data.View) -> data.View:
    """For a completion's header: the descriptor of CC."""
    descriptor = Signal(CompleterCompletion)
    fields = {
        "lower_address": header.lower_address,
        "at": header.at,
        "byte_count": Cat(header.byte_count, header.with_data & (header.byte_count == 0)),  # 0 with data is 4096
        "locked": header.type == _LOCKED_COMPLETION,
        "dwords": Mux(header.with_data, _eleven_bits(header.length), 0),
        "status": header.status,
        "poisoned": header.poisoned,
        "requester_id": header.requester_id,
        "tag": header.tag,
        "completer_id": header.completer_id,
        "traffic_class": header.traffic_class,
        "attributes": Cat(header.attributes, header.attribute_ido),
    }
    m.d.comb += [getattr(descriptor, name).eq(value) for name, value in fields.items()]
    return descriptor


def completion_header(m: Module, descriptor: data.View) -> data.View:
    """For a descriptor of RC: the completion's header."""
    header = Signal(CompletionHeader)
    fields = _common(descriptor) | {
        "type": Mux(descriptor.locked, _LOCKED_COMPLETION, _COMPLETION),
        "with_data": descriptor.dwords.any(),
        "poisoned": descriptor.poisoned | (descriptor.error_code == ErrorCode.POISONED),
        "byte_count": descriptor.byte_count[:12],
        "status": descriptor.status,
        "completer_id": descriptor.completer_id,
        "lower_address": descriptor.lower_address[:7],
    }
    m.d.comb += [getattr(header, name).eq(value) for name, value in fields.items()]
    return header


def _eleven_bits(length: Value) -> Value:
    return Cat(length, length == 0)
