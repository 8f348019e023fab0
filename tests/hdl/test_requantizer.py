"""The requantizers of both engines against ``systola_sim.golden.requantize``: every rounding mode, ties and corners, at
full pace.

What only one of them does is in ``full/post/test_requantizer.py`` and ``compact/post/test_requantizer.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.requantizer_bench import ENGINES, stimuli

from systola_firmware.spec.isa import Rounding
from systola_sim.golden.requantize import requantize

VALUES = 100_000


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP])
@pytest.mark.parametrize("engine", ENGINES)
def test_matches_model(engine: str, rounding: Rounding) -> None:
    rng = np.random.default_rng(20 + rounding)
    bench, items = ENGINES[engine], stimuli(rng, VALUES)
    found = bench.run(rng, rounding, items)
    np.testing.assert_array_equal(found, bench.exact(requantize(*items, rounding)))
