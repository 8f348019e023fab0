"""1BitSquared iCEBreaker, iCE40UP5K: serial link over the second channel of its FTDI FT2232H."""

from __future__ import annotations

from amaranth_boards.icebreaker import ICEBreakerPlatform

from systola_boards.catalogue.board import Board

__all__ = ["ICEBREAKER"]

ICEBREAKER = Board(
    name="icebreaker",
    title="1BitSquared iCEBreaker",
    platform=ICEBreakerPlatform,
    preset="icebreaker",
    button=("button", 0),
    button_label="UBUTTON",
    leds=(("led", 1), ("led", 0)),  # green: link, red: busy
    serial="FTDI FT2232H, channel B",
    port="/dev/ttyUSB1",
    loaders=(("iceprog", "{bitstream}"), ("openFPGALoader", "-b", "ice40_generic", "{bitstream}")),
    loads_flash=True,
    seed=2,
    built_in_ci=True,
)
