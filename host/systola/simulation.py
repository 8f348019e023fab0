"""The simulated board for the command line: build it, and serve it behind a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from systola.errors import DeviceError
from systola.reports import BuildProgress
from systola_firmware.config import Config

__all__ = ["build_board", "serve_board"]


def build_board(config: Config, console: Console) -> Path:
    """Build the simulated board of ``config`` if it is not in the cache, and return its library.

    Raises :class:`~systola.errors.DeviceError` when a tool is missing or the build fails.
    """
    from systola_sim.toolchain import ToolMissing
    from systola_sim.verilator import BuildError, board_library

    try:
        with BuildProgress(console) as progress:
            return board_library(config, progress)
    except (ToolMissing, BuildError) as error:
        raise DeviceError(str(error)) from error


def serve_board(config: Config, console: Console, announce: Callable[[str], None]) -> None:
    """Serve the board at a pseudo-terminal, told to ``announce``, until SIGINT or SIGTERM. Raises as :func:`build_board`."""
    from systola_sim.virtual_board import VirtualBoard, serve

    serve(VirtualBoard(config, library=build_board(config, console)), announce)
