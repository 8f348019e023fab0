"""Makes a program of what a user names as a model: it is compiled here, or was compiled before and stored in a
``.systola`` file."""

from __future__ import annotations

from pathlib import Path

from systola.errors import ProgramError
from systola_firmware import compiler
from systola_firmware.errors import CompileError
from systola_firmware.spec import program_file
from systola_firmware.spec.config import Config
from systola_firmware.spec.program import Program

__all__ = ["compile_file", "load_program", "read_model_file"]


def read_model_file(path: str | Path) -> bytes:
    """The bytes of a model file. Raises :class:`~systola.errors.ProgramError`, one sentence, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ProgramError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise ProgramError(f"{path} is a folder, not a model file") from None
    except OSError as error:
        raise ProgramError(f"{path} could not be read: {error.strerror}") from error


def load_program(model: str | Path | bytes | Program, config: Config, *, stateful: bool = False, batch: int = 1) -> Program:
    """A program from ``model``: itself, a stored program as it is, or a ``.tflite`` model compiled for ``config``.

    With ``stateful`` the program keeps its recurrent state between runs: a model is compiled in that way, a stored
    program must have been. The same holds for a ``batch`` other than 1, the number of inferences that the program runs
    at once.

    Raises :class:`~systola.errors.ProgramError`, one sentence that names the file, if it is damaged or does not
    compile.
    """
    if isinstance(model, Program):
        return _checked(model, "the program", stateful, batch)
    if isinstance(model, bytes):
        name, title, data = "the model", "", model
    else:
        name, title, data = str(model), Path(model).stem, read_model_file(model)
    if not program_file.is_program(data):
        return _compiled(data, name, title, config, stateful=stateful, batch=batch)
    try:
        return _checked(program_file.load(data), name, stateful, batch)
    except CompileError as error:
        raise ProgramError(f"{name}: {error}") from error


def compile_file(path: Path, config: Config, *, stateful: bool = False, batch: int = 1) -> Program:
    """The program of a ``.tflite`` file; as :func:`load_program`, but a program file is refused."""
    data = read_model_file(path)
    if program_file.is_program(data):
        raise ProgramError(f"{path} is a compiled program already")
    return _compiled(data, str(path), path.stem, config, stateful=stateful, batch=batch)


def _compiled(data: bytes, name: str, title: str, config: Config, *, stateful: bool, batch: int) -> Program:
    """The program of a model's bytes under ``title``; ``name`` is for messages."""
    try:
        return compiler.compile_model(data, config, name=title, stateful=stateful, batch=batch)
    except CompileError as error:
        raise ProgramError(f"{name}: {error}") from error


def _checked(program: Program, name: str, stateful: bool, batch: int) -> Program:
    if stateful and not program.stateful:
        raise ProgramError(f"{name} was compiled to begin anew in each run: compile it again as a stateful program")
    if batch not in (1, program.batch):
        raise ProgramError(f"{name} was compiled for a batch of {program.batch}: compile it again with a batch of {batch}")
    return program
