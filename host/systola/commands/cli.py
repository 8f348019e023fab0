"""The command line: ``systola compile``, ``run``, ``bench``, ``profile``, ``sim``, ``demo``, ``info``, ``boards``,
``disassemble``, ``pcie``; and what other packages add (:mod:`systola.commands.plugins`).

Whatever goes wrong is told in one sentence on stderr, with exit code 1; ``--debug`` shows the traceback as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from systola import __version__
from systola.commands.guard import guarded
from systola.commands.pcie import app as pcie_app
from systola.commands.plugins import add_commands
from systola.connect import DEFAULT_DEVICE, open_device
from systola.device import Device
from systola.errors import InputError, ProgramError
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import DEFAULT_PRESET
from systola_firmware.spec.presets import preset as find_preset

__all__ = ["app", "main"]

app = typer.Typer(
    name="systola",
    help="Run int8 .tflite models on the Systola accelerator: on a board, or on its simulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(pcie_app)

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A .tflite model or a compiled .systola program.")]
DeviceOption = Annotated[str, typer.Option("--device", "-d", help="sim:PRESET, golden:PRESET, serial:PORT[@BAUD] or pcie:ADDRESS.")]
PresetOption = Annotated[str, typer.Option("--preset", "-p", help="The engine's configuration; `systola info` lists them.")]
StatefulOption = Annotated[
    bool, typer.Option("--stateful", help="Recurrent layers continue from run to run: stacked inputs are intervals of one stream.")
]
BatchOption = Annotated[
    int, typer.Option("--batch", "-b", help="Inferences that run side by side and share each load of weights; costs memory.")
]

#: Answers go to stdout, progress and errors to stderr.
_out = Console()
_err = Console(stderr=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"systola {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command: :func:`main` looks for ``--debug``, and the callback of ``--version`` acts."""


def _preset(name: str) -> Config:
    try:
        return find_preset(name)
    except ValueError as error:
        raise ProgramError(str(error)) from None


@contextmanager
def _opened(name: str) -> Iterator[Device]:
    from systola.commands.reports import BuildProgress

    with BuildProgress(_err) as progress:
        device = open_device(name, progress=progress)
    with device:
        yield device


@app.command("compile")
def compile_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An int8 .tflite model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The program file to write.")],
    preset: PresetOption = DEFAULT_PRESET,
    stateful: StatefulOption = False,
    batch: BatchOption = 1,
) -> None:
    """Compile a model to a program file, and report what it needs."""
    from systola.commands.reports import program_report
    from systola.models import compile_file
    from systola_firmware.spec import program_file

    config = _preset(preset)
    program = compile_file(model, config, stateful=stateful, batch=batch)
    _writable(output)
    output.write_bytes(program_file.dump(program))
    _out.print(program_report(program, config))


@app.command()
def run(
    model: ModelArgument,
    input_file: Annotated[Path, typer.Option("--input", "-i", help=".npy: one input, or N stacked; .npz: arrays by tensor name.")],
    output_file: Annotated[Path, typer.Option("--output", "-o", help=".npy or .npz to write, as the input is.")],
    *,
    device: DeviceOption = DEFAULT_DEVICE,
    float_io: Annotated[bool, typer.Option("--float", help="Real values in and out, by the model's own scales.")] = False,
    stateful: StatefulOption = False,
    batch: BatchOption = 1,
) -> None:
    """Run a model on inputs from a file."""
    from systola.commands.arrays import load_arrays, save_arrays

    x = load_arrays(input_file)
    _writable(output_file)
    with _opened(device) as opened:
        session = opened.load(model, stateful=stateful, batch=batch)
        save_arrays(output_file, session.run(x, float_io=float_io))
        cycles = session.counters.get("cycles") if opened.has_cycles else None
    if cycles:
        milliseconds = 1e3 * cycles / opened.config.clock_hz
        together = session.program.batch
        what = "an inference" if together == 1 else f"for {together} inferences"
        _err.print(f"{cycles:,} cycles {what}: {milliseconds:.3f} ms at {opened.config.clock_hz / 1e6:g} MHz")


