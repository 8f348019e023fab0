"""What the control plane's memory holds, and where: trace, registers, and below them what the sequencer remembers."""

from __future__ import annotations

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Unit
from systola_firmware.spec.memory_map import COUNTERS, MARK_WORDS, REGISTERS, read_only_values

__all__ = ["SCAN_LENGTH", "StateLayout"]

#: Words that the scanner visits in turn: counters in the order of their registers, except that instead of the
#: first one that this engine never counts, it looks after the watchdog.
SCAN_LENGTH = 8
#: Words of the registers, rounded up to a power of two; as many follow for the sequencer.
_BLOCK = 32

#: Counters of what this engine does not have.
_ABSENT = ("wait_step", "cell_busy")


class StateLayout:
    """Addresses in words of 32 bits.

    The trace is at 0. At :attr:`registers`, a multiple of 64, are the registers in their order; STATUS, ERROR_ADDRESS,
    MARKS and the counters are ordinary words that the sequencer and the scanner write, and those that never change are
    initial contents. Token counters, the address of each unit's instruction, and the watchdog's count follow.

    Raises ``ValueError`` if the memory map does not have the counters where the scanner wants them.
    """

    def __init__(self, config: Config) -> None:
        #: Words of the trace.
        self.trace_words = config.trace_marks * len(MARK_WORDS)
        self.registers = -(-self.trace_words // (2 * _BLOCK)) * 2 * _BLOCK
        self.internal = self.registers + _BLOCK
        #: Words of the memory.
        self.words = self.internal + _BLOCK
        self.counters = self.register(f"counter_{next(iter(COUNTERS))}")
        #: Of each counted event, its index in the scanner's round; and the index that is left for the watchdog.
        self.scanned = {name: index for index, name in enumerate(COUNTERS) if name not in _ABSENT}
        self.watch_index = list(COUNTERS).index(_ABSENT[0])
        if self.counters % SCAN_LENGTH or max(self.scanned.values()) >= SCAN_LENGTH or len(REGISTERS) > _BLOCK:
            raise ValueError("the registers' counters are not where a compact engine can scan them")
        #: A word that is always 0.
        self.zero = self.counters + self.watch_index
        #: Cycles without progress; differs from :attr:`zero` in one address bit.
        self.watchdog = self.zero + _BLOCK
        self.initial = [0] * self.words
        for name, value in read_only_values(config).items():
            self.initial[self.register(name)] = value

    def register(self, name: str) -> int:
        """Of a register, by its name in the memory map."""
        return self.registers + REGISTERS[name].offset // 4

    @property
    def tokens(self) -> int:
        """Of the counter of tokens from unit 0 to unit 0; ``4*source + destination`` further for another pair."""
        return self.internal

    @property
    def instruction(self) -> int:
        """Of the program address of unit 0's instruction; further by the unit's number for another."""
        return self.tokens + len(Unit) * 2
