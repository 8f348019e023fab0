"""One cell of the systolic array: several rows of one column."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.cells.multiplier import Multiplier
from systola_hdl.common.delay import delayed

__all__ = ["DotCell", "WeightLoad", "partial_sum_bits"]


def partial_sum_bits(config: Config) -> int:
    """Bits of a signed sum of ``rows`` products of two int8: ``rows * 2**14`` and its negative fit."""
    return 16 + ceil_log2(config.rows)


class WeightLoad(data.StructLayout):
    """Weights of one cell on their way down a column: ``valid``, the cell row ``tag`` they are for, ``weights``
    (bytes)."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {"valid": 1, "tag": ceil_log2(config.row_groups), "weights": data.ArrayLayout(signed(8), config.weight_rows_per_cycle)}
        )


class DotCell(Component):
    """``R = weight_rows_per_cycle`` multipliers, an adder tree and one partial-sum adder::

        load_i ─ reg ─┬─ hop-1 ─▶ load_o    activations_i, swap_i ─ reg ─┬─ hop-1 ─▶ activations_o, swap_o
                      ▼ (tag == row)                                     ▼
                    shadow ──(swap)──▶ active × ─ reg ────────────▶ Σ tree ──▶ (+) ◀── sum_i
                                                                                └─ hop ─▶ sum_o

    The first register of each hop also feeds the cell itself, so a wire from one cell to the next ends in one register
    only; the comparison of tags is registered, too. An extra register behind each product divides the wire from the
    multiplier to the adder tree.

    A weight that arrives with the swap bit goes to the shadow register while the old shadow becomes active. The swap
    applies to the activations that come with it and all later ones. Throughput is one transfer a cycle; every output
    but ``sum_o`` lags its input by ``hop_registers``; ``sum_o`` lags ``sum_i`` by the same, and ``sum_i`` meets
    activations that came :attr:`sum_delay` cycles before it.

    Attributes
    ----------
    activations_i, activations_o:
        ``R`` int8.
    swap_i, swap_o:
        The activations are the first of a new tile.
    load_i, load_o:
        :class:`WeightLoad`.
    sum_i, sum_o:
        Partial sum, ``signed(partial_sum_bits(config))``.
    """

    def __init__(self, config: Config, row: int) -> None:
        if not 0 <= row < config.row_groups:
            raise ValueError(f"row must be from 0 to {config.row_groups - 1}, not {row}")
        self.config = config
        self.row = row
        activations = data.ArrayLayout(signed(8), config.weight_rows_per_cycle)
        partial_sum = signed(partial_sum_bits(config))
        super().__init__(
            {
                "activations_i": In(activations),
                "activations_o": Out(activations),
                "swap_i": In(1),
                "swap_o": Out(1),
                "load_i": In(WeightLoad(config)),
                "load_o": Out(WeightLoad(config)),
                "sum_i": In(partial_sum),
                "sum_o": Out(partial_sum),
            }
        )

    @staticmethod
    def sum_delay(config: Config) -> int:
        """Cycles from activations to the partial sum they are added to: input, multiplier, the extra register, one
        register for each level of the tree."""
        return 1 + Multiplier.latency + 1 + ceil_log2(config.weight_rows_per_cycle)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        hop = self.config.hop_registers
        # Cells on a diagonal have the same swap and tag at the same time; synthesis must not merge their registers.
        activations, swap = delayed(m, self.activations_i, 1, "activations"), delayed(m, self.swap_i, 1, "swap", init=0, keep=True)
        load_valid = delayed(m, self.load_i.valid, 1, "load_valid", init=0, keep=True)
        load_tag = delayed(m, self.load_i.tag, 1, "load_tag", keep=True)
        load_weights = delayed(m, self.load_i.weights, 1, "load_weights")
        taken = delayed(m, self.load_i.valid & (self.load_i.tag == self.row), 1, "taken", init=0, keep=True)
        m.d.comb += [
            self.activations_o.eq(delayed(m, activations, hop - 1, "activations_hop")),
            self.swap_o.eq(delayed(m, swap, hop - 1, "swap_hop", init=0, keep=True)),
            self.load_o.valid.eq(delayed(m, load_valid, hop - 1, "load_valid_hop", init=0, keep=True)),
            self.load_o.tag.eq(delayed(m, load_tag, hop - 1, "load_tag_hop", keep=True)),
            self.load_o.weights.eq(delayed(m, load_weights, hop - 1, "load_weights_hop")),
        ]
        in_logic = (self.row + 1) * self.config.weight_rows_per_cycle <= self.config.fabric_rows
        terms = []
        for index in range(self.config.weight_rows_per_cycle):
            m.submodules[f"multiplier{index}"] = multiplier = Multiplier(fabric=in_logic)
            shadow = Signal(signed(8), name=f"shadow{index}", reset_less=True)
            with m.If(taken):
                m.d.sync += shadow.eq(load_weights[index])
            m.d.comb += [multiplier.a.eq(activations[index]), multiplier.b.eq(shadow), multiplier.load.eq(swap)]
            terms.append(delayed(m, multiplier.p, 1, f"product{index}"))
        while len(terms) > 1:  # one registered level of the adder tree
            pairs = zip(terms[::2], terms[1::2], strict=True)
            terms = [delayed(m, a + b, 1, "tree") for a, b in pairs]
        m.d.comb += self.sum_o.eq(delayed(m, (self.sum_i + terms[0])[: len(self.sum_i)].as_signed(), hop, "sum"))
        return m
