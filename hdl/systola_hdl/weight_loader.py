"""Weight loader: brings the tiles of MATMUL jobs into the array's shadow registers, in order."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.config import Config
from systola_hdl.dot_cell import delayed
from systola_hdl.interfaces import WEIGHT_ADDRESS_BITS, WeightRead
from systola_hdl.loop_nest import COUNT_BITS, LoopNest
from systola_hdl.systolic_array import WeightWord
from systola_hdl.weight_memory import WeightMemory

__all__ = ["WeightLoader"]


class WeightLoader(Component):
    """Reads the weight words of one tile after another, as the MATMUL instruction orders them.

    A tile takes ``row_groups`` reads, one a cycle; in diagonal mode they are of the same word, of which each passes on its
    part of the diagonal. The loader keeps one tile ahead: after the reads of a tile are accepted, ``shadow_full`` is set, and
    the next tile's reads wait for ``pass_start``; they may begin in that same cycle. A word is at ``load``
    :attr:`load_latency` cycles after its read was accepted, so the rule of the array holds if the vector accepted with
    ``pass_start`` takes exactly as long.

    Attributes
    ----------
    start:
        ``weights`` (first word), ``diagonal``, ``counts.<loop>`` of the loops around a tile; taken ahead of the last tiles of the
        instruction before.
    weights:
        :class:`WeightRead`.
    load:
        :class:`WeightWord`, to the array.
    shadow_full:
        All reads of the next tile have been accepted in earlier cycles.
    pass_start:
        The first vector of that tile was accepted by the activation memory in this cycle.
    bad_address:
        The next tile begins or goes on outside the weight memory; the loader has stopped for good.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.start_layout = data.StructLayout(
            {
                "weights": WEIGHT_ADDRESS_BITS,
                "diagonal": 1,
                "counts": data.StructLayout(dict.fromkeys(self.loops, COUNT_BITS)),
            }
        )
        super().__init__(
            {
                "start": In(stream.Signature(self.start_layout)),
                "weights": Out(WeightRead(config)),
                "load": Out(WeightWord(config)),
                "shadow_full": Out(1),
                "pass_start": In(1),
                "bad_address": Out(1),
            }
        )

    #: Loops around a tile, outermost first.
    loops = ("block", "group", "k2", "k1", "k0")
    #: Cycles from an accepted read to the word at ``load``: the memory's and one register.
    load_latency = WeightMemory.read_latency + 1

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        groups, fraction_bits = self.config.row_groups, exact_log2(self.config.weight_rows_per_cycle)

        # The loops only tell how many tiles there are and where a block ends. The next item is queued in a register with a
        # registered ready, so that no ready chain is long: a tile takes two cycles at least.
        m.submodules.nest = nest = LoopNest(self.loops, 0)
        # An instruction's own values wait in `following` until its first tile is next, so that the loops may run ahead.
        following, follows = Signal(self.start_layout), Signal()
        base, diagonal = Signal(WEIGHT_ADDRESS_BITS), Signal()
        m.d.comb += [
            nest.start.valid.eq(self.start.valid & ~follows),
            self.start.ready.eq(~follows & nest.start.ready),
            nest.start.payload.counts.eq(self.start.payload.counts),
        ]
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [following.eq(self.start.payload), follows.eq(1)]
        queued, queued_begins, queued_ends_block = Signal(), Signal(), Signal()
        held, ends_block, finished = Signal(), Signal(), Signal()
        m.d.comb += nest.o.ready.eq(~queued)
        with m.If(~held | finished):
            m.d.sync += [held.eq(queued), ends_block.eq(queued_ends_block), queued.eq(0)]
        with m.If(nest.o.valid & ~queued):
            first, last = nest.o.payload.first.as_value(), nest.o.payload.last.as_value()  # outermost loop in bit 0
            m.d.sync += [queued.eq(1), queued_begins.eq(first.all()), queued_ends_block.eq(last[1:].all())]

        # One read a cycle. `row` is which row of a word a diagonal tile takes.
        word, row = Signal(WEIGHT_ADDRESS_BITS), Signal(max(1, fraction_bits))
        step = Signal(range(groups))
        inside = Signal()
        m.d.comb += [
            inside.eq(word < self.config.weight_words),
            self.weights.valid.eq(held & inside & (~self.shadow_full | self.pass_start)),
            self.weights.address.eq(word),
            self.bad_address.eq(held & ~inside & ~self.shadow_full),
        ]
        with m.If(self.pass_start):
            m.d.sync += self.shadow_full.eq(0)
        last_row = row == self.config.weight_rows_per_cycle - 1
        with m.If(self.weights.valid & self.weights.ready):
            m.d.sync += step.eq(step + 1)  # wraps: row_groups is a power of two
            with m.If(~diagonal):
                m.d.sync += word.eq(word + 1)
            with m.If(step == groups - 1):
                m.d.comb += finished.eq(1)
                m.d.sync += self.shadow_full.eq(1)
                with m.If(diagonal):
                    m.d.sync += [row.eq(Mux(last_row, 0, row + 1)), word.eq(word + last_row)]
                with m.If(ends_block):
                    m.d.sync += [row.eq(0), word.eq(base)]
        with m.If((~held | finished) & queued & queued_begins):
            m.d.sync += [word.eq(following.weights), base.eq(following.weights), diagonal.eq(following.diagonal)]
            m.d.sync += [row.eq(0), follows.eq(0)]

        # The word comes back a fixed time later, with what it is for; a diagonal tile keeps one byte a row.
        config = self.config
        came = delayed(m, Cat(step, row, diagonal), WeightMemory.read_latency, "came")
        came_step, came_row, came_diagonal = came[: len(step)], came[len(step) : -1], came[-1]
        m.d.sync += [self.load.valid.eq(self.weights.data_valid), self.load.tag.eq(came_step)]
        diagonal_bytes = Array(
            self.weights.data.as_value().word_select(index, 8 * config.columns) for index in range(config.weight_rows_per_cycle)
        )[came_row]
        for index in range(config.weight_rows_per_cycle):
            for column in range(config.columns):
                byte = index * config.columns + column
                spread = Signal(8, name=f"spread{byte}")
                with m.If((column // config.weight_rows_per_cycle == came_step) & (column % config.weight_rows_per_cycle == index)):
                    m.d.comb += spread.eq(diagonal_bytes.word_select(column, 8))
                m.d.sync += self.load.weights[byte].eq(Mux(came_diagonal, spread, self.weights.data[byte]))
        return m
