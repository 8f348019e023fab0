"""The integer parameters of a requantization."""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.numerics.arrays import Int32Array
from systola_firmware.spec.isa import Rounding


@dataclass(frozen=True)
class Requantization:
    """REQ's integer parameters: ``multiplier`` and ``shift`` have one element (per tensor) or one for each output
    channel."""

    multiplier: Int32Array
    shift: Int32Array
    rounding: Rounding = Rounding.DOUBLE

    @property
    def per_channel(self) -> bool:
        return self.multiplier.size > 1
