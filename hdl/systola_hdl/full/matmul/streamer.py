"""Activation streamer: issues the vectors of MATMUL jobs, in step with weights and accumulators."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS, ErrorCode
from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.delay import delayed
from systola_hdl.common.layouts import ERROR_CODE, STREAM_LOOPS
from systola_hdl.common.memory_ports import ActivationRead
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.systolic_array import VECTOR_CONTROL
from systola_hdl.full.matmul.weight_queue import WeightQueue
from systola_hdl.full.memory.activation_memory import ActivationMemory

__all__ = ["Streamer"]


class Streamer(Component):
    """Reads one activation vector a cycle, in the order of the MATMUL loops, and sends it to the array with its control
    signals.

    The first vector of a job waits for a free half of the accumulators. The first vector of a pass waits for the
    weights of its tile, until the accumulators can add to the same position again, and until the array can take another
    tile. The first vector of a block of a recurrent instruction also waits for the time step before to be complete.
    Otherwise passes, jobs and instructions follow each other without a bubble.

    Design: the conditions under which a vector may be issued are registers. An issued vector waits in a register until
    the memory accepts its read; while it waits, the streamer stands still, counts of cycles included. Vector and
    control leave :attr:`latency` cycles after the read was accepted.

    Attributes
    ----------
    start:
        A loop nest over :data:`STREAM_LOOPS`, counts checked; its ``tag`` is ``recurrent``.
    activation:
        :class:`ActivationRead`.
    tile_loaded, bad_weights:
        From the weight loader. ``tile_loaded`` for one cycle: another tile is loaded. ``bad_weights``: the tile after
        those reported so will never be loaded.
    pass_start:
        To the weight loader: the first vector of a pass was accepted in the cycle before.
    half_freed:
        For one cycle: another half of the accumulators is free. Both are free after reset.
    step_done:
        For one cycle: a read accepted from the next cycle on sees all that the LSTM has written in one more time step.
        These step credits are counted, and the count is cleared when a recurrent instruction begins.
    vector, swap, control:
        To the array.
    done:
        The last vector of an instruction was accepted in the cycle before.
    error, error_code:
        One pulse; the streamer then stops until reset.
    issued, wait_weights, wait_activations, wait_post, wait_step:
        What the cycle before last was used for; at most one is high.
    """

    latency = ActivationMemory.read_latency
    #: Cycles from ``tile_loaded``, ``half_freed`` or ``step_done`` to the first read accepted that waited for it.
    issue_latency = 2

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nest = AddressGenerator(STREAM_LOOPS, tag_bits=1)
        #: A vector's address and flags: first or last of its pass, tile or job; ``final``: ends the instruction;
        #: ``begins``: begins a recurrent instruction; ``waits_step``: waits for a time step; ``outside``: lies outside
        #: the memory.
        self.vector_layout = data.StructLayout(
            {
                "address": ceil_log2(config.activation_bytes),
                **dict.fromkeys(("pass_first", "first_tile", "pass_last", "job_first", "job_last", "final"), 1),
                **dict.fromkeys(("begins", "waits_step", "outside"), 1),
            }
        )
        super().__init__(
            {
                "start": In(self.nest.start.signature.flip()),
                "activation": Out(ActivationRead(config)),
                "tile_loaded": In(1),
                "bad_weights": In(1),
                "pass_start": Out(1),
                "half_freed": In(1),
                "step_done": In(1),
                "vector": Out(data.ArrayLayout(8, config.rows)),
                "swap": Out(1),
                "control": Out(VECTOR_CONTROL),
                "done": Out(1),
                "error": Out(1),
                "error_code": Out(ERROR_CODE),
                "issued": Out(1),
                "wait_weights": Out(1),
                "wait_activations": Out(1),
                "wait_post": Out(1),
                "wait_step": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.nest = nest = self.nest
        connect(m, flipped(self.start), nest.start)
        offer, offered = Signal(self.vector_layout), Signal()  # the next vector, and whether there is one
        go = Signal()  # the next vector is issued in this cycle
        self._build_offer(m, offer, offered, go)
        vector, requested = Signal(self.vector_layout), Signal()  # the issued vector, while it waits for the memory
        advance, accepted = Signal(), Signal()
        m.d.comb += [advance.eq(~requested | self.activation.ready), accepted.eq(requested & self.activation.ready)]
        m.d.comb += [self.activation.valid.eq(requested), self.activation.address.eq(vector.address)]
        with m.If(advance):
            m.d.sync += [requested.eq(go), vector.eq(offer)]

        # May the next vector be issued? This depends on registers only: the memory's `ready` is one as well.
        most_tiles = WeightQueue.depth // self.config.row_groups + 2
        no_half = _none_left(
            m, AccumulatorBuffer.count, self.half_freed, go & offer.job_first, "half", init=AccumulatorBuffer.count
        )
        no_tile = _none_left(m, most_tiles, self.tile_loaded, go & offer.pass_first, "tile")
        # Step credits: time steps that are complete and not yet followed by their next block; an instruction begins
        # with none.
        no_step = _none_left(m, (1 << COUNT_BITS) - 1, self.step_done, go & offer.waits_step, "step", clear=go & offer.begins)
        too_early, too_early_to_add = self._build_pauses(m, offer, go, advance)
        stopped, needs_half, needs_step, needs_weights = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            needs_half.eq(offer.job_first & no_half),
            needs_step.eq(offer.waits_step & no_step),
            needs_weights.eq(offer.pass_first & (no_tile | too_early | (~offer.first_tile & too_early_to_add))),
            go.eq(offered & ~stopped & ~needs_half & ~needs_step & ~needs_weights & ~offer.outside & advance),
        ]
        moves = offered & ~stopped & advance
        m.d.sync += [
            self.pass_start.eq(accepted & vector.pass_first),
            self.done.eq(accepted & vector.final),
            self.issued.eq(go),
            self.wait_activations.eq(offered & ~stopped & ~advance),
            self.wait_post.eq(moves & needs_half),
            self.wait_step.eq(moves & ~needs_half & needs_step),
            self.wait_weights.eq(moves & ~needs_half & ~needs_step & needs_weights),
        ]

        # Errors are reported in the order of the loop nest: of a pass, its weights before its activations.
        bad_weights = offer.pass_first & no_tile & self.bad_weights & ~needs_half & ~needs_step
        bad_activation = offer.outside & ~needs_half & ~needs_step & ~needs_weights
        m.d.sync += self.error.eq(0)
        with m.If(moves & (bad_weights | bad_activation)):
            m.d.sync += [stopped.eq(1), self.error.eq(1)]
            m.d.sync += self.error_code.eq(Mux(bad_weights, ErrorCode.WEIGHT_ADDRESS, ErrorCode.ACTIVATION_ADDRESS))

        # The control signals are delayed by the latency of the memory, so that they leave with their vector.
        flags = Cat(vector.pass_first, vector.first_tile, vector.pass_last, vector.job_last)
        travelling = delayed(m, flags, self.latency, "travelling")
        m.d.comb += [
            self.vector.eq(self.activation.data),
            self.swap.eq(self.activation.data_valid & travelling[0]),
            self.control.valid.eq(self.activation.data_valid),
            Cat(self.control.first, self.control.pass_last, self.control.job_last).eq(travelling[1:]),
        ]
        return m

    def _build_offer(self, m: Module, offer: data.View, offered: Signal, go: Signal) -> None:
        """Work out the flags on which the issue of a vector depends, and put them into a skid buffer, so that the loop
        nest's ``ready`` is a register."""
        item, address = self.nest.o.payload, self.nest.o.payload.address[0]
        first, last, coming = item.first, item.last, Signal(self.vector_layout)
        pass_first, pass_last, first_tile = first.y & first.x, last.y & last.x, first.k2 & first.k1 & first.k0
        job_last = pass_last & last.k2 & last.k1 & last.k0
        block_first = pass_first & first_tile & first.group & item.tag
        m.d.comb += [
            coming.address.eq(address),
            coming.pass_first.eq(pass_first),
            coming.first_tile.eq(first_tile),
            coming.pass_last.eq(pass_last),
            coming.job_first.eq(pass_first & first_tile),
            coming.job_last.eq(job_last),
            coming.final.eq(job_last & last.block & last.group),
            coming.begins.eq(block_first & first.block),
            coming.waits_step.eq(block_first & ~first.block),
            coming.outside.eq((address < 0) | (address >= self.config.activation_bytes)),
        ]
        spare, spared = Signal(self.vector_layout), Signal()
        m.d.comb += self.nest.o.ready.eq(~spared)
        with m.If(~spared):
            m.d.sync += spare.eq(coming)
        with m.If(~offered | go):
            m.d.sync += [offer.eq(Mux(spared, spare, coming)), offered.eq(spared | self.nest.o.valid), spared.eq(0)]
        with m.Elif(~spared):
            m.d.sync += spared.eq(self.nest.o.valid)

    def _build_pauses(self, m: Module, offer: data.View, go: Signal, advance: Signal) -> tuple[Signal, Signal]:
        """Whether it is too early for another tile, and for the accumulators to add to the same position again.

        Two vectors for the same position are at least as many cycles apart as a pass has vectors, so a short pass is
        followed by a pause. For the accumulators, the distance is counted in vectors within a pass and in cycles
        between passes; for the array, in cycles.
        """
        between = Signal()
        with m.If(go):
            m.d.sync += between.eq(offer.pass_last)
        flags = []
        for name, cycles, counts in (
            ("tile", self.config.row_groups, advance),
            ("add", AccumulatorBuffer.shortest_pass, go | (between & advance)),
        ):
            left, early = Signal(range(cycles), name=f"{name}_left"), Signal(name=f"{name}_early")
            with m.If(go & offer.pass_first):
                m.d.sync += [left.eq(cycles - 1), early.eq(1)]
            with m.Elif(counts & early):
                m.d.sync += [left.eq(left - 1), early.eq(left != 1)]
            flags.append(early)
        return flags[0], flags[1]


def _none_left(m: Module, most: int, gained: Value, taken: Value, name: str, *, init: int = 0, clear: ValueLike = 0) -> Signal:
    """Count ``gained - taken``; ``clear`` sets the count to 0 first. Return a register: the count is 0.

    ``taken`` comes late in the cycle, so the logic behind it is kept short.
    """
    count, none, one = Signal(range(most + 1), name=f"{name}_count", init=init), Signal(name=f"no_{name}", init=init == 0), Signal()
    m.d.comb += one.eq(count == 1)
    m.d.sync += count.eq(Mux(clear, 0, count) + gained - taken)
    m.d.sync += none.eq(~gained & (none | clear | (taken & one)))
    return none
