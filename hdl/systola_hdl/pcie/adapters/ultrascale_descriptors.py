"""Descriptors of the UltraScale+ hard block's streams, and their conversion from and to TLP headers.

AMD PG213, "UltraScale+ Devices Integrated Block for PCI Express", chapter "Designing with the Core"; the header's
fields are those of the PCI Express Base Specification. A descriptor's dwords are numbers, and the payload that follows
it is little endian. A :class:`~systola_hdl.pcie.tlp.stream.TlpStream` has the first wire byte of each dword in its top
bits; :func:`~systola_hdl.pcie.tlp.header.swap_bytes` converts a payload.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, ValueCastable, ValueLike
from amaranth.lib import data

from systola_hdl.pcie.tlp.header import COMPLETION_HEADER, REQUEST_HEADER, TypeField

__all__ = [
    "CompleterCompletion",
    "CompleterRequest",
    "ErrorCode",
    "RequestType",
    "RequesterCompletion",
    "RequesterRequest",
    "completion_descriptor",
    "completion_header",
    "request_descriptor",
    "request_header",
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
    """``error_code`` of :class:`RequesterCompletion`: what the hard block found when it matched a completion to its
    request."""

    NONE = 0
    POISONED = 1
    BAD_STATUS = 2
    INVALID_LENGTH = 3
    MISMATCH = 4
    INVALID_ADDRESS = 5
    INVALID_TAG = 6
    FUNCTION_RESET = 8
    TIMEOUT = 9


#: Type field of a TLP (its lower five bits) for each request type that has one.
_TYPES = {
    RequestType.MEMORY_READ: TypeField.MEMORY,
    RequestType.MEMORY_WRITE: TypeField.MEMORY,
    RequestType.IO_READ: TypeField.IO,
    RequestType.IO_WRITE: TypeField.IO,
    RequestType.FETCH_ADD: TypeField.FETCH_ADD,
    RequestType.SWAP: TypeField.SWAP,
    RequestType.COMPARE_AND_SWAP: TypeField.COMPARE_AND_SWAP,
    RequestType.LOCKED_READ: TypeField.MEMORY_LOCKED,
}
#: Those whose TLP carries data.
_WITH_DATA = {
    RequestType.MEMORY_WRITE,
    RequestType.IO_WRITE,
    RequestType.FETCH_ADD,
    RequestType.SWAP,
    RequestType.COMPARE_AND_SWAP,
}

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


def _common(descriptor: data.View) -> dict[str, ValueCastable | Value]:
    """Fields of a header that are in every descriptor; a length of 1024 dwords is 0 there."""
    return {
        "length": descriptor.dwords[:10],
        "attributes_low": descriptor.attributes[:2],
        "attributes_high": descriptor.attributes[2],
        "traffic_class": descriptor.traffic_class,
        "requester": descriptor.requester_id,
        "tag": descriptor.tag,
    }


def request_header(m: Module, descriptor: data.View, first_be: Value, last_be: Value) -> tuple[data.View, Value]:
    """For a descriptor of CQ: the first two dwords of the header, and whether the request is a message, which has no
    such header.

    An address below 4 GiB makes a header of three dwords, as the standard demands.
    """
    fields = _common(descriptor) | {"address_type": descriptor.at, "first_be": first_be, "last_be": last_be}
    header = _filled(m, REQUEST_HEADER, "header", fields)
    m.d.comb += header.long.eq(descriptor.address[30:].any())
    with m.Switch(descriptor.request_type):
        for request_type, tlp_type in _TYPES.items():
            with m.Case(request_type):
                m.d.comb += [header.type.eq(tlp_type), header.with_data.eq(request_type in _WITH_DATA)]
    return header, descriptor.request_type[2:].all()


def request_descriptor(m: Module, header: data.View, address: Value) -> data.View:
    """For a request's header and address: the descriptor of RQ. All are memory requests."""
    fields = {
        "at": header.address_type,
        "address": address[2:],
        "dwords": _eleven_bits(header.length),
        "request_type": Mux(header.with_data, C(RequestType.MEMORY_WRITE, 4), C(RequestType.MEMORY_READ, 4)),
        "poisoned": header.poisoned,
        "requester_id": header.requester,
        "tag": header.tag,
        "traffic_class": header.traffic_class,
        "attributes": Cat(header.attributes_low, header.attributes_high),
    }
    return _filled(m, RequesterRequest, "descriptor", fields)


def completion_descriptor(m: Module, header: data.View) -> data.View:
    """For a completion's header: the descriptor of CC."""
    fields = {
        "lower_address": header.lower_address,
        "at": header.address_type,
        "byte_count": Cat(header.byte_count, header.with_data & (header.byte_count == 0)),  # 0 with data is 4096
        "locked": header.type == TypeField.COMPLETION_LOCKED,
        "dwords": Mux(header.with_data, _eleven_bits(header.length), 0),
        "status": header.status,
        "poisoned": header.poisoned,
        "requester_id": header.requester,
        "tag": header.tag,
        "completer_id": header.completer,
        "traffic_class": header.traffic_class,
        "attributes": Cat(header.attributes_low, header.attributes_high),
    }
    return _filled(m, CompleterCompletion, "descriptor", fields)


def completion_header(m: Module, descriptor: data.View) -> data.View:
    """For a descriptor of RC: the completion's header."""
    fields = _common(descriptor) | {
        "type": Mux(descriptor.locked, TypeField.COMPLETION_LOCKED, TypeField.COMPLETION),
        "with_data": descriptor.dwords.any(),
        "poisoned": descriptor.poisoned | (descriptor.error_code == ErrorCode.POISONED),
        "byte_count": descriptor.byte_count[:12],
        "status": descriptor.status,
        "completer": descriptor.completer_id,
        "lower_address": descriptor.lower_address[:7],
    }
    return _filled(m, COMPLETION_HEADER, "header", fields)


def _filled(m: Module, layout: data.Layout, name: str, fields: Mapping[str, ValueLike]) -> data.View:
    """A signal of ``layout``, called ``name``, with these fields; the others are 0."""
    filled = Signal(layout, name=name)
    m.d.comb += [getattr(filled, field).eq(value) for field, value in fields.items()]
    return filled


def _eleven_bits(length: Value) -> Value:
    return Cat(length, length == 0)
