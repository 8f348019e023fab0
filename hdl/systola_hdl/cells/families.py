"""FPGA families for which multipliers and memories are made of the vendor's cells."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Family", "FamilyPlatform", "family_of", "platform_of"]


class Family(enum.Enum):
    """The family whose cells a component may instantiate."""

    PORTABLE = "portable"  #: no vendor's cells: for simulation, or inference by synthesis
    ECP5 = "ecp5"  #: Lattice ECP5
    ICE40 = "ice40"  #: Lattice iCE40 UltraPlus
    GOWIN = "gowin"  #: Gowin GW2A
    XILINX = "xilinx"  #: AMD 7-series


#: What the ``family`` of Amaranth's platforms begins with, in lower case.
_NAMES = {Family.ECP5: "ecp5", Family.ICE40: "ice40", Family.GOWIN: "gw2a", Family.XILINX: "series7"}


@dataclass(frozen=True)
class FamilyPlatform:
    """Stands in for a board's platform where there are no pins: it has all that :func:`family_of` reads."""

    family: str


def family_of(platform: object) -> Family:
    """The family that ``elaborate(platform)`` is for, by the platform's ``family``; no platform is a simulation.

    Raises ``ValueError`` for a family whose cells are not known here.
    """
    if platform is None:
        return Family.PORTABLE
    name = str(getattr(platform, "family", "")).lower()
    for family, beginning in _NAMES.items():
        if name.startswith(beginning):
            return family
    raise ValueError(f"no cells are known for the FPGA family {name!r}")


def platform_of(family: Family) -> FamilyPlatform | None:
    """A platform with nothing but a family; ``None`` for the portable implementation."""
    return None if family is Family.PORTABLE else FamilyPlatform(_NAMES[family])
