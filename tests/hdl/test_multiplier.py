# amaranth: UnusedElaboratable=no
"""Multiplier: products of corner and random operands, and the stationary operand's load."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from systola_hdl.multiplier import Multiplier


@pytest.mark.parametrize(("a_bits", "b_bits"), [(8, 8), (11, 12), (2, 8)])
def test_products(a_bits: int, b_bits: int) -> None:
    rng = random.Random(a_bits)

    def operand(bits: int) -> int:
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return rng.choice((low, high, -1, 0, rng.randint(low, high)))

    dut = Multiplier(a_bits, b_bits)
    stimuli = [(operand(a_bits), operand(b_bits), int(index == 0 or rng.random() < 0.4)) for index in range(400)]
    found: list[int] = []

    async def bench(ctx: object) -> None:
        for a, b, load in [*stimuli, *[(0, 0, 0)] * Multiplier.latency]:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            ctx.set(dut.load, load)
            found.append(ctx.get(dut.p))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    expected, kept = [], 0
    for a, b, load in stimuli:
        kept = b if load else kept
        expected.append(a * kept)
    assert found[Multiplier.latency :] == expected


def test_bad_width() -> None:
    with pytest.raises(ValueError, match="b_bits must be at least 2, not 1"):
        Multiplier(8, 1)
