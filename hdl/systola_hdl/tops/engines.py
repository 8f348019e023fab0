"""The engine that a configuration asks for."""

from __future__ import annotations

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WATCHDOG_CYCLES
from systola_hdl.compact import engine as compact
from systola_hdl.full import engine as full

__all__ = ["engine_for"]


def engine_for(config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> full.Engine | compact.Engine:
    """The engine of this size; both have the same ports."""
    return (compact if config.compact else full).Engine(config, watchdog_cycles=watchdog_cycles)
