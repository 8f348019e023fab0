"""Sipeed Tang Nano 20K, GW2AR-18: serial link over its BL616.

amaranth-boards has no platform for it. Pins: wiki.sipeed.com, Tang Nano 20K, schematic 3921.
"""

from __future__ import annotations

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import GowinPlatform
from amaranth_boards.resources import ButtonResources, LEDResources, UARTResource

from systola_boards.catalogue.board import Board

__all__ = ["TANG_NANO_20K", "TangNano20kPlatform"]


class TangNano20kPlatform(GowinPlatform):
    """What the engine needs of the board."""

    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    default_clk = "clk27"
    resources = [
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), Attrs(IO_TYPE="LVCMOS33")),
        *ButtonResources(pins="88 87", attrs=Attrs(IO_TYPE="LVCMOS33")),  # S1, S2: pulled down, high while held
        *LEDResources(pins="15 16 17 18 19 20", invert=True, attrs=Attrs(IO_TYPE="LVCMOS33")),
        UARTResource(0, rx="70", tx="69", attrs=Attrs(PULL_MODE="UP", IO_TYPE="LVCMOS33")),
    ]
    connectors: list[object] = []


TANG_NANO_20K = Board(
    name="tang-nano-20k",
    title="Sipeed Tang Nano 20K",
    platform=TangNano20kPlatform,
    preset="tang-nano-20k",
    button=("button", 0),
    button_label="S1",
    leds=(("led", 0), ("led", 1)),
    serial="BL616",
    port="/dev/ttyUSB1",
    # The bridge is a microcontroller, for which it is not known whether 3 Mbaud work.
    uart_baud=1_000_000,
    loaders=(("openFPGALoader", "-b", "tangnano20k", "{bitstream}"),),
)
