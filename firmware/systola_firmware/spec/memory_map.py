"""Address map and registers: the one definition for gateware, driver, golden device and ``docs/registers.md``.

Addresses are in bytes, accesses in aligned 32-bit little-endian words. The top four address bits choose the region.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from systola_firmware.spec import isa
from systola_firmware.spec.config import PROGRAM_FIELDS, REPORTED_FIELDS, Config

REGION_SHIFT = 28


class Region(enum.IntEnum):
    """Memory regions: the value is the top four bits of the address."""

    REGISTERS = 0
    PROGRAM = 1
    ACTIVATION = 2
    WEIGHT = 3
    TRACE = 4
    DMA = 5

    @property
    def base(self) -> int:
        """First byte address."""
        return self.value << REGION_SHIFT


def region_bytes(config: Config, region: Region) -> int:
    """Size of a region of this engine, in bytes; 0 if it has none."""
    return {
        Region.REGISTERS: REGISTER_BYTES,
        Region.PROGRAM: 4 * config.program_words,
        Region.ACTIVATION: config.activation_bytes,
        Region.WEIGHT: config.weight_bytes,
        Region.TRACE: 4 * config.trace_marks * len(MARK_WORDS),
        Region.DMA: DMA_REGISTER_BYTES if config.dma else 0,
    }[region]


def present_regions(config: Config) -> tuple[Region, ...]:
    """The regions that this engine has."""
    return tuple(region for region in Region if region_bytes(config, region))


#: Value of the IDENTITY register: "SYST" in ASCII, little endian.
IDENTITY = int.from_bytes(b"SYST", "little")
GATEWARE_VERSION = 1


class Access(enum.Enum):
    READ = "r"
    WRITE = "w"
    READ_WRITE = "rw"


@dataclass(frozen=True)
class Register:
    """One 32-bit register at byte ``offset`` in its region."""

    name: str
    offset: int
    access: Access
    doc: str


class Control(enum.IntFlag):
    """Bits of CONTROL."""

    START = 1  #: start the program at START_ADDRESS; ignored while busy
    ABORT = 2  #: stop a running program with error ABORTED


class Status(enum.IntFlag):
    """Flag bits of STATUS; the error code is in bits 8 to 15."""

    BUSY = 1
    DONE = 2  #: the last program reached END
    ERROR = 4  #: the last program stopped with an error


STATUS_ERROR_SHIFT = 8

#: Performance counters: cycles since START, all zeroed by START. Their order is that of the registers. Of
#: ``array_busy`` and the counters named ``wait_…``, at most one counts in a cycle.
COUNTERS: dict[str, str] = {
    "cycles": "cycles from START to END",
    "array_busy": "cycles in which an activation vector entered the array",
    "wait_token": "the MATMUL unit was idle, its next instruction there but not its tokens (data dependency)",
    "wait_weights": "a MATMUL waited for weights in the array, or for the accumulators' shortest pass",
    "wait_activations": "a MATMUL waited for the activation memory's port",
    "wait_post": "a MATMUL waited for a free half of the accumulators",
    "wait_step": "a recurrent MATMUL waited for LSTM to finish the time step before",
    "post_busy": "cycles in which POST, VECTOR, TABLE or LSTM was executing",
    "cell_busy": "cycles in which a hidden unit entered the LSTM cell",
}

#: Words of one trace mark, in order: the address of the marked instruction, then the counters at its completion.
MARK_WORDS: tuple[str, ...] = ("address", *COUNTERS)


def _in_order(rows: list[tuple[str, Access, str]]) -> dict[str, Register]:
    """Registers by name, at consecutive words from the start of a region."""
    return {name: Register(name, 4 * index, access, doc) for index, (name, access, doc) in enumerate(rows)}


def _registers() -> dict[str, Register]:
    rows: list[tuple[str, Access, str]] = [
        ("identity", Access.READ, f"{IDENTITY:#010x}, the letters SYST"),
        ("gateware_version", Access.READ, "version of the gateware"),
        ("control", Access.WRITE, "bit 0 START, bit 1 ABORT"),
        ("status", Access.READ, "bit 0 busy, bit 1 done, bit 2 error, bits 8 to 15 error code"),
        ("start_address", Access.READ_WRITE, "program word that START begins at"),
        ("error_address", Access.READ, "program word of the instruction that stopped the program"),
        ("marks", Access.READ, "trace marks since START (may exceed those kept)"),
        ("scratch", Access.READ_WRITE, "free for the host"),
    ]
    rows += [(f"counter_{name}", Access.READ, text) for name, text in COUNTERS.items()]
    rows += [(f"config_{name}", Access.READ, f"configuration: {name}") for name in (*PROGRAM_FIELDS, *REPORTED_FIELDS)]
    return _in_order(rows)


REGISTERS: dict[str, Register] = _registers()
REGISTER_BYTES = 4 * len(REGISTERS)


def register_address(name: str) -> int:
    """Byte address of a register. Raises ``KeyError``."""
    return Region.REGISTERS.base + REGISTERS[name].offset


def read_only_values(config: Config) -> dict[str, int]:
    """Values of the registers that never change."""
    values = {"identity": IDENTITY, "gateware_version": GATEWARE_VERSION}
    values |= {f"config_{name}": int(getattr(config, name)) for name in (*PROGRAM_FIELDS, *REPORTED_FIELDS)}
    return values


def split_status(value: int) -> tuple[Status, isa.ErrorCode]:
    """STATUS as flags and error code."""
    return Status(value & 7), isa.ErrorCode(value >> STATUS_ERROR_SHIFT & 0xFF)


#: Value of the DMA region's IDENTITY register: "SDMA" in ASCII, little endian.
DMA_IDENTITY = int.from_bytes(b"SDMA", "little")


class DmaControl(enum.IntFlag):
    """Bits of the DMA region's CONTROL."""

    RESET = 1  #: let the transfers under way end, then forget the ring, the counts and the error


