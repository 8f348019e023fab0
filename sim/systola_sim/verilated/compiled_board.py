"""A compiled simulation as a C library: loaded, made, called and freed."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CompiledBoard"]


class CompiledBoard:
    """One board of a library that has ``systola_create``, ``systola_destroy`` and further functions, which take what
    the first returns.

    Parameters
    ----------
    library:
        The file.
    signatures:
        Result and arguments of each function, by its name without ``systola_``.
    arguments:
        Arguments of ``systola_create``.

    Raises ``OSError`` for a file that is no such library.
    """

    def __init__(self, library: Path, signatures: Mapping[str, tuple[object, list[object]]], *arguments: object) -> None:
        loaded = ctypes.CDLL(str(library))
        self._functions: dict[str, ctypes._FuncPointer] = {}
        for name, (result, parameters) in signatures.items():
            function = getattr(loaded, f"systola_{name}")
            function.restype, function.argtypes = result, parameters
            self._functions[name] = function
        self._board: int | None = self._functions["create"](*arguments)

    def close(self) -> None:
        """Free the board; closing twice is fine."""
        board, self._board = self._board, None
        if board is not None:
            self._functions["destroy"](board)

    def __del__(self) -> None:
        if hasattr(self, "_board"):
            self.close()

    def _call(self, name: str, *arguments: object) -> int:
        if self._board is None:
            raise ValueError("the simulated board is closed")
        result: int = self._functions[name](self._board, *arguments)
        return result
