"""Which engine answers: its sizes, as its registers tell them."""

from __future__ import annotations

from typing import Any

from systola.errors import DeviceError
from systola_firmware.spec.config import PROGRAM_FIELDS, Config
from systola_firmware.spec.presets import PRESETS

__all__ = ["reported_config"]


def reported_config(registers: dict[str, int], who: str) -> Config:
    """The sizes that the registers of ``who`` tell, as a configuration. The version of the instruction set is a
    property of the code and not one of its fields.

    Raises :class:`~systola.errors.DeviceError` for impossible ones.
    """
    sizes: dict[str, Any] = {field: registers[f"config_{field}"] for field in PROGRAM_FIELDS if field != "isa_version"}
    known = [preset for preset in PRESETS.values() if all(getattr(preset, field) == value for field, value in sizes.items())]
    try:
        base = known[0] if known else Config(name="custom", **sizes)
        return base.replace(clock_hz=registers["config_clock_hz"], uart_baud=registers["config_uart_baud"])
    except ValueError as error:
        raise DeviceError(f"{who} reports sizes that this driver does not know: {error}") from error
