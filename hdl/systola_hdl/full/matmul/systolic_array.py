"""The systolic array: cells of rows × columns, skewed on the way in."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.common.delay import delayed
from systola_hdl.full.matmul.dot_cell import DotCell, partial_sum_bits

__all__ = ["VECTOR_CONTROL", "SystolicArray", "WeightWord"]


#: What the accumulators must know about an activation vector: it is valid (``valid``), its sums overwrite (``first``,
#: the first tile of a job), it is the last position of a pass over the tile (``pass_last``) and of the last pass of a
#: job (``job_last``).
VECTOR_CONTROL = data.StructLayout({"valid": 1, "first": 1, "pass_last": 1, "job_last": 1})


class WeightWord(data.StructLayout):
    """One word of weights for the array: byte ``i*columns + c`` of ``weights`` is row ``i`` of cell row ``tag``, column
    ``c``."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {"valid": 1, "tag": ceil_log2(config.row_groups), "weights": data.ArrayLayout(8, config.weight_word_bytes)}
        )


class SystolicArray(Component):
    """``sums[c] = Σ_r activations[r] * W[r][c]``, weight-stationary, one vector a cycle.

    Activations and weight words enter unskewed; registers at the edge skew them, one hop a cell. Column ``c`` delivers
    its sum ``latency(config) + c * hop_registers`` cycles after the activations; ``control_o`` is ``control_i`` delayed
    by ``latency(config)``, for column 0.

    A tile is loaded by ``row_groups`` words, in any order. All of them must come before the activations with ``swap``,
    which are the first that the tile multiplies; words that come with these activations or after them belong to the
    next tile. So a new tile may follow every ``row_groups`` cycles, without a bubble.

    Attributes
    ----------
    activations:
        ``rows`` int8, lane 0 first.
    swap:
        These activations are the first of the tile in the shadow registers.
    load:
        :class:`WeightWord`.
    control_i, control_o:
        :data:`VECTOR_CONTROL`; the array only delays it.
    sums:
        One partial sum a column, ``signed(partial_sum_bits(config))``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "activations": In(data.ArrayLayout(8, config.rows)),
                "swap": In(1),
                "load": In(WeightWord(config)),
                "control_i": In(VECTOR_CONTROL),
                "control_o": Out(VECTOR_CONTROL),
                "sums": Out(data.ArrayLayout(signed(partial_sum_bits(config)), config.columns)),
            }
        )

    @staticmethod
    def latency(config: Config) -> int:
        """Cycles from an activation vector to its sum in column 0."""
        return DotCell.sum_delay(config) + config.row_groups * config.hop_registers

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        groups, columns, hop = self.config.row_groups, self.config.columns, self.config.hop_registers
        rows = self.config.weight_rows_per_cycle
        cells = [[DotCell(self.config, group) for _ in range(columns)] for group in range(groups)]
        for group, line in enumerate(cells):
            for column, cell in enumerate(line):
                m.submodules[f"cell_{group}_{column}"] = cell
                if column + 1 < columns:
                    right = line[column + 1]
                    m.d.comb += [right.activations_i.eq(cell.activations_o), right.swap_i.eq(cell.swap_o)]
                if group + 1 < groups:
                    below = cells[group + 1][column]
                    m.d.comb += [below.load_i.eq(cell.load_o), below.sum_i.eq(cell.sum_o)]
        for group in range(groups):
            for index in range(rows):
                lane = self.activations[group * rows + index].as_signed()
                m.d.comb += cells[group][0].activations_i[index].eq(delayed(m, lane, group * hop, f"skew{group}_{index}"))
            m.d.comb += cells[group][0].swap_i.eq(delayed(m, self.swap, group * hop, f"skew_swap{group}", init=0, keep=True))
        for column in range(columns):
            load = cells[0][column].load_i
            m.d.comb += [
                load.valid.eq(delayed(m, self.load.valid, column * hop, f"skew_valid{column}", init=0)),
                load.tag.eq(delayed(m, self.load.tag, column * hop, f"skew_tag{column}")),
                self.sums[column].eq(cells[-1][column].sum_o),
            ]
            for index in range(rows):
                weight = self.load.weights[index * columns + column].as_signed()
                m.d.comb += load.weights[index].eq(delayed(m, weight, column * hop, f"skew_weight{column}_{index}"))
        control = delayed(m, self.control_i.as_value(), self.latency(self.config), "control", init=0)
        m.d.comb += self.control_o.eq(control)
        return m
