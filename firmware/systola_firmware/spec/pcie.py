"""The device as a PCI function: its identity, and how BAR0 shows the address map. One definition for gateware and
driver.

BAR0 folds the whole 32-bit address map of :mod:`systola_firmware.spec.memory_map`: it has sixteen *windows* of equal
size, one for each value of the address' top four bits, and a window shows the beginning of its region. So an access
needs no page register and no state, and two accesses never disturb each other::

    address of the map   region [31:28]        offset [27:0]
    offset in BAR0       region [w+3:w]        offset [w-1:0]         window of 2**w bytes, BAR0 of 2**(w+4)

``w`` is 20, or more if a region is larger than 1 MiB, so that all of every region is visible. The driver knows ``w``
from the size of BAR0. Blocks of data move by DMA, whose device addresses are those of the map.
"""

from __future__ import annotations

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import REGION_SHIFT, Region, region_bytes

__all__ = [
    "CLASS_CODE",
    "DEVICE_ID",
    "REVISION_ID",
    "VENDOR_ID",
    "bar_bytes",
    "bar_offset",
    "map_address",
    "window_bits",
    "window_bits_of_bar",
]

#: Identity in the configuration space. These numbers are not assigned to us, so the driver checks IDENTITY too.
VENDOR_ID, DEVICE_ID, REVISION_ID = 0x1209, 0x5359, 1
#: Base class 0x12, processing accelerator.
CLASS_CODE = 0x120000

_WINDOW_COUNT_BITS = 32 - REGION_SHIFT
_LEAST_WINDOW_BITS = 20


def window_bits(config: Config) -> int:
    """``w``: logarithm of a window's size, 20 to 24."""
    return max(_LEAST_WINDOW_BITS, *((region_bytes(config, region) - 1).bit_length() for region in Region))


def bar_bytes(config: Config) -> int:
    """Size of BAR0: 16 MiB to 256 MiB."""
    return 1 << window_bits(config) + _WINDOW_COUNT_BITS


def window_bits_of_bar(size: int) -> int:
    """``w`` of a BAR0 of ``size`` bytes. Raises ``ValueError`` if no device of ours has such a one."""
    bits = size.bit_length() - 1 - _WINDOW_COUNT_BITS
    if size != 1 << max(bits, 0) + _WINDOW_COUNT_BITS or not _LEAST_WINDOW_BITS <= bits <= REGION_SHIFT:
        raise ValueError(f"a BAR0 of {size} bytes: must be a power of two from {1 << 24} to {1 << 32}")
    return bits


def bar_offset(address: int, window: int) -> int:
    """Offset in BAR0 of the byte at ``address`` of the map, with ``window`` as ``w``. Raises ``ValueError`` if no
    window shows it."""
    region, offset = address >> REGION_SHIFT, address & (1 << REGION_SHIFT) - 1
    if not 0 <= address < 1 << 32 or offset >> window:
        raise ValueError(f"address {address:#x} is in no window of {1 << window:#x} bytes")
    return region << window | offset


def map_address(offset: int, window: int) -> int:
    """Address of the map that the byte at ``offset`` of BAR0 shows: the inverse of :func:`bar_offset`."""
    return offset >> window << REGION_SHIFT | offset & (1 << window) - 1
