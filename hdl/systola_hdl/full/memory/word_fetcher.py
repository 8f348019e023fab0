"""Word fetcher: consecutive words of the weight memory, for parameters and tables."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.common.memory_ports import WEIGHT_ADDRESS_BITS, WeightRead

__all__ = ["FETCH_COUNT_BITS", "WordFetcher"]

#: Width of a number of words: two tables of 256 int32 in words of 4 bytes are 512.
FETCH_COUNT_BITS = 10


class WordFetcher(Component):
    """Reads ``count`` words from ``address`` on; the first is requested :attr:`latency` cycles after ``start``, then
    one a cycle.

    Requests come from registers. Words arrive on ``weights.data`` and cannot be refused. At most ``limit`` of them are
    requested or arrived but not ``consumed``.

    Parameters
    ----------
    config:
        Sizes of the engine.
    limit:
        Words in flight or kept by the parent, at least 1.

    Attributes
    ----------
    start:
        ``address`` and ``count`` (at least 1) in words; ready when nothing is left to be requested.
    consumed:
        For one cycle: the parent has room for one word more.
    outside:
        The next word lies outside the memory; stays until reset, and nothing more is requested.
    weights:
        Port of the weight memory.
    """

    latency = 2

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
        address = Signal(WEIGHT_ADDRESS_BITS)  # of the next word
        inside = Signal()  # the next word lies in the memory
        remaining = Signal(FETCH_COUNT_BITS)
        active = Signal()  # words remain
        held = Signal(range(self.limit + 1))
        request, issue = self.weights, Signal()
        m.d.comb += [
            self.start.ready.eq(~active),
            issue.eq(active & inside & (held != self.limit) & (~request.valid | request.ready)),
        ]
        m.d.sync += [held.eq(held + issue - self.consumed), self.outside.eq(active & ~inside)]
        with m.If(~request.valid | request.ready):
            m.d.sync += [request.valid.eq(issue), request.address.eq(address)]
        with m.If(issue):
            m.d.sync += [address.eq(address + 1), inside.eq(address != self.config.weight_words - 1)]
            m.d.sync += [remaining.eq(remaining - 1), active.eq(remaining != 1)]
        start = self.start.payload
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [address.eq(start.address), inside.eq(start.address < self.config.weight_words)]
            m.d.sync += [remaining.eq(start.count), active.eq(1)]
        return m
