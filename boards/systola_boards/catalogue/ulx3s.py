"""Radiona ULX3S, with the LFE5U-85F or the LFE5U-25F: serial link over its FTDI FT231X."""

from __future__ import annotations

from amaranth_boards.ulx3s import ULX3S_25F_Platform, ULX3S_85F_Platform

from systola_boards.catalogue.board import Board

__all__ = ["ULX3S_25F", "ULX3S_85F"]

ULX3S_85F = Board(
    name="ulx3s-85f",
    title="Radiona ULX3S-85F",
    platform=ULX3S_85F_Platform,
    preset="ulx3s-85f",
    button=("button_pwr", 0),
    button_label="PWR",
    leds=(("led", 0), ("led", 1)),
    serial="FTDI FT231X",
    port="/dev/ttyUSB0",
    loaders=(("openFPGALoader", "-b", "ulx3s", "{bitstream}"), ("fujprog", "{bitstream}")),
)

ULX3S_25F = Board(
    name="ulx3s-25f",
    title="Radiona ULX3S-25F",
    platform=ULX3S_25F_Platform,
    preset="ecp5-25f",
    button=ULX3S_85F.button,
    button_label=ULX3S_85F.button_label,
    leds=ULX3S_85F.leds,
    serial=ULX3S_85F.serial,
    port=ULX3S_85F.port,
    loaders=ULX3S_85F.loaders,
)
