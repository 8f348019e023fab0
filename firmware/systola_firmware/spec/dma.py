"""Descriptors and status records of the DMA engine: the one definition for gateware, driver and golden device.

The host keeps a ring of descriptors in its memory and counts in the doorbell register those that it has made ready. The
engine fetches and executes them in their order, and counts them in the completed register: a descriptor counts when it
and all before it are complete. A descriptor and a status record lie in memory as their words, little endian.

* TO_DEVICE copies ``length`` bytes from ``host_address`` to ``device_address``; complete when they are in the memory.
* FROM_DEVICE copies ``length`` bytes from ``device_address`` to ``host_address``; complete when they are on their way
  to the host where nothing written later overtakes them.
* RUN starts the program at word ``device_address``; complete when the program has ended.
* RECORD waits until all before it is complete, then writes a status record to ``host_address``, a multiple of 8.
* INTERRUPT does the same to the address in the record registers, then interrupts the host.
* FENCE is complete when all before it is; nothing after it, not even a read of the host's memory, begins before.

A device address is one of the memory map, in PROGRAM, ACTIVATION or WEIGHT, and the transfer ends in the region it
begins in. In ACTIVATION any address and length are allowed; elsewhere both are multiples of 4. Host addresses are of
any alignment.

Descriptors take effect on the device's memories one after another. What TO_DEVICE reads is the host's memory some time
between the doorbell and the descriptor's completion: the engine reads ahead, so that a FENCE must come before TO_DEVICE
of what a FROM_DEVICE has just written. A transfer waits for the RUN before it, unless it says OVERLAP: then the host
vouches that the program does not use these bytes.

A record counts its own descriptor as completed, and its counters are those of the last RUN.

The first error stops the ring: no later descriptor takes effect, except one that had begun before the failure of a
FROM_DEVICE was known. Transfers under way come to their end, and a program that runs is waited for. Then the status
record is written to the record address, unless the link is down, and the host is interrupted. Nothing is ever written
to record address 0. A program that ends with an error stops the ring too. A reset makes the engine usable again; ring,
record address and doorbell are zero after it.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from systola_firmware.spec.isa import WORD_BITS, Field
from systola_firmware.spec.memory_map import COUNTERS, DMA_STATUS_ERROR_SHIFT, DmaStatus

__all__ = [
    "DESCRIPTOR_BYTES",
    "DESCRIPTOR_WORDS",
    "LENGTH_BITS",
    "RECORD_BYTES",
    "RECORD_WORDS",
    "Descriptor",
    "DmaError",
    "DmaFlag",
    "DmaKind",
    "StatusRecord",
    "split_dma_status",
]


class DmaError(enum.IntEnum):
    """Why a transfer failed or a ring stopped."""

    NONE = 0
    TIMEOUT = 1  #: the host's memory did not answer in time
    UNSUPPORTED_REQUEST = 2  #: nothing at this host address (also: not mapped for the device)
    COMPLETER_ABORT = 3  #: the host's memory refused
    POISONED = 4  #: the data came marked as corrupt
    MALFORMED = 5  #: an answer that does not fit its request
    LINK_DOWN = 6  #: the link went down, or was down
    BUS_MASTER_DISABLED = 7  #: the host has not allowed the device to reach its memory
    BAD_DESCRIPTOR = 8  #: unknown kind or flag, no length, a device address outside its region or not aligned
    BAD_RING = 9  #: ring_size is no power of two, an address is not aligned, or the doorbell is more than ring_size ahead
    PROGRAM_FAILED = 10  #: a RUN ended with an error: see the engine's STATUS


class DmaKind(enum.IntEnum):
    """What a descriptor does."""

    TO_DEVICE = 1  #: host memory to device memory
    FROM_DEVICE = 2  #: device memory to host memory
    RUN = 3  #: start the program and wait for its end
    RECORD = 4  #: write a status record to ``host_address``
    INTERRUPT = 5  #: write a status record to the record address, then interrupt
    FENCE = 6  #: wait for everything before


class DmaFlag(enum.IntFlag):
    """Flags of a descriptor."""

    OVERLAP = 1  #: of a transfer: do not wait for a program that runs


#: Width of a length in bytes.
LENGTH_BITS = 24

#: The words of a descriptor. The engine ignores bits that no field names; the host may use them.
DESCRIPTOR_WORDS: tuple[tuple[Field, ...], ...] = (
    (Field("kind", 8, "what to do"), Field("flags", 8, "flags")),
    (Field("length", LENGTH_BITS, "of a transfer: bytes, at least 1"),),
    (Field("device_address", WORD_BITS, "address of the memory map; of RUN: program word"),),
    (),
    (Field("host_low", WORD_BITS, "host address, bits 0 to 31"),),
    (Field("host_high", WORD_BITS, "host address, bits 32 to 63"),),
    (),
    (),
)
DESCRIPTOR_BYTES = 4 * len(DESCRIPTOR_WORDS)

#: Words of a status record, in order.
RECORD_WORDS: dict[str, str] = {
    "completed": "descriptors completed",
    "status": "the DMA region's STATUS: BUSY, unless STOPPED",
    "engine_status": "the engine's STATUS",
    "error_address": "the engine's ERROR_ADDRESS",
    "marks": "the engine's MARKS",
    "doorbell": "the doorbell as the engine saw it",
    **{f"counter_{name}": text for name, text in COUNTERS.items()},
    "sequence": "records written since the reset, with this one; the last word to be written",
}
RECORD_BYTES = 4 * len(RECORD_WORDS)

_DESCRIPTOR = struct.Struct("<BBHIIIQQ")
_RECORD = struct.Struct(f"<{len(RECORD_WORDS)}I")


@dataclass(frozen=True)
class Descriptor:
    """One descriptor; ``device_address`` is a program word for RUN, ``overlap`` is :attr:`DmaFlag.OVERLAP`."""

    kind: DmaKind
    length: int = 0
    device_address: int = 0
    host_address: int = 0
    overlap: bool = False

    def encode(self) -> bytes:
        """Its :data:`DESCRIPTOR_BYTES` bytes. Raises ``struct.error`` if a value does not fit."""
        flags = DmaFlag.OVERLAP if self.overlap else DmaFlag(0)
        return _DESCRIPTOR.pack(self.kind, flags, 0, self.length, self.device_address, 0, self.host_address, 0)


@dataclass(frozen=True)
class StatusRecord:
    """What the engine writes; the counters are those of the last RUN, by name."""

    completed: int
    status: DmaStatus
    error: DmaError
    engine_status: int
    error_address: int
    marks: int
    doorbell: int
    counters: dict[str, int]
    sequence: int

    @classmethod
    def decode(cls, data: bytes) -> StatusRecord:
        """From :data:`RECORD_BYTES` bytes. Raises ``struct.error`` if there are more or fewer, ``ValueError`` for
        unknown codes."""
        words = dict(zip(RECORD_WORDS, _RECORD.unpack(data), strict=True))
        status, error = split_dma_status(words["status"])
        counters = {name: words[f"counter_{name}"] for name in COUNTERS}
        plain = {name: words[name] for name in ("completed", "engine_status", "error_address", "marks", "doorbell", "sequence")}
        return cls(status=status, error=error, counters=counters, **plain)


def split_dma_status(value: int) -> tuple[DmaStatus, DmaError]:
    """The DMA region's STATUS as flags and error. Raises ``ValueError`` for an unknown code."""
    return DmaStatus(value & 7), DmaError(value >> DMA_STATUS_ERROR_SHIFT & 0xFF)
