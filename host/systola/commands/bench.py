"""``systola bench`` without a model: it measures everything that it finds, in one table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from systola.commands.reports import BuildProgress
from systola.connect import open_device
from systola.device import Device
from systola.errors import ProgramError
from systola.measure.benchmark import measure, model_files, shared_folder
from systola.measure.record import Record, write_record
from systola.measure.synthetic import BATCHES, measure_lstm

__all__ = ["measure_all"]


def _measure_file(device: Device, path: Path) -> Record:
    return measure(device.load(path), path.stem)


def measure_all(device_name: str, output: Path, console: Console) -> list[Record]:
    """Measure the example models, the shared ones that are present, and the synthetic LSTM with each number of
    sequences.

    A model the compiler refuses is named and skipped.
    """
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
