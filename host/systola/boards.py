"""The boards that there are bitstreams for, and how far each has come: what the last builds left in ``boards.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

__all__ = ["BoardState", "known_boards"]


@dataclass(frozen=True)
class BoardState:
    """A board, as the last build of its bitstream left it.

    Attributes
    ----------
    name, title, fpga:
        Names for the command line and for people, and the name of the FPGA.
    preset, array:
        Preset of its engine, and rows × columns of that.
    clock_mhz:
        Clock of the engine.
    device:
        Argument of ``--device`` for it, with the usual name of the serial port or an example of a PCI address.
    link:
        What the link runs over.
    state:
        ``built in CI``, ``timing met``, ``only simulated``, or ``prepared, never built here``: none has run yet.
    """

    name: str
    title: str
    fpga: str
    preset: str
    array: str
    clock_mhz: float
    device: str
    link: str
    state: str


def known_boards() -> list[BoardState]:
    """All boards, in the order of the build."""
    content = json.loads((resources.files("systola") / "boards.json").read_text(encoding="utf-8"))
    return [
        BoardState(
            name=board["name"],
            title=board["title"],
            fpga=board["fpga"],
            preset=board["preset"],
            array=board["array"],
            clock_mhz=board["clock_mhz"],
            device=board["device"],
            link=board["serial"],
            state=board["state"],
        )
        for board in content
    ]
