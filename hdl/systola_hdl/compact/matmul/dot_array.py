"""The compact array: a dot product of a vector with every column of stationary weights, all at once."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.spec.config import Config
from systola_hdl.cells.multiplier_pair import MultiplierPair

__all__ = ["DotArray"]

#: Bits of a product of two int8.
_PRODUCT_BITS = 16


class DotArray(Component):
    """``sums[c] = Σ_r vector[r] * weights[r][c]``, exact; one vector a cycle, :attr:`latency` cycles after it.

    The weights in use are in the multipliers' own registers; ``load`` takes new ones for the vector of the same cycle
    and all that follow. So nothing is skewed, and a tile can change between any two vectors. Two products of a column
    are one multiplier pair.

    Attributes
    ----------
    vector:
        ``rows`` int8.
    weights, load:
        ``rows`` of ``columns`` int8, taken when ``load``.
    sums:
        :meth:`sum_bits` bits a column, so that nothing overflows.
    """

    #: Cycles from a vector to its sums: the multipliers', and the register behind the first adders.
    latency = MultiplierPair.latency + 1

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "vector": In(data.ArrayLayout(signed(8), config.rows)),
                "weights": In(data.ArrayLayout(data.ArrayLayout(signed(8), config.columns), config.rows)),
                "load": In(1),
                "sums": Out(data.ArrayLayout(signed(self.sum_bits(config)), config.columns)),
            }
        )

    @staticmethod
    def sum_bits(config: Config) -> int:
        """Width of a sum of ``rows`` products."""
        return _PRODUCT_BITS + exact_log2(config.rows)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for column in range(self.config.columns):
            halves = []
            for row in range(0, self.config.rows, 2):
                m.submodules[f"pair{row}_{column}"] = pair = MultiplierPair()
                m.d.comb += [
                    pair.a0.eq(self.vector[row]),
                    pair.a1.eq(self.vector[row + 1]),
                    pair.b0.eq(self.weights[row][column]),
                    pair.b1.eq(self.weights[row + 1][column]),
                    pair.load.eq(self.load),
                ]
                # Registered between two adders, for synthesis makes more logic of a sum of three and more.
                halves.append(Signal(signed(_PRODUCT_BITS + 1), name=f"half{row}_{column}", reset_less=True))
                m.d.sync += halves[-1].eq(pair.p0 + pair.p1)
            m.d.comb += self.sums[column].eq(sum(halves))
        return m
