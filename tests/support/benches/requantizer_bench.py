"""A bench for the requantizer of either engine, compiled by Verilator: values at its full pace, and stimuli with ties
and corners."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from support.benches.stream_block import CompiledStream
from systola_firmware.spec.isa import SHIFT_MAXIMUM, SHIFT_MINIMUM, Rounding
from systola_hdl.common.delay import delayed
from systola_hdl.compact.post.requantizer import Requantizer as CompactRequantizer
from systola_hdl.full.post.requantizer import Requantizer
from systola_sim.golden.lstm_cell import saturate

__all__ = ["COMPACT", "ENGINES", "FULL", "SHORT_LIMIT", "RequantizerBench", "stimuli"]

Int64Array = npt.NDArray[np.int64]

_CONSTANTS = data.StructLayout({"rounding": 3, "zero_point": 8, "minimum": 8, "maximum": 8, "wide": 1})
_ITEM = data.StructLayout({"value": signed(32), "multiplier": signed(32), "shift": signed(8)})
_RESULT = data.StructLayout({"result": signed(32), "refused": 8})
#: Values in this range take the compact requantizer two cycles, others three.
SHORT_LIMIT = 1 << 22


class _Block(Component):
    """What :class:`CompiledStream` takes: constants, items, and results; ``refused`` if an item came too early."""

    def __init__(self) -> None:
        super().__init__(
            {
                "constants": In(_CONSTANTS),
                "i": In(stream.Signature(_ITEM, always_ready=True)),
                "o": Out(stream.Signature(_RESULT, always_ready=True)),
            }
        )


class _FullBlock(_Block):
    """The requantizer alone takes a value a cycle."""

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.requantizer = requantizer = Requantizer()
        item = self.i.payload
        m.d.comb += [
            requantizer.i_value.eq(item.value),
            requantizer.i_factor.multiplier.eq(item.multiplier),
            requantizer.i_factor.shift.eq(item.shift),
            requantizer.i_rounding.eq(self.constants.rounding),
            self.o.valid.eq(delayed(m, self.i.valid, Requantizer.latency, "valid", init=0)),
            self.o.payload.result.eq(requantizer.o),
        ]
        return m


class _CompactBlock(_Block):
    """The requantizer behind a register for the value and one for its factor, which changes as late as it may."""

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.requantizer = requantizer = CompactRequantizer()
        item, output = Signal(_ITEM), requantizer.output
        occupied, refused = Signal(), Signal()
        m.d.comb += [
            requantizer.i.valid.eq(occupied),
            requantizer.i.payload.eq(item.value),
            output.is_double.eq(self.constants.rounding == Rounding.DOUBLE),
            output.is_single.eq(self.constants.rounding == Rounding.SINGLE),
            *(output[name].eq(self.constants[name]) for name in ("zero_point", "minimum", "maximum", "wide")),
            self.o.valid.eq(requantizer.o.valid),
            self.o.payload.result.eq(requantizer.o.payload.as_signed()),
            self.o.payload.refused.eq(refused),
        ]
        with m.If(requantizer.begins):
            m.d.sync += [
                requantizer.factor.multiplier.eq(item.multiplier),
                requantizer.factor.exponent.eq(SHIFT_MAXIMUM - item.shift),
            ]
        with m.If(requantizer.i.ready):
            m.d.sync += occupied.eq(0)
        with m.If(self.i.valid):
            m.d.sync += [item.eq(self.i.payload), occupied.eq(1)]
            with m.If(occupied & ~requantizer.i.ready):
                m.d.sync += refused.eq(1)
        return m


class RequantizerBench(ABC):
    """The requantizer of an engine, which is compiled at its first use."""

    block: ClassVar[type[_Block]]

    @functools.cached_property
    def _compiled(self) -> CompiledStream:
        return CompiledStream(self.block())

    @abstractmethod
    def cycles(self, value: Int64Array) -> Int64Array:
        """Cycles that each value takes from the next one."""

    @abstractmethod
    def latency(self, value: Int64Array) -> Int64Array:
        """Cycles from each item to its result."""

    @abstractmethod
    def exact(self, requantized: Int64Array) -> Int64Array:
        """The widest result that the requantizer delivers of REQ's int32."""

    def run(
        self,
        rng: np.random.Generator,
        rounding: Rounding,
        stimuli: tuple[Int64Array, Int64Array, Int64Array],
        *,
        output: tuple[int, int, int] | None = None,
    ) -> Int64Array:
        """Requantize values by multipliers and shifts, mostly without a pause, and check pace and latency of each.

        ``output`` is zero point, minimum and maximum of an engine whose requantizer has them; None: the widest result.
        Results of 8 bits are in the low ones.
        """
        value, multiplier, shift = stimuli
        zero_point, minimum, maximum = output or (55, -3, 3)  # nothing to a wide result
        constants = _CONSTANTS.const(
            {
                "rounding": rounding,
                "zero_point": zero_point & 0xFF,
                "minimum": minimum & 0xFF,
                "maximum": maximum & 0xFF,
                "wide": output is None,
            }
        )
        items = np.zeros((len(value), 9), np.uint8)
        items[:, :4] = value.astype("<i4").view(np.uint8).reshape(-1, 4)
        items[:, 4:8] = multiplier.astype("<i4").view(np.uint8).reshape(-1, 4)
        items[:, 8] = shift.astype(np.int8).view(np.uint8)
        pauses = rng.integers(0, 4, len(value)) * (rng.random(len(value)) < 0.1)
        starts = np.concatenate([[0], np.cumsum(self.cycles(value) + pauses)[:-1]]).astype(np.uint64)
        found, ends = self._compiled.run(constants.as_value().value, items, starts, drain=30)
        assert len(found) == len(value)
        assert not found[:, 4].any(), "an item was refused"
        np.testing.assert_array_equal(ends - starts, self.latency(value))
        return np.ascontiguousarray(found[:, :4]).view("<i4").reshape(-1).astype(np.int64)


