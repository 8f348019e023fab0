"""Dividers of the FPGAs' PLLs for a wanted frequency.

Each function tries every setting within the data sheet's limits and takes the one with the nearest output frequency. Of
several with this frequency it takes the one with the highest frequency at the phase detector, and of several of these
the one whose oscillator is nearest to the middle of its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from systola_hdl.cells.families import Family

__all__ = ["TOLERANCE", "PllSettings", "ecp5_pll", "gowin_pll", "ice40_pll", "pll_for"]

#: How far the nearest frequency may be from the wanted one, as a fraction of the wanted one.
TOLERANCE = Fraction(1, 100)

_MHZ = 1_000_000


@dataclass(frozen=True)
class PllSettings:
    """Parameters of a PLL.

    Attributes
    ----------
    input_hz, output_hz:
        Exact frequencies of its input and output.
    detector_hz, oscillator_hz:
        Exact frequencies of its phase detector and its oscillator.
    parameters:
        The vendor's names for its dividers, and their values.
    """

    input_hz: Fraction
    output_hz: Fraction
    detector_hz: Fraction
    oscillator_hz: Fraction
    parameters: Mapping[str, int | str]


def _nearest(candidates: Iterable[PllSettings], wanted_hz: int, middle_hz: int) -> PllSettings:
    def badness(settings: PllSettings) -> tuple[Fraction, Fraction, Fraction]:
        return abs(settings.output_hz - wanted_hz), -settings.detector_hz, abs(settings.oscillator_hz - middle_hz)

    best = min(candidates, key=badness, default=None)
    if best is None:
        raise ValueError("the PLL does not work from this input frequency")
    if abs(best.output_hz - wanted_hz) > TOLERANCE * wanted_hz:
        raise ValueError(
            f"the PLL cannot make {wanted_hz / _MHZ:g} MHz from {float(best.input_hz) / _MHZ:g} MHz; "
            f"the nearest is {float(best.output_hz) / _MHZ:.6g} MHz"
        )
    return best


def ecp5_pll(input_hz: int, output_hz: int) -> PllSettings:
    """EHXPLLL with its feedback from the second output, which drives nothing else: ``CLKOP`` is ``output_hz``.

    ``oscillator = input / CLKI_DIV * CLKFB_DIV * CLKOS_DIV`` and ``CLKOP = oscillator / CLKOP_DIV``, with ``CLKFB_DIV``
    1. Limits: Lattice FPGA-DS-02012, table 3.20: phase detector 10 to 400 MHz, oscillator 400 to 800 MHz, output up to
    400 MHz. Raises ``ValueError`` if no setting is within :data:`TOLERANCE`.
    """
    candidates = []
    for reference in range(1, 129):
        detector = Fraction(input_hz, reference)
        if not 10 * _MHZ <= detector <= 400 * _MHZ:
            continue
        for multiple in range(1, 129):
            oscillator = detector * multiple
            if not 400 * _MHZ <= oscillator <= 800 * _MHZ:
                continue
            divider = min(128, max(1, round(oscillator / output_hz)))
            output = oscillator / divider
            if output <= 400 * _MHZ:
                parameters = {"CLKI_DIV": reference, "CLKFB_DIV": 1, "CLKOS_DIV": multiple, "CLKOP_DIV": divider}
                candidates.append(PllSettings(Fraction(input_hz), output, detector, oscillator, parameters))
    return _nearest(candidates, output_hz, 600 * _MHZ)


#: Greatest frequency of the phase detector in MHz for each FILTER_RANGE from 1 on: Lattice FPGA-TN-02052 and IceStorm's
#: icepll.
_ICE40_FILTER = (17, 26, 44, 66, 101, 133)


def ice40_pll(input_hz: int, output_hz: int) -> PllSettings:
    """SB_PLL40 with feedback path SIMPLE: ``output = input / (DIVR + 1) * (DIVF + 1) / 2**DIVQ``.

    Limits: Lattice FPGA-DS-02008, table 4.24, and FPGA-TN-02052: phase detector 10 to 133 MHz, oscillator 533 to 1066
    MHz, output 16 to 275 MHz. Raises ``ValueError`` if no setting is within :data:`TOLERANCE`.
    """
    candidates = []
    for reference in range(16):
        detector = Fraction(input_hz, reference + 1)
        if not 10 * _MHZ <= detector <= 133 * _MHZ:
            continue
        filter_range = next(index for index, limit in enumerate(_ICE40_FILTER, start=1) if detector <= limit * _MHZ)
        for feedback in range(128):
            oscillator = detector * (feedback + 1)
            if not 533 * _MHZ <= oscillator <= 1066 * _MHZ:
                continue
            for quotient in range(1, 7):
                output = oscillator / (1 << quotient)
                if 16 * _MHZ <= output <= 275 * _MHZ:
                    parameters = {"DIVR": reference, "DIVF": feedback, "DIVQ": quotient, "FILTER_RANGE": filter_range}
                    candidates.append(PllSettings(Fraction(input_hz), output, detector, oscillator, parameters))
    return _nearest(candidates, output_hz, 800 * _MHZ)


#: The divisors that rPLL has for its oscillator.
_GOWIN_DIVIDERS = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)


def gowin_pll(input_hz: int, output_hz: int) -> PllSettings:
    """RPLL: ``output = input / (IDIV_SEL + 1) * (FBDIV_SEL + 1)``, ``oscillator = output * ODIV_SEL``.

    Limits: Gowin DS226, speed C8/I7: phase detector 3 to 500 MHz, oscillator 500 to 1250 MHz, output 3.90625 to 625
    MHz. Raises ``ValueError`` if no setting is within :data:`TOLERANCE`.
    """
    candidates = []
    for reference in range(64):
        detector = Fraction(input_hz, reference + 1)
        if not 3 * _MHZ <= detector <= 500 * _MHZ:
            continue
        for feedback in range(64):
            output = detector * (feedback + 1)
            if not 3_906_250 <= output <= 625 * _MHZ:
                continue
            for divider in _GOWIN_DIVIDERS:
                oscillator = output * divider
                if 500 * _MHZ <= oscillator <= 1250 * _MHZ:
                    parameters = {"IDIV_SEL": reference, "FBDIV_SEL": feedback, "ODIV_SEL": divider}
                    candidates.append(PllSettings(Fraction(input_hz), output, detector, oscillator, parameters))
    return _nearest(candidates, output_hz, 875 * _MHZ)


def pll_for(family: Family, input_hz: int, output_hz: int) -> PllSettings:
    """Settings of the family's PLL. Raises ``ValueError`` if the frequency is out of reach or the family has no PLL
    here."""
    if family not in _SOLVERS:
        raise ValueError(f"no PLL is known for the FPGA family {family.value!r}")
    return _SOLVERS[family](input_hz, output_hz)


_SOLVERS = {Family.ECP5: ecp5_pll, Family.ICE40: ice40_pll, Family.GOWIN: gowin_pll}
