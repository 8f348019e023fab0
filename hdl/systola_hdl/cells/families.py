"""FPGA families that have bodies of their own for multipliers and memories."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Family", "FamilyPlatform", "family_of", "platform_of"]


class Family(enum.Enum):
    """Where a component may use the vendor's cells."""

    PORTABLE = "portable"  #: none: simulation, or what synthesis makes of it
    ECP5 = "ecp5"  #: Lattice ECP5
    ICE40 = "ice40"  #: Lattice iCE40 UltraPlus
    GOWIN = "gowin"  #: Gowin GW2A
    XILINX = "xilinx"  #: AMD 7-series


#: Beginnings of what Amaranth's platforms call their ``family``, in lower case.
_NAMES = {Family.ECP5: "ecp5", Family.ICE40: "ice40", Family.GOWIN: "gw2a", Family.XILINX: "series7"}


@dataclass(frozen=True)
class FamilyPlatform:
    """Stands for a board's platform where there are no pins: all that :func:`family_of` asks of one."""

    family: str


def family_of(platform: object) -> Family:
    """The family that ``elaborate(platform)`` is for, by the platform's ``family``; no platform is a simulation.

    Raises ``ValueError`` for a family that has no bodies here.
    """
    if platform is None:
        return Family.PORTABLE
    name = str(getattr(platform, "family", "")).lower()
    for family, beginning in _NAMES.items():
        if name.startswith(beginning):
            return family
    raise ValueError(f"no cells are known for the FPGA family {name!r}")


def platform_of(family: Family) -> FamilyPlatform | None:
    """A platform that is nothing but a family; no platform for the portable bodies."""
    return None if family is Family.PORTABLE else FamilyPlatform(_NAMES[family])
