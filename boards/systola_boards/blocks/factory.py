"""The type of the functions that make a block for a configuration."""

from collections.abc import Callable

from amaranth.lib.wiring import Component

from systola_firmware.spec.config import Config

__all__ = ["Factory"]

Factory = Callable[[Config], Component]
