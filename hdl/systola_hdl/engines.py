"""The engine that a configuration asks for."""

from __future__ import annotations

from systola_firmware.config import Config
from systola_firmware.isa import WATCHDOG_CYCLES
from systola_hdl.compact.engine import CompactEngine
from systola_hdl.engine import Engine

__all__ = ["engine_for"]


def engine_for(config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> Engine | CompactEngine:
    """The engine of this size; both have the same ports."""
    return (CompactEngine if config.compact else Engine)(config, watchdog_cycles=watchdog_cycles)
