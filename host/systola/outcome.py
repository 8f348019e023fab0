"""How a program ended, as the device's registers and trace memory tell it."""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.spec import isa

__all__ = ["Mark", "Outcome"]


@dataclass(frozen=True)
class Mark:
    """One trace mark: program address of the marked instruction, and the counters when it was complete."""

    address: int
    counters: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """How a program ended: ``error`` is ``NONE`` after END; ``address`` is the instruction that stopped it (words)."""

    error: isa.ErrorCode
    address: int
    counters: dict[str, int]
    marks: tuple[Mark, ...]
