"""Colorlight i5 (v7.0), LFE5U-25F, on Muse Lab's extension board, whose debugger is the serial link as well.

It is preferred to the OrangeCrab, which has the same FPGA, because the extension board has a serial bridge; an
OrangeCrab needs a cable of its own. amaranth-boards has no platform for it. Pins:
github.com/wuxx/Colorlight-FPGA-Projects, i5 v7.0.
"""

from __future__ import annotations

from amaranth.build import Attrs, Clock, Pins, PinsN, Resource
from amaranth.vendor import LatticeECP5Platform
from amaranth_boards.resources import LEDResources, UARTResource

from systola_boards.catalogue.board import Board

__all__ = ["COLORLIGHT_I5", "ColorlightI5Platform"]


class ColorlightI5Platform(LatticeECP5Platform):
    """What the engine needs of the board."""

    device = "LFE5U-25F"
    package = "BG381"
    speed = "6"
    default_clk = "clk25"
    resources = [
        Resource("clk25", 0, Pins("P3", dir="i"), Clock(25e6), Attrs(IO_TYPE="LVCMOS33")),
        Resource("button_reset", 0, PinsN("K18", dir="i"), Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")),
        *LEDResources(pins="U16", invert=True, attrs=Attrs(IO_TYPE="LVCMOS33", DRIVE="4")),
        UARTResource(0, rx="H18", tx="J17", attrs=Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")),
    ]
    connectors: list[object] = []


COLORLIGHT_I5 = Board(
    name="colorlight-i5",
    title="Colorlight i5, extension board",
    platform=ColorlightI5Platform,
    preset="ecp5-25f",
    button=("button_reset", 0),
    button_label="reset",
    leds=(("led", 0),),
    serial="CMSIS-DAP debugger",
    port="/dev/ttyACM0",
    seed=3,
    # The bridge is a microcontroller, for which it is not known whether 3 Mbaud work.
    uart_baud=1_000_000,
    loaders=(("openFPGALoader", "-b", "colorlight-i5", "{bitstream}"), ("ecpdap", "program", "{bitstream}")),
)
