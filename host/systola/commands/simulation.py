"""The simulated board for the command line: build it, and serve it behind a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from systola.commands.reports import BuildProgress
from systola.errors import DeviceError, InputError
from systola_firmware.spec.config import Config

__all__ = ["build_board", "line_divisor", "serve_board"]

#: Clock cycles a bit, at least: what the board's UART needs. No cable limits a simulated line, so this is its normal
#: speed.
_LEAST_DIVISOR = 4
_MOST_DIVISOR = 0xFFFF


def line_divisor(wanted: int | None, config: Config) -> int:
    """Clock cycles a bit of the simulated line: as ``wanted``, those of a real cable for 0, the least possible for
    None.

    Raises :class:`~systola.errors.InputError` for what the board's UART cannot do.
    """
    if wanted is None:
        return _LEAST_DIVISOR
    if wanted and not _LEAST_DIVISOR <= wanted <= _MOST_DIVISOR:
        raise InputError(f"--divisor must be 0 or from {_LEAST_DIVISOR} to {_MOST_DIVISOR} clock cycles a bit, not {wanted}")
    return wanted or config.uart_divisor


def build_board(config: Config, console: Console) -> Path:
    """Build the simulated board of ``config`` if it is not in the cache, and return its library.

    Raises :class:`~systola.errors.DeviceError` when a tool is missing or the build fails.
    """
    from systola_sim.verilated.toolchain import ToolMissing
    from systola_sim.verilated.verilator import BuildError, board_library

    try:
        with BuildProgress(console) as progress:
            return board_library(config, progress)
    except (ToolMissing, BuildError) as error:
        raise DeviceError(str(error)) from error


def serve_board(config: Config, divisor: int, console: Console, announce: Callable[[str], None]) -> None:
    """Serve the board at a pseudo-terminal, told to ``announce``, until SIGINT or SIGTERM; ``divisor`` is clock cycles
    a bit.

    Raises as :func:`build_board`.
    """
    from systola_sim.verilated.virtual_board import VirtualBoard, serve

    serve(VirtualBoard(config, divisor, library=build_board(config, console)), announce)
