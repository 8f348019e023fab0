"""Frames of the byte link (UART): the one definition for gateware and driver. ``docs/link.md`` explains the protocol.

A frame is COBS-encoded and ends with a zero byte. Decoded, little endian:

    request    sequence:8  operation:8  count:8  reserved:8  address:32  data:32×n  crc:32
    response   sequence:8  status:8     count:8  expected:8  address:32  data:32×n  crc:32

``crc`` is CRC-32 (ISO-HDLC, as in ``zlib.crc32``) over everything before it. ``count`` is in words, 1 to
:data:`MAX_WORDS`; a WRITE request carries ``count`` words of data, a READ response too, all others none. A response
echoes sequence, count and address of its request. ``expected`` is the sequence number that the device executes next,
after this frame.

* A frame with a bad CRC, length or code is dropped without an answer: the host's timeout resends it.
* A frame with ``sequence == expected`` is executed and answered; ``expected`` grows by one (mod 256).
* A frame up to 128 behind is a repeat: a READ is done again, a WRITE is answered OK *without being done again*.
* A frame ahead is answered OUT_OF_ORDER and not executed; the host goes back to ``expected``.
* SYNC is always executed: ``expected`` becomes its sequence + 1. Its address is a nonce that the response echoes.
"""

from __future__ import annotations

import enum

#: Most data words of a frame: the decoded frame stays below 254 bytes, so that COBS adds exactly one byte.
MAX_WORDS = 60
HEADER_BYTES = 8
CRC_BYTES = 4
#: Bytes that the device can hold unprocessed; the host keeps no more than this in flight.
RECEIVE_BUFFER_BYTES = 2048


class LinkOperation(enum.IntEnum):
    """Request operations."""

    READ = 1
    WRITE = 2
    SYNC = 3


class LinkStatus(enum.IntEnum):
    """Response status."""

    OK = 0
    BAD_ADDRESS = 1  #: no memory there, or not a multiple of 4; words before the bad one have been transferred
    OUT_OF_ORDER = 2  #: not executed; go back to ``expected``
    BAD_REQUEST = 3  #: unknown operation or impossible count; not executed, but the sequence number is used up
