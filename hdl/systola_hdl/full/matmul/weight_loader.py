"""Weight loader: brings the tiles of MATMUL jobs into the array's shadow registers, in order."""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS
from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import WEIGHT_ADDRESS_BITS, WeightRead
from systola_hdl.full.matmul.systolic_array import WeightWord
from systola_hdl.full.matmul.weight_queue import WeightQueue
from systola_hdl.full.memory.weight_memory import WeightMemory

__all__ = ["WeightLoader"]


class WeightLoader(Component):
    """Reads the weight words of one tile after another, as the MATMUL instruction orders them.

    A tile takes ``row_groups`` reads, one a cycle; in diagonal mode they are of the same word, of which each passes on
    its part of the diagonal. The loader reads ahead while its queue has free entries. The queue obeys the array's rule:
    the words of a tile leave when the pass of the tile before has begun. Whoever drives ``pass_start`` must obey three
    rules. There are no more passes than tiles reported by :attr:`tile_loaded`. Passes are at least ``row_groups``
    cycles apart. A pass's first vector reaches the array after its tile's last word, which leaves :attr:`load_latency`
    cycles after its read was accepted, if nothing stalled it.

    Attributes
    ----------
    start:
        ``weights`` (first word), ``diagonal``, ``counts.<loop>`` of the loops around a tile; taken before the last
        tiles of the instruction before are read.
    weights:
        :class:`WeightRead`.
    load:
        :class:`WeightWord`, to the array.
    tile_loaded:
        For one cycle: the last read of another tile was accepted in the cycle before.
    pass_start:
        A pass begins; words of the tile after it are at ``load`` from :attr:`release_latency` cycles later on.
    bad_address:
        The tile after those reported by ``tile_loaded`` lies wholly or partly outside the weight memory; the loader has
        stopped until reset.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        fraction_bits = exact_log2(config.weight_rows_per_cycle)
        #: A read, and what its word is for.
        self.read_layout = data.StructLayout(
            {
                "address": ceil_log2(config.weight_words),
                "step": range(config.row_groups),
                "row": max(1, fraction_bits),
                "diagonal": 1,
                "tile_last": 1,
            }
        )
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
                "tile_loaded": Out(1),
                "pass_start": In(1),
                "bad_address": Out(1),
            }
        )

    #: Loops around a tile, outermost first.
    loops = ("block", "group", "k2", "k1", "k0")
    #: Cycles from an accepted read to its word at ``load``, at least: the memory, the choice of a diagonal in two, the
    #: queue.
    load_latency = WeightMemory.read_latency + 2 + WeightQueue.latency
    #: Cycles from ``pass_start`` to the first word of the tile after it.
    release_latency = WeightQueue.release_latency

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        groups, fraction_bits = self.config.row_groups, exact_log2(self.config.weight_rows_per_cycle)

        # The loops only tell how many tiles there are and where a block ends. The next item is queued in a register
        # with a registered ready, so that no chain of ``ready`` is long; that costs no throughput, as a tile takes two
        # cycles at least.
        m.submodules.nest = nest = AddressGenerator(self.loops, 0)
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

        # A read is chosen, then waits in registers for the memory. `row`: the row of a word that a diagonal tile takes.
        # `no_place`: all entries of the queue are reserved.
        m.submodules.queue = queue = WeightQueue(self.config)
        word, row = Signal(WEIGHT_ADDRESS_BITS), Signal(max(1, fraction_bits))
        step, last_step = Signal(range(groups)), Signal()
        reserved, no_place = Signal(range(queue.depth + 1)), Signal()
        read, reads = Signal(self.read_layout), Signal()
        advance, go, inside, stopped = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            inside.eq(word < self.config.weight_words),
            advance.eq(~reads | self.weights.ready),
            go.eq(held & ~no_place & ~stopped & advance),
            self.weights.valid.eq(reads),
            self.weights.address.eq(read.address),
            finished.eq(go & last_step),
        ]
        accepted = reads & self.weights.ready
        m.d.sync += [
            self.tile_loaded.eq(accepted & read.tile_last),
            self.bad_address.eq(stopped & ~reads),
            reserved.eq(reserved + go - queue.freed),
            no_place.eq(Mux(go, ~queue.freed & (reserved == queue.depth - 1), no_place & ~queue.freed)),
        ]
        last_row = row == self.config.weight_rows_per_cycle - 1
        now = {"address": word, "step": step, "row": row, "diagonal": diagonal, "tile_last": last_step}
        with m.If(advance):
            m.d.sync += [
                reads.eq(go & inside),
                *(read[name].eq(value) for name, value in now.items()),
            ]
        with m.If(go):
            m.d.sync += [stopped.eq(~inside), step.eq(step + 1), last_step.eq(step == groups - 2)]  # step wraps: a power of two
            with m.If(~diagonal):
                m.d.sync += word.eq(word + 1)
            with m.If(last_step):
                with m.If(diagonal):
                    m.d.sync += [row.eq(Mux(last_row, 0, row + 1)), word.eq(word + last_row)]
                with m.If(ends_block):
                    m.d.sync += [row.eq(0), word.eq(base)]
        with m.If((~held | finished) & queued & queued_begins):
            m.d.sync += [word.eq(following.weights), base.eq(following.weights), diagonal.eq(following.diagonal)]
            m.d.sync += [row.eq(0), follows.eq(0)]

        came = data.View(self.read_layout, delayed(m, read.as_value(), WeightMemory.read_latency, "came"))
        self._build_choice(m, came, queue)
        m.d.comb += [
            queue.pass_start.eq(self.pass_start),
            self.load.eq(queue.o),
        ]
        return m

    def _build_choice(self, m: Module, came: data.View, queue: WeightQueue) -> None:
        """A diagonal tile keeps one byte a row of a word: column ``c`` that of row ``c``, which belongs to cell row ``c
        // R``."""
        columns, rows = self.config.columns, self.config.weight_rows_per_cycle
        words = [self.weights.data.as_value().word_select(index, 8 * columns) for index in range(rows)]
        m.d.comb += queue.i.valid.eq(delayed(m, self.weights.data_valid, 2, "valid", init=0))
        # Cycle 1: the row that a diagonal tile takes. Cycle 2: the bytes of its diagonal, or the whole word.
        row_bytes = delayed(m, Array(words)[came.row], 1, "row_bytes")
        for index in range(rows):
            word = delayed(m, words[index], 1, f"word{index}")
            dense = delayed(m, ~came.diagonal, 1, f"dense{index}", keep=True)
            for column in range(columns):
                kept = Mux(dense, word.word_select(column, 8), 0)
                if column % rows == index:
                    on_diagonal = delayed(m, came.diagonal & (came.step == column // rows), 1, f"on_diagonal{column}")
                    kept |= Mux(on_diagonal, row_bytes.word_select(column, 8), 0)
                m.d.comb += queue.i.weights[index * columns + column].eq(delayed(m, kept, 1, f"kept{index}_{column}"))
