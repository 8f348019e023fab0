"""From what a user calls a model to a program: compiled here, or compiled before and stored in a ``.systola`` file."""

from __future__ import annotations

from pathlib import Path

from systola.errors import ProgramError
from systola_firmware import compiler, program_file
from systola_firmware.config import Config
from systola_firmware.errors import CompileError
from systola_firmware.program import Program

__all__ = ["load_program", "read_model_file"]


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


def load_program(model: str | Path | bytes | Program, config: Config) -> Program:
    """A program from ``model``: itself, a stored program as it is, or a ``.tflite`` model compiled for ``config``.

    Raises :class:`~systola.errors.ProgramError`, one sentence that names the file, if it is damaged or does not compile.
    """
    if isinstance(model, Program):
        return model
    name = "the model" if isinstance(model, bytes) else str(model)
    data = model if isinstance(model, bytes) else read_model_file(model)
    try:
        if program_file.is_program(data):
            return program_file.load(data)
        # By path where there is one: the program then has the file's name.
        return compiler.compile_model(data if isinstance(model, bytes) else model, config)
    except CompileError as error:
        raise ProgramError(f"{name}: {error}") from error
