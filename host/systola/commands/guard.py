"""How every command reports a failure: one sentence on stderr, and exit code 1."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from systola.errors import SystolaError

__all__ = ["guarded"]


def guarded(action: Callable[[], None], *, debug: bool) -> None:
    """Call ``action``; what it raises becomes one sentence on stderr and exit code 1, with the traceback only if
    ``debug``."""
    try:
        action()
    except BrokenPipeError:  # the reader of our output has closed the pipe
        sys.stderr.close()
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"systola: {_sentence(error)}\n")
        sys.exit(1)


def _sentence(error: BaseException) -> str:
    if isinstance(error, SystolaError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ImportError):
        return f"this command needs the package {error.name}: install with `pip install 'systola[sim]'`"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    reason = " ".join(str(error).split()) or "no reason given"
    return f"internal error, please report it ({type(error).__name__}: {reason}); `systola --debug …` shows where"