class _Full(RequantizerBench):
    block = _FullBlock

    def cycles(self, value: Int64Array) -> Int64Array:
        return np.ones_like(value)

    def latency(self, value: Int64Array) -> Int64Array:
        return np.full_like(value, Requantizer.latency)

    def exact(self, requantized: Int64Array) -> Int64Array:
        return requantized


class _Compact(RequantizerBench):
    block = _CompactBlock

    def cycles(self, value: Int64Array) -> Int64Array:
        return np.where((value >= -SHORT_LIMIT) & (value < SHORT_LIMIT), 2, 3)

    def latency(self, value: Int64Array) -> Int64Array:
        """One cycle to the value's register, then its cycles but one, then those of the pipeline."""
        return self.cycles(value) + CompactRequantizer.latency

    def exact(self, requantized: Int64Array) -> Int64Array:
        return saturate(requantized.astype(np.int32)).astype(np.int64)


FULL, COMPACT = _Full(), _Compact()
ENGINES: dict[str, RequantizerBench] = {"full": FULL, "compact": COMPACT}


def _around(rng: np.random.Generator, multiplier: Int64Array, shift: Int64Array, results: npt.NDArray[np.float64]) -> Int64Array:
    """Values within two of those that give these results, in units of the result."""
    unit = np.ldexp(1.0, (31 - shift).astype(np.int32)) / np.maximum(np.abs(multiplier), 1)
    near = np.clip(results * unit, -(2.0**31), 2.0**31 - 1).astype(np.int64)
    values: Int64Array = np.clip(near + rng.integers(-2, 3, shift.shape), -(2**31), 2**31 - 1)
    return values


def stimuli(rng: np.random.Generator, count: int, *, any_multiplier: bool = False) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Values, multipliers and shifts: quarters of random values, of near ties, of near limits and of corners.

    With ``any_multiplier`` some multipliers are neither 0 nor 2^30 to 2^31 - 1, down to -2^31 + 1.
    """
    corners = np.array([0, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, (1 << 31) - 2, 3 << 29])
    multiplier = np.where(rng.random(count) < 0.4, rng.choice(corners, count), rng.integers(1 << 30, 1 << 31, count))
    if any_multiplier:
        other = rng.integers(-(1 << 31) + 1, 1 << 31, count) >> rng.integers(0, 31, count)
        multiplier = np.where(rng.random(count) < 0.1, other, multiplier)
    shift = rng.integers(SHIFT_MINIMUM, SHIFT_MAXIMUM + 1, count)
    shift = np.where(rng.random(count) < 0.2, rng.choice([SHIFT_MINIMUM, -1, 0, 1, SHIFT_MAXIMUM], count), shift)
    uniform = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 31, count)
    powers = (rng.choice([-1, 1], count) << rng.integers(0, 32, count)) + rng.integers(-1, 2, count)
    powers = np.clip(powers, -(2**31), 2**31 - 1)
    extremes = rng.choice([-(1 << 31), (1 << 31) - 1, 0, 1, -1, 1 << 30, -(1 << 30)], count)
    corner = np.where(rng.random(count) < 0.3, extremes, powers)
    # Half a unit of the result, or of the first rounding; and half a unit beyond either end of int32.
    ties = rng.integers(-300, 300, count) * rng.choice([1, 1, 1, 128], count) + 0.5
    limits = rng.choice([-1, 1], count) * 2.0**31 - 0.5
    near = [_around(rng, multiplier, shift, results) for results in (ties, limits)]
    value = np.choose(rng.integers(0, 4, count), [uniform, *near, corner])
    return value, multiplier, shift
