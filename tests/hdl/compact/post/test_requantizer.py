"""Requantizer against ``systola_sim.golden.requantize``: every mode and output form, ties and corners, at its full
pace."""

import functools

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from support.benches.stream_block import CompiledStream

from systola_firmware.spec.isa import Rounding
from systola_hdl.compact.post.requantizer import Requantizer
from systola_sim.golden.lstm_cell import saturate
from systola_sim.golden.requantize import SHIFT_MAXIMUM, SHIFT_MINIMUM, clamp, requantize

VALUES = 60_000
#: Values in this range take two cycles, others three.
SHORT_LIMIT = 1 << 22

Int64Array = npt.NDArray[np.int64]

CONSTANTS = data.StructLayout({"rounding": 3, "zero_point": 8, "minimum": 8, "maximum": 8, "wide": 1})
ITEM = data.StructLayout({"value": 32, "multiplier": 32, "exponent": 8})


class Paced(Component):
    """The requantizer behind a register for the value and one for its factor, which changes as late as it may."""

    constants: In(CONSTANTS)
    i: In(stream.Signature(ITEM, always_ready=True))
    o: Out(stream.Signature(data.StructLayout({"result": 16, "refused": 8}), always_ready=True))

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.requantizer = requantizer = Requantizer()
        item = Signal(ITEM)
        occupied = Signal()
        refused = Signal()  # an item came too early
        m.d.comb += [
            requantizer.i.valid.eq(occupied),
            requantizer.i.payload.eq(item.value),
            requantizer.output.is_double.eq(self.constants.rounding == Rounding.DOUBLE),
            requantizer.output.is_single.eq(self.constants.rounding == Rounding.SINGLE),
            *(requantizer.output[name].eq(self.constants[name]) for name in ("zero_point", "minimum", "maximum", "wide")),
            self.o.valid.eq(requantizer.o.valid),
            self.o.payload.result.eq(requantizer.o.payload),
            self.o.payload.refused.eq(refused),
        ]
        with m.If(requantizer.begins):
            m.d.sync += [requantizer.factor.multiplier.eq(item.multiplier), requantizer.factor.exponent.eq(item.exponent)]
        with m.If(requantizer.i.ready):
            m.d.sync += occupied.eq(0)
        with m.If(self.i.valid):
            m.d.sync += [item.eq(self.i.payload), occupied.eq(1)]
            with m.If(occupied & ~requantizer.i.ready):
                m.d.sync += refused.eq(1)
        return m


@functools.cache
def compiled() -> CompiledStream:
    return CompiledStream(Paced())


def ties(rng: np.random.Generator, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    """Values whose product lies within two steps of half a unit of the result, or of the first rounding."""
    unit = np.ldexp(1.0, (31 - shift).astype(np.int32)) / np.maximum(multiplier, 1)
    units = rng.integers(-300, 300, shift.shape) * rng.choice([1, 1, 1, 128], shift.shape) + 0.5
    near = np.clip(units * unit, -(2.0**31), 2.0**31 - 1)
    return np.clip(near.astype(np.int64) + rng.integers(-2, 3, shift.shape), -(2**31), 2**31 - 1)


def stimuli(rng: np.random.Generator, count: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Values, multipliers and shifts: thirds of random values, of near ties and of corners."""
    corners = np.array([0, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, (1 << 31) - 2, 3 << 29])
    multiplier = np.where(rng.random(count) < 0.4, rng.choice(corners, count), rng.integers(1 << 30, 1 << 31, count))
    shift = rng.integers(SHIFT_MINIMUM, SHIFT_MAXIMUM + 1, count)
    shift = np.where(rng.random(count) < 0.2, rng.choice([SHIFT_MINIMUM, -1, 0, 1, SHIFT_MAXIMUM], count), shift)
    uniform = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 31, count)
    powers = np.clip((rng.choice([-1, 1], count) << rng.integers(0, 32, count)) + rng.integers(-1, 2, count), -(2**31), 2**31 - 1)
    extremes = rng.choice([-(1 << 31), (1 << 31) - 1, 0, 1, -1, 1 << 30, -(1 << 30)], count)
    corner = np.where(rng.random(count) < 0.3, extremes, powers)
    value = np.choose(rng.integers(0, 3, count), [uniform, ties(rng, multiplier, shift), corner])
    return value, multiplier, shift


RANGES = {
    "whole": (0, -128, 127),
    "low": (-128, -128, 127),
    "narrow": (127, -100, 90),
    "one value": (-3, 5, 5),
    "empty": (9, 20, -20),
}


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP])
@pytest.mark.parametrize("form", [*RANGES, "wide"])
def test_matches_model(rounding: Rounding, form: str) -> None:
    rng = np.random.default_rng(20 + rounding)
    count = VALUES if form in {"whole", "wide"} else VALUES // 10
    value, multiplier, shift = stimuli(rng, count)
    zero_point, minimum, maximum = RANGES.get(form, (55, -3, 3))
    constants = CONSTANTS.const(
        {
            "rounding": rounding,
            "zero_point": zero_point & 0xFF,
            "minimum": minimum & 0xFF,
            "maximum": maximum & 0xFF,
            "wide": form == "wide",
        }
    )
    items = np.zeros((count, 9), np.uint8)
    items[:, :4] = value.astype("<i4").view(np.uint8).reshape(-1, 4)
    items[:, 4:8] = multiplier.astype("<i4").view(np.uint8).reshape(-1, 4)
    items[:, 8] = SHIFT_MAXIMUM - shift
    # Mostly without a pause: the next value comes as the last one is taken.
    cycles = np.where((value >= -SHORT_LIMIT) & (value < SHORT_LIMIT), 2, 3)
    pauses = rng.integers(0, 4, count) * (rng.random(count) < 0.1)
    starts = np.concatenate([[0], np.cumsum(cycles + pauses)[:-1]]).astype(np.uint64)
    found, ends = compiled().run(constants.as_value().value, items, starts, drain=20)

    exact = requantize(value, multiplier, shift, rounding)
    expected = saturate(exact).astype(np.int16) if form == "wide" else clamp(exact, zero_point, minimum, maximum)
    assert len(found) == count
    assert not found[:, 2].any()
    results = np.ascontiguousarray(found[:, :2]).view("<i2").reshape(-1)
    np.testing.assert_array_equal(results if form == "wide" else results.astype(np.int8), expected)
    # One cycle to the value's register, then its cycles, then the latency.
    np.testing.assert_array_equal(ends - starts, cycles + Requantizer.latency)
