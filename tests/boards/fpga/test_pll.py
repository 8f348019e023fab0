"""The PLLs' dividers: right by the data sheets' formulas, within their limits, and never silently wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest

from systola_boards.fpga.pll import TOLERANCE, PllSettings, ecp5_pll, gowin_pll, ice40_pll, pll_for
from systola_hdl.cells.families import Family

MHZ = 1_000_000


def ecp5_output(settings: PllSettings) -> Fraction:
    p = settings.parameters
    oscillator = settings.input_hz / p["CLKI_DIV"] * p["CLKFB_DIV"] * p["CLKOS_DIV"]
    assert 400 * MHZ <= oscillator <= 800 * MHZ
    assert 10 * MHZ <= settings.input_hz / p["CLKI_DIV"] <= 400 * MHZ
    assert all(1 <= value <= 128 for value in p.values())
    return oscillator / p["CLKOP_DIV"]


def ice40_output(settings: PllSettings) -> Fraction:
    p = settings.parameters
    detector = settings.input_hz / (p["DIVR"] + 1)
    assert 10 * MHZ <= detector <= 133 * MHZ
    assert 533 * MHZ <= detector * (p["DIVF"] + 1) <= 1066 * MHZ
    assert 0 <= p["DIVR"] < 16
    assert 0 <= p["DIVF"] < 128
    assert 1 <= p["DIVQ"] <= 6
    return detector * (p["DIVF"] + 1) / 2 ** p["DIVQ"]


def gowin_output(settings: PllSettings) -> Fraction:
    p = settings.parameters
    detector = settings.input_hz / (p["IDIV_SEL"] + 1)
    output = detector * (p["FBDIV_SEL"] + 1)
    assert 3 * MHZ <= detector <= 500 * MHZ
    assert 500 * MHZ <= output * p["ODIV_SEL"] <= 1250 * MHZ
    assert p["ODIV_SEL"] in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
    assert 0 <= p["IDIV_SEL"] < 64
    assert 0 <= p["FBDIV_SEL"] < 64
    return output


@pytest.mark.parametrize("wanted", [25, 50, 62.5, 90, 100, 105, 110, 120, 133, 150, 200])
@pytest.mark.parametrize("source", [25, 48, 100])
def test_ecp5(source: int, wanted: float) -> None:
    settings = ecp5_pll(source * MHZ, round(wanted * MHZ))
    assert ecp5_output(settings) == settings.output_hz
    assert abs(settings.output_hz - wanted * MHZ) <= TOLERANCE * wanted * MHZ


@pytest.mark.parametrize("wanted", [18, 20, 24, 30, 48, 60])
def test_ice40(wanted: int) -> None:
    settings = ice40_pll(12 * MHZ, wanted * MHZ)
    assert ice40_output(settings) == settings.output_hz
    assert abs(settings.output_hz - wanted * MHZ) <= TOLERANCE * wanted * MHZ


@pytest.mark.parametrize("wanted", [27, 48, 54, 60, 63, 67.5, 81, 100])
def test_gowin(wanted: float) -> None:
    settings = gowin_pll(27 * MHZ, round(wanted * MHZ))
    assert gowin_output(settings) == settings.output_hz
    assert abs(settings.output_hz - wanted * MHZ) <= TOLERANCE * wanted * MHZ


def test_exact_settings() -> None:
    """Those of the vendors' and projects' own generators: icepll -i 12 -o 24; the ECP5's by hand."""
    assert ice40_pll(12 * MHZ, 24 * MHZ).parameters == {"DIVR": 0, "DIVF": 63, "DIVQ": 5, "FILTER_RANGE": 1}
    assert ecp5_pll(25 * MHZ, 90 * MHZ).parameters == {"CLKI_DIV": 1, "CLKFB_DIV": 1, "CLKOS_DIV": 18, "CLKOP_DIV": 5}
    assert gowin_pll(27 * MHZ, 63 * MHZ).parameters == {"IDIV_SEL": 2, "FBDIV_SEL": 6, "ODIV_SEL": 16}


def test_filter_follows_the_phase_detector() -> None:
    assert [ice40_pll(mhz * MHZ, 60 * MHZ).parameters["FILTER_RANGE"] for mhz in (16, 24, 40, 60)] == [1, 2, 3, 4]


def test_inexact_frequency_is_told() -> None:
    settings = gowin_pll(27 * MHZ, 62 * MHZ)
    assert settings.output_hz != 62 * MHZ
    assert gowin_output(settings) == settings.output_hz


def test_out_of_reach() -> None:
    with pytest.raises(ValueError, match=r"cannot make 450 MHz from 25 MHz; the nearest is 400 MHz"):
        ecp5_pll(25 * MHZ, 450 * MHZ)
    with pytest.raises(ValueError, match=r"cannot make 5 MHz from 12 MHz; the nearest is 16.125 MHz"):
        ice40_pll(12 * MHZ, 5 * MHZ)
    with pytest.raises(ValueError, match="does not work from this input frequency"):
        ecp5_pll(5 * MHZ, 50 * MHZ)
    with pytest.raises(ValueError, match="no PLL is known for the FPGA family 'portable'"):
        pll_for(Family.PORTABLE, 25 * MHZ, 50 * MHZ)
