"""BAR0's windows over the address map."""

from __future__ import annotations

import pytest

from systola_firmware.spec.memory_map import Region, region_bytes
from systola_firmware.spec.pcie import bar_bytes, bar_offset, map_address, window_bits, window_bits_of_bar
from systola_firmware.spec.presets import preset


def test_windows_show_every_byte_of_every_region_once() -> None:
    config = preset("ulx3s-85f").replace(dma=True)
    for larger in (config, config.replace(weight_bytes=1 << 24)):
        window, size = window_bits(larger), bar_bytes(larger)
        assert window_bits_of_bar(size) == window
        ends = [region.base + offset for region in Region for offset in (0, region_bytes(larger, region) - 1)]
        offsets = [bar_offset(address, window) for address in ends]
        assert [map_address(offset, window) for offset in offsets] == ends
        assert offsets == sorted(set(offsets))
        assert max(offsets) < size
    assert (window_bits(config), window_bits(config.replace(weight_bytes=1 << 24))) == (20, 24)
    assert bar_offset(Region.WEIGHT.base + 4, 20) == 0x300004


@pytest.mark.parametrize("address", [-4, 1 << 20, Region.WEIGHT.base + (1 << 20), 1 << 32])
def test_addresses_outside_the_windows_are_refused(address: int) -> None:
    with pytest.raises(ValueError, match=f"{address:#x} is in no window"):
        bar_offset(address, 20)


@pytest.mark.parametrize("size", [0, 4096, 1 << 23, (1 << 24) + 4096, 3 << 24, 1 << 33])
def test_sizes_that_no_bar_of_ours_has(size: int) -> None:
    with pytest.raises(ValueError, match=f"a BAR0 of {size} bytes"):
        window_bits_of_bar(size)
