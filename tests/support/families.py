"""Platforms for ``elaborate`` that are nothing but a family of FPGAs."""

from __future__ import annotations

from dataclasses import dataclass

from systola_hdl.families import Family

__all__ = ["FamilyPlatform", "platform_of"]


@dataclass(frozen=True)
class FamilyPlatform:
    """What :func:`systola_hdl.families.family_of` asks of a platform."""

    family: str


#: A device family of each, as its platform in Amaranth calls it.
_NAMES = {Family.ECP5: "ECP5", Family.ICE40: "iCE40", Family.GOWIN: "GW2A-18"}


def platform_of(family: Family) -> FamilyPlatform | None:
    """A platform of ``family``; no platform for the portable bodies."""
    return None if family is Family.PORTABLE else FamilyPlatform(_NAMES[family])