@app.command()
def bench(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model or program; without it, the examples and all that is at hand.")
    ] = None,
    device: DeviceOption = DEFAULT_DEVICE,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the measurement here.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Without MODEL: the folder of a JSON file for each.")] = Path(
        "build/bench"
    ),
) -> None:
    """Measure a model by the device's cycle counters, or everything that there is to measure."""
    from systola.commands.bench import measure_all
    from systola.commands.reports import batch_table, bench_table, recurrence_table
    from systola.measure.benchmark import measure
    from systola.measure.record import write_record

    if model is None:
        if json_file is not None:
            raise InputError("--json is the file of one model's measurement: name the model, or use --output FOLDER")
        records = measure_all(device, output, _out)
    else:
        if json_file is not None:
            _writable(json_file)
        with _opened(device) as opened:
            records = [measure(opened.load(model), model.stem)]
        if json_file is not None:
            write_record(records[0], json_file)
    _out.print(bench_table(records))
    for table in (recurrence_table(records), batch_table(records)):
        if table is not None:
            _out.print(table)


@app.command()
def profile(model: ModelArgument, device: DeviceOption = DEFAULT_DEVICE) -> None:
    """Show where the cycles of a model go, layer by layer."""
    from systola.commands.reports import profile_table, recurrence_table
    from systola.measure.benchmark import measure

    with _opened(device) as opened:
        session = opened.load(model)
        record = measure(session, model.stem)
        _out.print(profile_table(session))
        if (table := recurrence_table([record])) is not None:
            _out.print(table)


@app.command()
def sim(
    preset: PresetOption = DEFAULT_PRESET,
    serial: Annotated[bool, typer.Option("--serial", help="Serve the board behind a pseudo-terminal until Ctrl-C.")] = False,
    divisor: Annotated[
        int | None,
        typer.Option("--divisor", help="Clock cycles a bit of the simulated line: the quickest unless told, 0 for a real cable's."),
    ] = None,
) -> None:
    """Build the simulated board; with --serial run it as if it hung on a cable."""
    from systola.commands.simulation import build_board, line_divisor, serve_board

    config = _preset(preset)
    cycles = line_divisor(divisor, config)
    if serial:
        speed = (
            f"{cycles} clock cycles a bit; a real cable has {config.uart_divisor}, `--divisor {config.uart_divisor}` simulates that"
        )
        hint = f"Try: systola info --device serial:{{}}\nCtrl-C ends it. The line is simulated at {speed}."
        serve_board(config, cycles, _err, lambda port: typer.echo(f"{port}\n{hint.format(port)}"))
    else:
        typer.echo(f"The simulated {config.name} is ready: {build_board(config, _err)}")


@app.command()
def demo(device: DeviceOption = DEFAULT_DEVICE) -> None:
    """Run the example model on its test images, and compare every answer with TensorFlow Lite Micro's."""
    from systola.commands.demo import demonstrate

    if not demonstrate(device, _out):
        raise typer.Exit(1)


@app.command()
def info(device: Annotated[str | None, typer.Option("--device", "-d", help="Ask this device too.")] = None) -> None:
    """Show versions, presets and, with --device, what a device says about itself."""
    from systola.commands.reports import preset_table, tool_versions

    for name, number in tool_versions().items():
        _out.print(f"{name} {number}", highlight=False)
    _out.print(preset_table())
    if device is not None:
        with _opened(device) as opened:
            _out.print(f"{opened} is a Systola engine with the sizes of {opened.config.name}:", highlight=False)
            for name, value in opened.registers().items():
                if name.startswith("config_") or name == "gateware_version":
                    _out.print(f"  {name.removeprefix('config_')} = {value}", highlight=False)


@app.command()
def boards() -> None:
    """List the boards, their engines and how far each has come."""
    from systola.commands.reports import boards_tables

    for table in boards_tables():
        _out.print(table)


@app.command()
def disassemble(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A .systola program, or a .tflite model to compile first.")],
    preset: PresetOption = DEFAULT_PRESET,
) -> None:
    """Print a program's instructions."""
    from systola.models import load_program
    from systola_firmware.spec.assembly import disassemble as disassembled

    compiled = load_program(program, _preset(preset))
    labels = {layer.first: f"{layer.name} ({layer.operator})" for layer in compiled.layers if layer.end > layer.first}
    typer.echo(disassembled(compiled.words.tolist(), labels))


def _writable(path: Path) -> None:
    """Raise before the long work if ``path`` cannot be written after it."""
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file to write")


add_commands(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line with ``arguments`` (those of the process if None) and exit."""
    words = sys.argv[1:] if arguments is None else arguments
    guarded(lambda: app(words, prog_name="systola"), debug="--debug" in words)
