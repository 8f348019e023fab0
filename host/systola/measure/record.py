"""What a model costs on a device as one record, ready for JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from systola_firmware.spec.config import Config

__all__ = ["STALL_PREFIX", "Record", "stalls", "utilization", "write_record"]

#: JSON-ready: model, preset, array, macs, cycles, busy_cycles, utilization, clock_mhz, latency_ms, layers.
#: A recurrent layer's entry has also ``recurrence``, per time step; the record of a synthetic LSTM also ``batch``.
Record = dict[str, Any]

#: Beginning of the names of the counters that count waiting.
STALL_PREFIX = "wait_"


def stalls(counters: dict[str, int]) -> dict[str, int]:
    """The counters that count waiting, by what was waited for."""
    return {name.removeprefix(STALL_PREFIX): value for name, value in counters.items() if name.startswith(STALL_PREFIX)}


def utilization(macs: int, cycles: int, config: Config) -> float:
    """The share of the array's possible multiplications that the model needed: ``macs / (cycles * rows * columns)``, 0
    for no cycles."""
    return macs / (cycles * config.rows * config.columns) if cycles else 0.0


def write_record(record: Record, path: Path) -> None:
    """Write ``record`` as JSON. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
