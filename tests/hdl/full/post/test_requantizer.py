"""What the full engine's requantizer does beyond the compact one's: any multiplier but -2^31, and a mode for each
value. The rest is in ``tests/hdl/test_requantizer.py``."""

from __future__ import annotations

import numpy as np
import pytest
from support.benches.requantizer_bench import FULL, stimuli
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Rounding
from systola_hdl.full.post.requantizer import Requantizer
from systola_sim.golden.requantize import requantize


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP])
def test_any_multiplier(rounding: Rounding) -> None:
    """Not asked for by the instruction set, but meant to work."""
    rng = np.random.default_rng(20 + rounding)
    items = stimuli(rng, 100_000, any_multiplier=True)
    np.testing.assert_array_equal(FULL.run(rng, rounding, items), requantize(*items, rounding))


def test_single_of_two_to_the_30_and_shift_1_is_the_identity() -> None:
    """What VECTOR without requantization relies on."""
    values = np.array([-(1 << 31), -(1 << 31) + 1, -1, 0, 1, (1 << 31) - 1])
    np.testing.assert_array_equal(requantize(values, 1 << 30, 1, Rounding.SINGLE), values)


def test_mode_changes_every_cycle() -> None:
    """The mode travels with its value."""
    rng = np.random.default_rng(5)
    value, multiplier, shift = stimuli(rng, 3000, any_multiplier=True)
    modes = rng.integers(0, 3, len(value))
    dut = Requantizer()
    found: list[int] = []

    async def stream(ctx: object) -> None:
        for cycle in range(len(value) + dut.latency):
            if cycle < len(value):
                ctx.set(dut.i_value, int(value[cycle]))
                ctx.set(dut.i_factor, {"multiplier": int(multiplier[cycle]), "shift": int(shift[cycle])})
                ctx.set(dut.i_rounding, int(modes[cycle]))
            if cycle >= dut.latency:
                found.append(ctx.get(dut.o))
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(stream)
    simulator.run()
    expected = np.choose(
        modes, [requantize(value, multiplier, shift, mode) for mode in (Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP)]
    )
    np.testing.assert_array_equal(found, expected)
