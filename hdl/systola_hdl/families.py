"""FPGA families that have bodies of their own for multipliers and memories."""

from __future__ import annotations

import enum

__all__ = ["Family", "family_of"]


class Family(enum.Enum):
    """Where a component may use the vendor's cells."""

    PORTABLE = "portable"  #: none: simulation, or what synthesis makes of it
    ECP5 = "ecp5"  #: Lattice ECP5
    ICE40 = "ice40"  #: Lattice iCE40 UltraPlus
    GOWIN = "gowin"  #: Gowin GW2A


#: Beginnings of what Amaranth's platforms call their ``family``, in lower case.
_NAMES = (("ecp5", Family.ECP5), ("ice40", Family.ICE40), ("gw2a", Family.GOWIN))


def family_of(platform: object) -> Family:
    """The family that ``elaborate(platform)`` is for, by the platform's ``family``; no platform is a simulation.

    Raises ``ValueError`` for a family that has no bodies here.
    """
    if platform is None:
        return Family.PORTABLE
    name = str(getattr(platform, "family", "")).lower()
    for beginning, family in _NAMES:
        if name.startswith(beginning):
            return family
    raise ValueError(f"no cells are known for the FPGA family {name!r}")
