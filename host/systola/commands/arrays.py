"""Input and output files of the command line: ``.npy`` for one tensor, ``.npz`` for several by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from systola.errors import InputError

__all__ = ["load_arrays", "save_arrays"]

Array = npt.NDArray[np.generic]


def load_arrays(path: Path) -> Array | dict[str, Array]:
    """An array, or arrays by name. Raises :class:`~systola.errors.InputError`, one sentence, for what is not such a
    file."""
    try:
        with path.open("rb") as file:  # numpy leaves its own file open when the content is damaged
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror or error}") from error
    except (ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is not a .npy or .npz file of numbers, or it is damaged") from error


def save_arrays(path: Path, answer: Array | Mapping[str, Array]) -> None:
    """Write an answer to exactly ``path``: arrays by name as ``.npz``, a single one as ``.npy`` if the name ends so.

    Raises :class:`~systola.errors.InputError` for several arrays and a name that does not end in ``.npz``.
    """
    if isinstance(answer, Mapping):
        if path.suffix != ".npz":
            raise InputError(f"there are several tensors to write ({', '.join(answer)}): give an .npz file instead of {path.name}")
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **answer)
    else:
        with path.open("wb") as file:
            np.save(file, answer, allow_pickle=False)
