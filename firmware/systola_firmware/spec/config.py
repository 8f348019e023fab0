"""The one description of an engine: every size that gateware, compiler, golden model and driver share.

A :class:`Config` is immutable. Named presets are in :data:`PRESETS`; derive others with :meth:`Config.replace`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from systola_firmware.spec import isa

#: Fields a compiled program depends on, in the order of the hardware's configuration registers.
PROGRAM_FIELDS = (
    "isa_version",
    "rows",
    "columns",
    "weight_rows_per_cycle",
    "requantize_lanes",
    "accumulator_depth",
    "activation_bytes",
    "weight_bytes",
    "program_words",
    "trace_marks",
    "lstm",
)

#: Further fields the hardware reports about itself; a program does not depend on them.
REPORTED_FIELDS = ("clock_hz", "uart_baud")

#: Bytes that the DMA engine moves in one cycle.
DMA_BEAT_BYTES = 8


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class Config:
    """Sizes of one engine.

    Parameters
    ----------
    name:
        Preset name, for people.
    rows:
        Reduction lanes of the array, and bytes that the activation memory returns a cycle. Power of two, 4 to 64.
    columns:
        Output channels of the array. Power of two, 4 to ``rows``.
    weight_rows_per_cycle:
        Rows of weights loaded into the array a cycle; also the rows of one array cell. 1, 2 or 4, less than ``rows``.
    requantize_lanes:
        Outputs that the post-processor finishes a cycle. Divides ``columns``.
    accumulator_depth:
        Output positions that one half of the accumulators holds. Power of two, 16 to 4096.
    activation_bytes:
        Size of the activation memory, a multiple of ``rows``, at most 512 KiB (steps are 20-bit signed).
    weight_bytes:
        Size of the weight memory, a multiple of ``columns * weight_rows_per_cycle``.
    program_words:
        Size of the program store in 32-bit words, at most 65536.
    trace_marks:
        Number of layer marks that the trace memory holds.
    lstm:
        Whether the post-processor has the LSTM cell; without it, the opcode LSTM is illegal.
    lstm_serial:
        Whether the LSTM cell is the small one, which takes a hidden unit every five cycles, rather than the one that
        takes a unit every cycle. Programs do not depend on it.
    hop_registers:
        Registers from one array cell to the next in either direction, at least 1. With more of them the clock can be
        faster and the latency is longer.
    compact:
        Whether this is the small engine (``systola_hdl.compact``) for FPGAs of a few thousand logic cells: one port a
        memory, one output every few cycles, no LSTM. Programs do not depend on it.
    fabric_rows:
        Rows of the array, from the first, whose multipliers are made of logic, where DSP blocks are too few; a multiple
        of ``weight_rows_per_cycle``. Programs do not depend on it.
    dma:
        Whether the engine has a DMA engine, and each memory a second, 64-bit host client, for a link that reaches the
        host's memory. Programs do not depend on it.
    clock_hz:
        Clock of the engine in Hz, used for times in reports and for the UART divisor.
    uart_baud:
        Baud rate of the serial link.
    """

    name: str
    rows: int
    columns: int
    weight_rows_per_cycle: int
    requantize_lanes: int
    accumulator_depth: int
    activation_bytes: int
    weight_bytes: int
    program_words: int
    trace_marks: int = 64
    lstm: bool = True
    lstm_serial: bool = False
    hop_registers: int = 1
    compact: bool = False
    fabric_rows: int = 0
    dma: bool = False
    clock_hz: int = 50_000_000
    uart_baud: int = 3_000_000

    def __post_init__(self) -> None:
        def reject(field: str, rule: str) -> None:
            raise ValueError(f"configuration {self.name!r}: {field} must be {rule}, not {getattr(self, field)}")

        if not (_is_power_of_two(self.rows) and 4 <= self.rows <= 64):
            reject("rows", "a power of two from 4 to 64")
        if not (_is_power_of_two(self.columns) and 4 <= self.columns <= self.rows):
            reject("columns", f"a power of two from 4 to rows ({self.rows})")
        if self.weight_rows_per_cycle not in (1, 2, 4) or self.weight_rows_per_cycle >= self.rows:
            reject("weight_rows_per_cycle", "1, 2 or 4, and less than rows")
        if self.requantize_lanes < 1 or self.columns % self.requantize_lanes:
            reject("requantize_lanes", f"a divisor of columns ({self.columns})")
        if not (_is_power_of_two(self.accumulator_depth) and 16 <= self.accumulator_depth <= 4096):
            reject("accumulator_depth", "a power of two from 16 to 4096")
        if self.activation_bytes % self.rows or not 256 <= self.activation_bytes <= 1 << 19:
            reject("activation_bytes", f"a multiple of rows ({self.rows}) from 256 to 524288")
        if self.weight_bytes % self.weight_word_bytes or not 256 <= self.weight_bytes <= 1 << 24:
            reject("weight_bytes", f"a multiple of the weight word ({self.weight_word_bytes} bytes) from 256 to 16777216")
        if not 64 <= self.program_words <= 1 << 16:
            reject("program_words", "from 64 to 65536")
        if not 1 <= self.trace_marks <= 4096:
            reject("trace_marks", "from 1 to 4096")
        if not 1 <= self.hop_registers <= 4:
            reject("hop_registers", "from 1 to 4")
        if not 0 <= self.fabric_rows <= self.rows or self.fabric_rows % self.weight_rows_per_cycle:
            reject("fabric_rows", f"a multiple of weight_rows_per_cycle ({self.weight_rows_per_cycle}), at most rows ({self.rows})")
        if self.compact and (self.rows, self.columns, self.weight_rows_per_cycle, self.requantize_lanes) != (4, 4, 1, 1):
            raise ValueError(
                f"configuration {self.name!r}: a compact engine has 4 rows, 4 columns, 1 weight row a cycle and 1 requantize lane"
            )
        if self.compact and self.lstm:
            reject("lstm", "False in a compact engine")
        if self.dma and not self.wide_enough_for_dma:
            reject("dma", f"False in an engine that is compact or has rows or weight words of less than {DMA_BEAT_BYTES} bytes")
        if self.uart_baud < 1 or self.clock_hz < 4 * self.uart_baud:
            reject("uart_baud", f"positive and at most a quarter of clock_hz ({self.clock_hz})")

    def replace(self, **changes: object) -> Config:
        """Return a copy with ``changes`` applied, validated again. Raises ``ValueError`` as the constructor does."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # values are checked in __post_init__

    @property
    def isa_version(self) -> int:
        """Version of the instruction set."""
        return isa.VERSION

    @property
    def row_groups(self) -> int:
        """Cells of the array from top to bottom: each cell reduces ``weight_rows_per_cycle`` rows."""
        return self.rows // self.weight_rows_per_cycle

    @property
    def weight_word_bytes(self) -> int:
        """Bytes of one word of the weight memory: ``weight_rows_per_cycle`` rows of ``columns`` weights."""
        return self.columns * self.weight_rows_per_cycle

    @property
    def weight_words(self) -> int:
        """Words of the weight memory."""
        return self.weight_bytes // self.weight_word_bytes

    @property
    def tile_words(self) -> int:
        """Words of the weight memory that one dense tile of ``rows`` × ``columns`` weights takes."""
        return self.row_groups

    @property
    def bias_words(self) -> int:
        """Words of the weight memory that ``columns`` int32 biases take."""
        return 4 // self.weight_rows_per_cycle

    @property
    def channel_parameter_words(self) -> int:
        """Words of bias, multiplier and shift for one group of ``columns`` channels, per-channel quantization."""
        return 2 * self.bias_words + 1

    @property
    def units_per_group(self) -> int:
        """Hidden units of an LSTM whose gates are one group of ``columns`` channels."""
        return self.columns // len(isa.GATES)

    @property
    def depthwise_channels(self) -> int:
        """Channels of one diagonal (depthwise) tile."""
        return self.columns

    @property
    def wide_enough_for_dma(self) -> bool:
        """Whether the memories have a word for each beat of the DMA engine."""
        return not self.compact and min(self.rows, self.weight_word_bytes) >= DMA_BEAT_BYTES

    @property
    def uart_divisor(self) -> int:
        """Clock cycles a bit on the UART."""
        return round(self.clock_hz / self.uart_baud)

    def program_fields(self) -> dict[str, int]:
        """The values of :data:`PROGRAM_FIELDS`: what a program must agree with its device about."""
        return {field: int(getattr(self, field)) for field in PROGRAM_FIELDS}
