"""The memory map's own consistency."""

from __future__ import annotations

import pytest

from systola_firmware.spec.config import PROGRAM_FIELDS, REPORTED_FIELDS, Config
from systola_firmware.spec.isa import ErrorCode
from systola_firmware.spec.memory_map import (
    COUNTERS,
    DMA_REGISTER_BYTES,
    IDENTITY,
    MARK_WORDS,
    REGION_SHIFT,
    REGISTER_BYTES,
    REGISTERS,
    STATUS_ERROR_SHIFT,
    Access,
    Region,
    Status,
    present_regions,
    read_only_values,
    region_bytes,
    register_address,
    split_status,
)
from systola_firmware.spec.presets import PRESETS


def test_registers_have_places_of_their_own() -> None:
    offsets = [register.offset for register in REGISTERS.values()]
    assert len(set(offsets)) == len(offsets)
    assert all(offset % 4 == 0 and offset < REGISTER_BYTES for offset in offsets)
    assert all(name == register.name and register.doc for name, register in REGISTERS.items())


def test_addresses_that_hosts_know_by_heart() -> None:
    """Identity first: a driver reads it before it knows anything."""
    assert register_address("identity") == 0
    assert IDENTITY.to_bytes(4, "little") == b"SYST"
    assert register_address("control") == 8
    with pytest.raises(KeyError):
        register_address("nothing")


def test_counters_and_configuration_have_registers() -> None:
    assert {f"counter_{name}" for name in COUNTERS} <= set(REGISTERS)
    assert {f"config_{name}" for name in (*PROGRAM_FIELDS, *REPORTED_FIELDS)} <= set(REGISTERS)
    assert ("address", *COUNTERS) == MARK_WORDS


def test_regions_do_not_overlap() -> None:
    assert [region.base for region in Region] == [index << REGION_SHIFT for index in range(len(Region))]


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_regions_are_whole_words_and_fit(config: Config) -> None:
    sizes = {region: region_bytes(config, region) for region in Region}
    assert all(0 < size <= 1 << REGION_SHIFT and size % 4 == 0 for region, size in sizes.items() if region is not Region.DMA)
    assert sizes[Region.DMA] == (DMA_REGISTER_BYTES if config.dma else 0)
    assert present_regions(config) == tuple(region for region in Region if region is not Region.DMA or config.dma)
    assert sizes[Region.ACTIVATION] == config.activation_bytes
    assert sizes[Region.WEIGHT] == config.weight_bytes
    assert sizes[Region.PROGRAM] == 4 * config.program_words
    assert sizes[Region.TRACE] == 4 * len(MARK_WORDS) * config.trace_marks


def test_constant_registers_are_read_only_and_fit() -> None:
    values = read_only_values(PRESETS["ulx3s-85f"])
    assert all(REGISTERS[name].access is Access.READ and 0 <= value < 1 << 32 for name, value in values.items())
    assert values["config_rows"] == 16
    assert values["config_uart_baud"] == 3_000_000


@pytest.mark.parametrize("error", list(ErrorCode))
def test_status_takes_itself_apart(error: ErrorCode) -> None:
    for flags in (Status(0), Status.BUSY, Status.DONE, Status.ERROR | Status.BUSY):
        assert split_status(int(flags) | error << STATUS_ERROR_SHIFT) == (flags, error)
