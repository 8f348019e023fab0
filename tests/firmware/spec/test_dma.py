"""Layouts of descriptors and status records, against bytes by hand."""

from __future__ import annotations

import struct

import pytest

from systola_firmware.spec.dma import (
    DESCRIPTOR_BYTES,
    DESCRIPTOR_WORDS,
    RECORD_BYTES,
    RECORD_WORDS,
    Descriptor,
    DmaError,
    DmaFlag,
    DmaKind,
    StatusRecord,
    split_dma_status,
)
from systola_firmware.spec.memory_map import COUNTERS, DMA_REGISTER_BYTES, DMA_REGISTERS, DmaStatus, Region, dma_register_address


def test_a_descriptor_is_its_words() -> None:
    descriptor = Descriptor(DmaKind.FROM_DEVICE, 0xABCDEF, 0x20000305, 0x1122334455667788, overlap=True)
    expected = bytes.fromhex("02010000 efcdab00 05030020 00000000 88776655 44332211 00000000 00000000")
    assert descriptor.encode() == expected
    assert len(expected) == DESCRIPTOR_BYTES == 32
    values = {"kind": DmaKind.FROM_DEVICE, "flags": DmaFlag.OVERLAP, "length": 0xABCDEF, "device_address": 0x20000305}
    values |= {"host_low": 0x55667788, "host_high": 0x11223344}
    for word, fields in zip(struct.unpack("<8I", expected), DESCRIPTOR_WORDS, strict=True):
        low = 0
        for field in fields:
            assert word >> low & field.maximum == values.pop(field.name)
            low += field.bits
    assert not values


def test_a_record_is_its_words() -> None:
    words = {name: 1000 + number for number, name in enumerate(RECORD_WORDS)}
    words["status"] = DmaStatus.STOPPED | DmaError.POISONED << 8
    raw = struct.pack(f"<{len(words)}I", *words.values())
    assert len(raw) == RECORD_BYTES == 64
    record = StatusRecord.decode(raw)
    assert (record.status, record.error) == (DmaStatus.STOPPED, DmaError.POISONED)
    assert record.counters == {name: words[f"counter_{name}"] for name in COUNTERS}
    for name in ("completed", "engine_status", "error_address", "marks", "doorbell", "sequence"):
        assert getattr(record, name) == words[name]
    assert next(reversed(RECORD_WORDS)) == "sequence", "what a host polls is written last"
    with pytest.raises(struct.error):
        StatusRecord.decode(raw[:-4])


@pytest.mark.parametrize("error", list(DmaError))
def test_status_takes_itself_apart(error: DmaError) -> None:
    flags = DmaStatus.BUSY | DmaStatus.LINK_UP
    assert split_dma_status(int(flags) | error << 8) == (flags, error)
    with pytest.raises(ValueError, match="is not a valid DmaError"):
        split_dma_status(0xFF00)


def test_registers_have_places_of_their_own() -> None:
    assert [register.offset for register in DMA_REGISTERS.values()] == list(range(0, DMA_REGISTER_BYTES, 4))
    assert dma_register_address("identity") == Region.DMA.base == 0x5000_0000
