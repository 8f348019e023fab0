"""Requantizer against ``systola_sim.golden.requantize``: every rounding mode, corner values and ties, one value a
cycle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Rounding
from systola_hdl.full.post.requantizer import FACTOR, ROUNDING_BITS, Requantizer
from systola_sim.golden.requantize import SHIFT_MAXIMUM, SHIFT_MINIMUM, requantize

LANES = 8
VALUES = 200_000 // LANES * LANES

Int64Array = npt.NDArray[np.int64]


class Bank(Elaboratable):
    """Several requantizers behind one wide input and one wide output: the simulator's cost is by access."""

    def __init__(self) -> None:
        self.i = Signal(LANES * (32 + FACTOR.size))
        self.rounding = Signal(ROUNDING_BITS)
        self.o = Signal(LANES * 32)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        width = len(self.i) // LANES
        for lane in range(LANES):
            m.submodules[f"lane{lane}"] = requantizer = Requantizer()
            field = self.i.word_select(lane, width)
            m.d.comb += [
                requantizer.i_value.eq(field[:32]),
                requantizer.i_factor.eq(field[32:]),
                requantizer.i_rounding.eq(self.rounding),
                self.o.word_select(lane, 32).eq(requantizer.o),
            ]
        return m


def ties(rng: np.random.Generator, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """Values whose product lies within two steps of half a unit of the result, or of the first rounding."""
    unit = np.ldexp(1.0, (31 - shift).astype(np.int32)) / np.maximum(multiplier, 1)
    units = rng.integers(-300, 300, shift.shape) + 0.5
    near = np.clip(units * unit, -(2.0**31), 2.0**31 - 1)
    return np.clip(near.astype(np.int64) + rng.integers(-2, 3, shift.shape), -(2**31), 2**31 - 1)


def stimuli(rng: np.random.Generator, count: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Values, multipliers and shifts: thirds of random values, of near ties and of corners."""
    multiplier = rng.integers(1 << 30, 1 << 31, count)
    corners = np.array([0, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, (1 << 31) - 2, 3 << 29])
    multiplier = np.where(rng.random(count) < 0.4, rng.choice(corners, count), multiplier)
    # Not asked for, but meant to work: any multiplier except -2^31.
    multiplier = np.where(
        rng.random(count) < 0.1, rng.integers(-(1 << 31) + 1, 1 << 31, count) >> rng.integers(0, 31, count), multiplier
    )
    shift = rng.integers(SHIFT_MINIMUM, SHIFT_MAXIMUM + 1, count)
    shift = np.where(rng.random(count) < 0.2, rng.choice([SHIFT_MINIMUM, -1, 0, 1, SHIFT_MAXIMUM], count), shift)
    uniform = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 31, count)
    powers = np.clip((rng.choice([-1, 1], count) << rng.integers(0, 32, count)) + rng.integers(-1, 2, count), -(2**31), 2**31 - 1)
    corner = np.where(
        rng.random(count) < 0.3, rng.choice([-(1 << 31), (1 << 31) - 1, 0, 1, -1, 1 << 30, -(1 << 30)], count), powers
    )
    kind = rng.integers(0, 3, count)
    value = np.choose(kind, [uniform, ties(rng, multiplier, shift), corner])
    return value, multiplier, shift


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP])
def test_matches_model(rounding: Rounding) -> None:
    rng = np.random.default_rng(20 + rounding)
    value, multiplier, shift = stimuli(rng, VALUES)
    packed = np.zeros((VALUES, 9), np.uint8)
    packed[:, :4] = value.astype("<i4").view(np.uint8).reshape(-1, 4)
    packed[:, 4:8] = multiplier.astype("<i4").view(np.uint8).reshape(-1, 4)
    packed[:, 8] = shift.astype(np.int8).view(np.uint8)
    cycles = packed.reshape(-1, LANES * 9)
    dut = Bank()
    found: list[bytes] = []

    async def stream(ctx: object) -> None:
        ctx.set(dut.rounding, rounding)
        for cycle in range(len(cycles) + Requantizer.latency):
            if cycle < len(cycles):
                ctx.set(dut.i, int.from_bytes(cycles[cycle].tobytes(), "little"))
            if cycle >= Requantizer.latency:
                found.append(ctx.get(dut.o).to_bytes(LANES * 4, "little"))
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(stream)
    simulator.run()

    expected = requantize(value, multiplier, shift, rounding)
    np.testing.assert_array_equal(np.frombuffer(b"".join(found), "<i4"), expected)


def test_single_of_two_to_the_30_and_shift_1_is_the_identity() -> None:
    """What VECTOR without requantization relies on."""
    values = np.array([-(1 << 31), -(1 << 31) + 1, -1, 0, 1, (1 << 31) - 1])
    np.testing.assert_array_equal(requantize(values, 1 << 30, 1, Rounding.SINGLE), values)


def test_mode_changes_every_cycle() -> None:
    """The mode travels with its value."""
    rng = np.random.default_rng(5)
    value, multiplier, shift = stimuli(rng, 3000)
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
