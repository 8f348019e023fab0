"""The kernel's VFIO calls as bytes: numbers and layouts of ``<linux/vfio.h>``, nothing else.

The structures begin with their own size (``argsz``) and flags, little or big endian as the machine is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "API_VERSION",
    "CHECK_EXTENSION",
    "CONFIG_REGION",
    "DEVICE_GET_IRQ_INFO",
    "DEVICE_GET_REGION_INFO",
    "DEVICE_RESET",
    "DEVICE_SET_IRQS",
    "GET_API_VERSION",
    "GROUP_GET_DEVICE_FD",
    "GROUP_GET_STATUS",
    "GROUP_SET_CONTAINER",
    "GROUP_VIABLE",
    "IOMMU_MAP_DMA",
    "IOMMU_UNMAP_DMA",
    "MSIX_INDEX",
    "MSI_INDEX",
    "REGION_MAPPABLE",
    "SET_IOMMU",
    "TYPE1V2_IOMMU",
    "RegionInfo",
    "group_status",
    "irq_info",
    "map_dma",
    "region_info",
    "set_irqs",
    "unmap_dma",
]


def _call(number: int) -> int:
    """``_IO(VFIO_TYPE, VFIO_BASE + number)``: type ';', base 100, no direction and no size."""
    return ord(";") << 8 | 100 + number


GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU = _call(0), _call(1), _call(2)
GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = _call(3), _call(4), _call(6)
DEVICE_GET_REGION_INFO, DEVICE_GET_IRQ_INFO, DEVICE_SET_IRQS, DEVICE_RESET = _call(8), _call(9), _call(10), _call(11)
IOMMU_MAP_DMA, IOMMU_UNMAP_DMA = _call(13), _call(14)

API_VERSION = 0
TYPE1V2_IOMMU = 3

#: Index of the configuration space among the regions; BAR0 is region 0.
CONFIG_REGION = 7
#: Kinds of interrupts.
MSI_INDEX, MSIX_INDEX = 1, 2

GROUP_VIABLE = 1
REGION_MAPPABLE = 4
_DMA_READ_WRITE = 3
_IRQ_DATA_NONE, _IRQ_DATA_EVENTFD, _IRQ_ACTION_TRIGGER = 1, 4, 32

_GROUP_STATUS = struct.Struct("=II")
_REGION_INFO = struct.Struct("=IIIIQQ")
_IRQ_INFO = struct.Struct("=IIII")
_IRQ_SET = struct.Struct("=IIIII")
_DMA_MAP = struct.Struct("=IIQQQ")
_DMA_UNMAP = struct.Struct("=IIQQ")


@dataclass(frozen=True)
class RegionInfo:
    """Where a region of the device lies in the file of the device."""

    size: int
    offset: int
    mappable: bool

    @classmethod
    def parse(cls, answer: bytearray) -> RegionInfo:
        """The region by the argument that DEVICE_GET_REGION_INFO has filled in."""
        _, flags, _, _, size, offset = _REGION_INFO.unpack(answer)
        return cls(size, offset, bool(flags & REGION_MAPPABLE))


def group_status() -> bytearray:
    """Argument of GROUP_GET_STATUS; the second word comes back as flags."""
    return bytearray(_GROUP_STATUS.pack(_GROUP_STATUS.size, 0))


def region_info(index: int) -> bytearray:
    """Argument of DEVICE_GET_REGION_INFO, for :meth:`RegionInfo.parse`."""
    return bytearray(_REGION_INFO.pack(_REGION_INFO.size, 0, index, 0, 0, 0))


def irq_info(index: int) -> bytearray:
    """Argument of DEVICE_GET_IRQ_INFO; the fourth word comes back as the number of interrupts."""
    return bytearray(_IRQ_INFO.pack(_IRQ_INFO.size, 0, index, 0))


def set_irqs(index: int, event: int | None) -> bytearray:
    """Argument of DEVICE_SET_IRQS: interrupt 0 of kind ``index`` signals the eventfd ``event``; None turns the kind
    off."""
    if event is None:
        return bytearray(_IRQ_SET.pack(_IRQ_SET.size, _IRQ_DATA_NONE | _IRQ_ACTION_TRIGGER, index, 0, 0))
    flags = _IRQ_DATA_EVENTFD | _IRQ_ACTION_TRIGGER
    return bytearray(_IRQ_SET.pack(_IRQ_SET.size + 4, flags, index, 0, 1) + struct.pack("=i", event))


def map_dma(virtual: int, address: int, size: int) -> bytearray:
    """Argument of IOMMU_MAP_DMA: the device reads and writes ``size`` bytes at ``virtual`` as ``address``."""
    return bytearray(_DMA_MAP.pack(_DMA_MAP.size, _DMA_READ_WRITE, virtual, address, size))


def unmap_dma(address: int, size: int) -> bytearray:
    """Argument of IOMMU_UNMAP_DMA."""
    return bytearray(_DMA_UNMAP.pack(_DMA_UNMAP.size, 0, address, size))
