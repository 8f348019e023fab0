"""Loads a bitstream into a board: ``systola program --board ulx3s-85f``, or ``make
program``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from systola_boards.catalogue.board import Board
from systola_boards.catalogue.boards import BOARDS, find_board

__all__ = ["NotLoaded", "app", "load"]


class NotLoaded(RuntimeError):
    """There is nothing to load, nothing to load it with, or the program failed; the message is one sentence."""


def load(board: Board, folder: Path) -> str:
    """Load ``folder/BOARD/BOARD.EXTENSION`` by the first of the board's programs that is installed. Returns the name of
    that.

    Raises :class:`NotLoaded`.
    """
    bitstream = folder / board.name / f"{board.name}{board.device.bitstream}"
    if not bitstream.is_file():
        raise NotLoaded(f"there is no {bitstream}: make it with `make bitstream BOARD={board.name}`")
    for words in board.loaders:
        path = shutil.which(words[0])
        if path is not None:
            arguments = [word.format(bitstream=bitstream) for word in words[1:]]
            result = subprocess.run([path, *arguments], check=False)
            if result.returncode:
                raise NotLoaded(f"{words[0]} failed with exit code {result.returncode}: is the {board.title} connected?")
            return words[0]
    raise NotLoaded(f"nothing to load a {board.title} with: install {' or '.join(words[0] for words in board.loaders)}")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    board: Annotated[str, typer.Option(help=f"one of {', '.join(BOARDS)}")],
    folder: Annotated[Path, typer.Option("--folder", help="where bitstreams are")] = Path("build/boards"),
) -> None:
    """Load a board's bitstream into its FPGA."""
    try:
        chosen = find_board(board)
        program = load(chosen, folder)
    except (ValueError, NotLoaded) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    baud = f"@{chosen.uart_baud}" if chosen.uart_baud is not None else ""
    typer.echo(f"{board} is loaded ({program}). Try: systola info --device serial:{chosen.port}{baud}")
