"""Weight loader of the compact engine: keeps the next tile of weights beside the one in use."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.common.delay import delayed
from systola_hdl.common.logic import is_below
from systola_hdl.common.memory_ports import WeightRead
from systola_hdl.compact.memory.weight_memory import WeightMemory

__all__ = ["WeightLoader"]


class WeightLoader(Component):
    """Reads one tile after another: a word a row, or in diagonal mode one word, which it spreads on the diagonal.

    Tiles of a block lie one behind the other, so the loader knows nothing of loops: as soon as a tile is in use it
    reads the next words, and is told by ``restart`` where a block begins. What it reads after the end of an instruction
    is not used.

    Attributes
    ----------
    base, beyond, diagonal:
        First word of a block, which is outside of the memory with ``beyond``; kind of the tiles. Constant while they
        are read.
    restart:
        For one cycle, not later than the one after ``take``: the next tile is the first of a block, and to be read
        anew.
    weights:
        :class:`WeightRead`.
    tile, full:
        The next tile; it is complete in the cycle after ``full`` rises, which is when its first vector can be at the
        array.
    take:
        ``tile`` is in use from the next cycle on.
    bad_address:
        The next tile begins or goes on outside the weight memory.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "base": In(WeightRead(config).members["address"].shape),
                "beyond": In(1),
                "diagonal": In(1),
                "restart": In(1),
                "weights": Out(WeightRead(config)),
                "tile": Out(data.ArrayLayout(data.ArrayLayout(signed(8), config.columns), config.rows)),
                "full": Out(1),
                "take": In(1),
                "bad_address": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        rows, columns = self.config.rows, self.config.columns
        word = Signal(len(self.base) + 1)
        row = Signal(range(rows))
        inside = Signal()
        m.d.comb += [
            inside.eq(is_below(word, self.config.weight_words)),
            self.weights.valid.eq(~self.full & inside),
            self.weights.address.eq(word),
            self.bad_address.eq(~self.full & ~inside & ~self.restart),
        ]
        with m.If(self.take):
            m.d.sync += self.full.eq(0)
        with m.If(self.weights.valid & self.weights.ready):
            m.d.sync += [word.eq(word + 1), row.eq(row + 1)]  # the row wraps
            with m.If(self.diagonal | (row == rows - 1)):
                m.d.sync += [self.full.eq(1), row.eq(0)]
        with m.If(self.restart):
            m.d.sync += [word.eq(Cat(self.base, self.beyond)), row.eq(0), self.full.eq(0)]

        came = delayed(m, row, WeightMemory.read_latency, "came")
        for index in range(rows):
            with m.If(self.weights.data_valid & (self.diagonal | (came == index))):
                for column in range(columns):
                    m.d.sync += self.tile[index][column].eq(self.weights.data[column])
                    if column != index:
                        with m.If(self.diagonal):
                            m.d.sync += self.tile[index][column].eq(0)
        return m
