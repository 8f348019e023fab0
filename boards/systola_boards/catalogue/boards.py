"""All boards, by name."""

from __future__ import annotations

from systola_boards.catalogue.board import Board
from systola_boards.catalogue.colorlight_i5 import COLORLIGHT_I5
from systola_boards.catalogue.icebreaker import ICEBREAKER
from systola_boards.catalogue.tang_nano_20k import TANG_NANO_20K
from systola_boards.catalogue.ulx3s import ULX3S_25F, ULX3S_85F
from systola_boards.catalogue.versa import VERSA

__all__ = ["BOARDS", "find_board"]

BOARDS: dict[str, Board] = {board.name: board for board in (ULX3S_85F, ULX3S_25F, VERSA, COLORLIGHT_I5, ICEBREAKER, TANG_NANO_20K)}


def find_board(name: str) -> Board:
    """Look up a board by name. Raises ``ValueError`` with the names that exist."""
    if name not in BOARDS:
        raise ValueError(f"unknown board {name!r}: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
