"""What a board is to the build: its platform, its engine, and how it is loaded and reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import io
from amaranth.lib.wiring import Component

from systola_boards.fpga.clocking import ClockGenerator
from systola_boards.fpga.devices import Device, device_of
from systola_boards.fpga.pll import PllSettings, pll_for
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.config import Config
from systola_hdl.tops.board import Systola

__all__ = ["BAUD_TOLERANCE", "Board", "BoardTop"]

#: The most by which the UART's rate may differ from the rate that the host is told: the receivers at both ends tolerate
#: twice that.
BAUD_TOLERANCE = 0.02


@dataclass(frozen=True)
class Board:
    """A board that bitstreams are made for.

    Attributes
    ----------
    name, title:
        Names for the command line and for people.
    platform:
        Makes the Amaranth platform; it has a resource ``uart`` with ``rx`` and ``tx`` as the FPGA sees them.
    preset:
        Preset of its engine.
    button:
        Name and number of the resource that resets the engine, or None.
    button_label:
        What people call that button, or None.
    leds:
        Names and numbers of the lights for link activity and for a running program; a single light shows both.
    uart_baud:
        Baud rate if it is not the preset's.
    serial:
        What the serial link runs over.
    port:
        The serial port's usual name under Linux.
    loaders:
        Commands that load ``{bitstream}`` into the FPGA, the best first; the first whose program is installed is taken.
    loads_flash:
        Whether they write the FPGA's flash instead.
    seed:
        Seed of the placement, if none is asked for: one whose result meets the clock.
    built_in_ci:
        Whether continuous integration builds its bitstream.
    """

    name: str
    title: str
    platform: Callable[[], Any]
    preset: str
    button: tuple[str, int] | None
    leds: tuple[tuple[str, int], ...]
    serial: str
    port: str
    loaders: tuple[tuple[str, ...], ...]
    button_label: str | None = None
    uart_baud: int | None = None
    loads_flash: bool = False
    seed: int = 1
    built_in_ci: bool = False

    @property
    def device(self) -> Device:
        """Its FPGA."""
        return device_of(self.platform())

    def pll(self, clock_hz: int) -> PllSettings:
        """Settings of the PLL for ``clock_hz`` from the board's clock. Raises ``ValueError`` if that is out of
        reach."""
        platform = self.platform()
        return pll_for(device_of(platform).family, round(platform.default_clk_frequency), clock_hz)

    def config(self, clock_hz: int | None = None) -> Config:
        """The preset with the frequency that the PLL really gives for ``clock_hz`` (None: the preset's), and the
        board's baud rate.

        Raises ``ValueError`` if the PLL cannot make the frequency, or no divisor of it is near the baud rate.
        """
        preset = configurations.preset(self.preset)
        exact = self.pll(clock_hz or preset.clock_hz).output_hz
        config = preset.replace(clock_hz=round(exact), uart_baud=self.uart_baud or preset.uart_baud)
        error = Fraction(exact, config.uart_divisor) / config.uart_baud - 1
        if abs(error) > BAUD_TOLERANCE:
            raise ValueError(
                f"{self.name}: {config.uart_baud} baud is not a divisor of {float(exact) / 1e6:g} MHz: "
                f"the nearest is {float(error):+.1%} off"
            )
        return config

    def design(self, clock_hz: int | None = None) -> BoardTop:
        """The whole design, for Amaranth's ``platform.prepare``. Raises as :meth:`config` does."""
        config = self.config(clock_hz)
        return BoardTop(self, Systola(config), self.pll(config.clock_hz))


class BoardTop(Component):
    """``inner`` between the board's pins: serial line, lights, clock and reset.

    The line ``rx`` is synchronised in ``inner`` (:class:`systola_hdl.link.uart.UartReceiver`), the button and the PLL's
    lock in :class:`~systola_boards.fpga.clocking.ClockGenerator`; there are no other inputs.

    Parameters
    ----------
    board:
        The board whose pins they are.
    inner:
        :class:`~systola_hdl.tops.board.Systola`, or anything else with its members.
    pll:
        Settings for the clock of ``inner``.
    """

    def __init__(self, board: Board, inner: Component, pll: PllSettings) -> None:
        self.board = board
        self.inner = inner
        self.pll = pll
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board = self.board
        button = platform.request(*board.button, dir="-") if board.button is not None else None
        clock = platform.request(platform.default_clk, dir="-")
        m.domains.sync = ClockGenerator.domain(platform)
        m.submodules.clocks = ClockGenerator(self.pll, clock, button)
        m.submodules.systola = inner = self.inner
        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [inner.rx.eq(rx.i), tx.o.eq(inner.tx)]
        shows = [inner.led_activity, inner.led_busy]
        if len(board.leds) == 1:
            shows = [inner.led_activity | inner.led_busy]
        for index, ((name, number), lit) in enumerate(zip(board.leds, shows, strict=True)):
            m.submodules[f"led{index}"] = led = io.Buffer("o", platform.request(name, number, dir="-"))
            m.d.comb += led.o.eq(lit)
        return m
