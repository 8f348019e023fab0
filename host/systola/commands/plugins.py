"""Sub-commands that other packages add by the entry-point group ``systola.commands``; each is a function for typer.

So the boards' package depends on the driver, and the driver does not depend on the boards' package. An entry point is
loaded when its command is called, so that `systola --help` does not wait for heavy packages.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import typer

from systola.errors import ProgramError

__all__ = ["GROUP", "add_commands"]

GROUP = "systola.commands"

#: All words after the command's name go to the function that the entry point names, `--help` too.
_HAND_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_commands(app: typer.Typer) -> None:
    """Add a command to ``app`` for each entry point, in order of name."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        _add(app, point)


def _add(app: typer.Typer, point: EntryPoint) -> None:
    extra = ",".join(point.extras)

    def call(ctx: typer.Context) -> None:
        inner = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        try:
            inner.command()(point.load())
        except ImportError as error:
            raise ProgramError(
                f"`systola {point.name}` needs the package {error.name}: install with `pip install 'systola[{extra}]'`"
            ) from error
        inner(ctx.args, prog_name=f"systola {point.name}")

    app.command(
        point.name,
        help=_first_line(point) or f"Not installed: needs systola[{extra}].",
        context_settings=_HAND_ON,
        add_help_option=False,
    )(call)


def _first_line(point: EntryPoint) -> str:
    """The first line of the function's docstring, found in its text: every command calls this, so to save time nothing
    is imported or parsed. Empty if there is no docstring."""
    package, *modules = point.module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    source = Path(spec.origin).parent.joinpath(*modules).with_suffix(".py")
    _, _, function = source.read_text(encoding="utf-8").partition(f"\ndef {point.attr}(")
    return function.partition('"""')[2].partition("\n")[0].removesuffix('"""')