class DmaStatus(enum.IntFlag):
    """Flag bits of the DMA region's STATUS and of a status record; the error code is in bits 8 to 15."""

    BUSY = 1  #: a descriptor is being fetched or executed, or a reset is not yet done
    STOPPED = 2  #: an error stopped the ring; only a reset starts it again
    LINK_UP = 4  #: the link can reach the host's memory


DMA_STATUS_ERROR_SHIFT = 8


def _dma_registers() -> dict[str, Register]:
    rows: list[tuple[str, Access, str]] = [
        ("identity", Access.READ, f"{DMA_IDENTITY:#010x}, the letters SDMA"),
        ("control", Access.WRITE, "bit 0 RESET"),
        ("status", Access.READ, "bit 0 busy, bit 1 stopped, bit 2 link up, bits 8 to 15 error code"),
        ("completed", Access.READ, "descriptors completed since the reset, modulo 2**32; in a stopped ring the next one failed"),
        ("doorbell", Access.READ_WRITE, "descriptors that the host has made ready since the reset, modulo 2**32"),
        ("ring_size", Access.READ_WRITE, "descriptors that the ring holds, a power of two; number n is at n modulo ring_size"),
        ("ring_low", Access.READ_WRITE, "host address of the ring, bits 0 to 31; a multiple of the descriptor's size"),
        ("ring_high", Access.READ_WRITE, "host address of the ring, bits 32 to 63"),
        ("record_low", Access.READ_WRITE, "host address of the status record, bits 0 to 31; a multiple of 8, zero for none"),
        ("record_high", Access.READ_WRITE, "host address of the status record, bits 32 to 63"),
    ]
    return _in_order(rows)


DMA_REGISTERS: dict[str, Register] = _dma_registers()
DMA_REGISTER_BYTES = 4 * len(DMA_REGISTERS)


def dma_register_address(name: str) -> int:
    """Byte address of a register of the DMA region. Raises ``KeyError``."""
    return Region.DMA.base + DMA_REGISTERS[name].offset
