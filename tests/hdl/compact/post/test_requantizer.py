"""The compact requantizer's clamp: zero points and ranges of results of 8 bits. The rest is in
``tests/hdl/test_requantizer.py``."""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.requantizer_bench import COMPACT, stimuli

from systola_firmware.spec.isa import Rounding
from systola_sim.golden.requantize import clamp, requantize

#: Zero point, minimum, maximum.
RANGES = {
    "whole": (0, -128, 127),
    "low": (-128, -128, 127),
    "narrow": (127, -100, 90),
    "one value": (-3, 5, 5),
    "empty": (9, 20, -20),
}


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP])
@pytest.mark.parametrize("form", RANGES)
def test_clamp(rounding: Rounding, form: str) -> None:
    rng = np.random.default_rng(40 + rounding)
    items = stimuli(rng, 60_000 if form == "whole" else 6_000)
    found = COMPACT.run(rng, rounding, items, output=RANGES[form])
    np.testing.assert_array_equal(found.astype(np.int8), clamp(requantize(*items, rounding), *RANGES[form]))
