"""Layouts of the streams between the parts of the DMA engine."""

from __future__ import annotations

from amaranth.lib import data

from systola_firmware.spec.dma import DESCRIPTOR_WORDS, LENGTH_BITS
from systola_firmware.spec.memory_map import Region
from systola_hdl.common.layouts import words_layout
from systola_hdl.host.host_port import DMA_ERROR

__all__ = ["DESCRIPTOR", "JOB", "MEMORIES", "MOVE"]

#: A descriptor as it lies in the host's memory.
DESCRIPTOR = words_layout(DESCRIPTOR_WORDS)

#: The fields of a descriptor that are used. If ``error_code`` is not NONE, it was not fetched or must not be executed.
JOB = data.StructLayout(
    {"kind": 8, "flags": 8, "length": LENGTH_BITS, "device_address": 32, "host_address": 64, "error_code": DMA_ERROR}
)

#: What a mover is to move.
MOVE = data.StructLayout({"length": LENGTH_BITS, "device_address": 32, "host_address": 64})

#: The memories that a transfer can reach.
MEMORIES = (Region.PROGRAM, Region.ACTIVATION, Region.WEIGHT)
