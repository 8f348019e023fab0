"""Lattice ECP5-5G Versa, LFE5UM5G-45F: serial link over the second channel of its FTDI FT2232H."""

from __future__ import annotations

from amaranth_boards.versa_ecp5_5g import VersaECP55GPlatform

from systola_boards.catalogue.board import Board

__all__ = ["VERSA"]

VERSA = Board(
    name="versa-ecp5-5g",
    title="Lattice ECP5-5G Versa",
    platform=VersaECP55GPlatform,
    preset="versa-ecp5-5g",
    button=("rst", 0),
    button_label="reset",
    leds=(("led", 0), ("led", 1)),
    serial="FTDI FT2232H, channel B",
    port="/dev/ttyUSB1",
    loaders=(("openFPGALoader", "-c", "ft2232", "{bitstream}"),),
)
