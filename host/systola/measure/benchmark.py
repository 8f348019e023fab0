"""What a model costs on a device, by the hardware's counters: one record a model, and a table of several."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from systola.device import Device
from systola.errors import DeviceError, ProgramError
from systola.session import LayerProfile, Session
from systola_firmware.spec.config import Config

__all__ = ["Record", "measure", "stalls", "write_record"]

#: JSON-ready: model, preset, array, macs, cycles, busy_cycles, utilization, clock_mhz, latency_ms, layers.
#: A recurrent layer's entry has also ``recurrence``, per time step; the record of a synthetic LSTM also ``batch``.
Record = dict[str, Any]

_STALL_PREFIX = "wait_"


def stalls(counters: dict[str, int]) -> dict[str, int]:
    """The counters of waiting, by what was waited for."""
    return {name.removeprefix(_STALL_PREFIX): value for name, value in counters.items() if name.startswith(_STALL_PREFIX)}


def utilization(macs: int, cycles: int, config: Config) -> float:
    """The part of the array's multiplications that the model needed: ``macs / (cycles * rows * columns)``, 0 for no
    cycles."""
    return macs / (cycles * config.rows * config.columns) if cycles else 0.0


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
    """Of a recurrent layer, entry ``recurrence``: each counter of the recurrence as cycles for each time step."""
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
            "stalls": {name.removeprefix(_STALL_PREFIX): value for name, value in each.items() if name.startswith(_STALL_PREFIX)},
        }
    }


def write_record(record: Record, path: Path) -> None:
    """Write ``record`` as JSON. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def model_files(folders: Sequence[Path]) -> list[Path]:
    """The ``.tflite`` files directly in ``folders``, in order of name; folders that do not exist are skipped."""
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.tflite"))]


def shared_folder() -> Path:
    """Where models that are not part of the project are: ``$SYSTOLA_MODELS``, else ``../shared/models`` beside the
    clone."""
    return Path(os.environ.get("SYSTOLA_MODELS") or Path(__file__).parents[4] / "shared" / "models")


def _measure_file(device: Device, path: Path) -> Record:
    return measure(device.load(path), path.stem)


def measure_all(device_name: str, output: Path, console: Console) -> list[Record]:
    """Measure the example models, the shared ones that are present, and the synthetic LSTM with each number of
    sequences.

    A model the compiler refuses is named and skipped.
    """
    from systola.commands.reports import BuildProgress
    from systola.connect import open_device
    from systola.measure.synthetic import BATCHES, measure_lstm

    records: list[Record] = []
    with BuildProgress(console) as progress:
        device = open_device(device_name, progress=progress)
    with device:
        files = model_files([Path(__file__).parents[3] / "examples", shared_folder()])
        jobs: list[Callable[[], Record]] = [partial(_measure_file, device, path) for path in files]
        jobs += [partial(measure_lstm, device, batch) for batch in BATCHES]
        for job in jobs:
            try:
                record = job()
            except ProgramError as error:
                console.print(f"skipped {error}", highlight=False, soft_wrap=True)
                continue
            write_record(record, output / f"{record['model']}.json")
            records.append(record)
    return records


def main() -> None:
    """``make bench``: measure all models on ``--device`` and write a JSON file for each to the folder ``--output``."""
    from systola.commands.cli import guarded
    from systola.commands.reports import batch_table, bench_table, recurrence_table
    from systola.connect import DEFAULT_DEVICE

    parser = argparse.ArgumentParser(description="Measure the example models, the shared models and a synthetic LSTM.")
    parser.add_argument("--device", default=DEFAULT_DEVICE)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    console = Console()

    def measured() -> None:
        records = measure_all(options.device, options.output, console)
        console.print(bench_table(records))
        for table in (recurrence_table(records), batch_table(records)):
            if table is not None:
                console.print(table)

    guarded(measured, debug=options.debug)


if __name__ == "__main__":
    main()
