"""Word fetcher: consecutive words of the weight memory, for parameters and tables."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.config import Config
from systola_hdl.interfaces import WEIGHT_ADDRESS_BITS, WeightRead

__all__ = ["FETCH_COUNT_BITS", "WordFetcher"]

#: Width of a number of words: two tables of 256 int32 in words of 4 bytes are 512.
FETCH_COUNT_BITS = 10


class WordFetcher(Component):
    """Reads ``count`` words from ``address`` on; the first is requested in the cycle after ``start``, then one a cycle.

    Words arrive on ``weights.data`` and cannot be refused. At most ``limit`` of them are requested or arrived but not ``consumed``.

    Parameters
    ----------
    config:
        Engine.
    limit:
        Words in flight or kept by the parent, at least 1.

    Attributes
    ----------
    start:
        ``address`` and ``count`` (at least 1) in words; ready when every word has been requested.
    consumed:
        For one cycle: the parent has room for one word more.
    outside:
        The next word lies outside the memory; stays until reset, and nothing more is requested.
    weights:
        Port of the weight memory.
    """

    def __init__(self, config: Config, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.config = config
        self.limit = limit
        job = data.StructLayout({"address": WEIGHT_ADDRESS_BITS, "count": FETCH_COUNT_BITS})
        super().__init__(
            {
                "start": In(stream.Signature(job)),
                "consumed": In(1),
                "outside": Out(1),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        address = Signal(WEIGHT_ADDRESS_BITS)
        remaining = Signal(FETCH_COUNT_BITS)
        held = Signal(range(self.limit + 1))
        requested = Signal()
        inside = Signal()
        m.d.comb += [
            inside.eq(address < self.config.weight_words),
            self.outside.eq((remaining != 0) & ~inside),
            # neither side of this falls without a transfer
            self.weights.valid.eq((remaining != 0) & inside & (held != self.limit)),
            self.weights.address.eq(address),
            requested.eq(self.weights.valid & self.weights.ready),
            self.start.ready.eq(remaining == 0),
        ]
        m.d.sync += held.eq(held + requested - self.consumed)
        with m.If(requested):
            m.d.sync += [address.eq(address + 1), remaining.eq(remaining - 1)]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [address.eq(self.start.payload.address), remaining.eq(self.start.payload.count)]
        return m
