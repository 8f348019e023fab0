"""What a model costs on a device, by the hardware's counters: one record a model, and a table of several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from systola.errors import DeviceError
from systola.measure.record import STALL_PREFIX, Record, stalls, utilization
from systola.profiles import LayerProfile
from systola.session import Session
from systola_firmware.spec.config import Config

__all__ = ["measure", "model_files", "shared_folder", "step_bound"]


def measure(session: Session, model: str) -> Record:
    """Run the session once on random input (cycles do not depend on the data) and return the record.

    Raises :class:`~systola.errors.DeviceError` for a device without a cycle counter.
    """
    device, program = session.device, session.program
    if not device.has_cycles:
        raise DeviceError(f"{device} has no clock, so there are no cycles to measure: use sim:PRESET or serial:PORT")
    generator = np.random.default_rng(0)
    session.run({binding.name: generator.integers(-128, 128, binding.shape, dtype=np.int8) for binding in session.inputs})
    config, counters = device.config, session.counters
    cycles = counters["cycles"]
    return {
        "model": model,
        "preset": config.name,
        "array": {"rows": config.rows, "columns": config.columns},
        "macs": program.macs,
        "cycles": cycles,
        "busy_cycles": counters["array_busy"],
        "utilization": utilization(program.macs, cycles, config),
        "clock_mhz": config.clock_hz / 1e6,
        "latency_ms": 1e3 * cycles / config.clock_hz,
        "layers": [
            {
                "name": layer.name,
                "op": layer.operator,
                "macs": layer.macs,
                "cycles": layer.cycles,
                "utilization": utilization(layer.macs, layer.cycles, config),
                "stalls": stalls(layer.counters),
                **_recurrence(session, layer),
            }
            for layer in session.layers
        ],
    }


def step_bound(units: int, config: Config) -> float:
    """Fewest cycles of one time step of an LSTM of ``units`` hidden units: those in which the weight memory delivers
    its four matrices, ``4 · units² / (columns · weight_rows_per_cycle)``."""
    return 4 * units * units / config.weight_word_bytes


def _recurrence(session: Session, layer: LayerProfile) -> dict[str, Any]:
    """The entry ``recurrence`` of a recurrent layer: each counter of the recurrence, as cycles for each time step."""
    if not layer.recurrence:
        return {}
    units = next(record.output.shape[-1] for record in session.program.layers if record.name == layer.name)
    each = {name: value / layer.steps for name, value in layer.recurrence.items()}
    return {
        "recurrence": {
            "steps": layer.steps,
            "units": units,
            "cycles": each["cycles"],
            "weight_bound": step_bound(units, session.device.config),
            "array_busy": each["array_busy"],
            "cell_busy": each["cell_busy"],
            "stalls": {name.removeprefix(STALL_PREFIX): value for name, value in each.items() if name.startswith(STALL_PREFIX)},
        }
    }


def model_files(folders: Sequence[Path]) -> list[Path]:
    """The ``.tflite`` files directly in ``folders``, in order of name; folders that do not exist are skipped."""
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.tflite"))]


def shared_folder() -> Path:
    """Where models that are not part of the project are: ``$SYSTOLA_MODELS``, else ``../shared/models`` beside the
    clone."""
    return Path(os.environ.get("SYSTOLA_MODELS") or Path(__file__).parents[4] / "shared" / "models")
