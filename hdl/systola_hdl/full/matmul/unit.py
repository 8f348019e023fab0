"""The MATMUL unit: decode, weight loader, streamer, array and accumulators."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS, ErrorCode, Opcode, Unit
from systola_hdl.common.delay import delayed
from systola_hdl.common.field_rules import below, product_bound
from systola_hdl.common.layouts import STREAM_LOOPS, payload_layout
from systola_hdl.common.memory_ports import ActivationRead, WeightRead
from systola_hdl.full.interfaces import AccumulatorDrain, UnitControl
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer
from systola_hdl.full.matmul.systolic_array import SystolicArray
from systola_hdl.full.matmul.weight_loader import WeightLoader

__all__ = ["MatmulUnit"]


class MatmulUnit(Component):
    """Executes MATMUL instructions: see the instruction's text in ``docs/isa.md``.

    Throughput is one vector a cycle without bubbles between passes and jobs, as long as no pass is shorter than the
    ``row_groups`` cycles in which a tile is loaded, nor than :attr:`AccumulatorBuffer.shortest_pass`. The next
    instruction is taken and checked, and its first tile loaded, while the last one runs. The check takes a cycle for
    each bit of ``y_count``, and four more.

    Attributes
    ----------
    control:
        :class:`UnitControl`, flipped.
    activation, weights:
        To the memories.
    drain:
        :class:`AccumulatorDrain`, flipped.
    step_done:
        From the post-processor, for one cycle: a ``recurrent`` instruction may begin its next block.
    array_busy, wait_weights, wait_activations, wait_post, wait_step:
        Events for the counters; at most one is high in a cycle.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "control": In(UnitControl(Unit.MATMUL)),
                "activation": Out(ActivationRead(config)),
                "weights": Out(WeightRead(config)),
                "drain": In(AccumulatorDrain(config)),
                "step_done": In(1),
                "array_busy": Out(1),
                "wait_weights": Out(1),
                "wait_activations": Out(1),
                "wait_post": Out(1),
                "wait_step": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.loader = loader = WeightLoader(self.config)
        m.submodules.streamer = streamer = Streamer(self.config)
        m.submodules.array = array = SystolicArray(self.config)
        m.submodules.accumulators = accumulators = AccumulatorBuffer(self.config)
        connect(m, flipped(self.activation), streamer.activation)
        connect(m, flipped(self.weights), loader.weights)
        connect(m, flipped(self.drain), accumulators.drain)
        m.d.comb += [
            streamer.half_freed.eq(accumulators.freed),
            accumulators.sums.eq(array.sums),
            accumulators.control.eq(array.control_o),
            self.array_busy.eq(streamer.issued),
            self.wait_weights.eq(streamer.wait_weights),
            self.wait_activations.eq(streamer.wait_activations),
            self.wait_post.eq(streamer.wait_post),
            self.wait_step.eq(streamer.wait_step),
            streamer.step_done.eq(self.step_done),
        ]
        # The first vector of a pass meets the array `streamer.latency` cycles after it was accepted; `pass_start` is a
        # cycle after that. The next tile's words may come with that vector, no earlier.
        m.d.comb += [
            array.activations.eq(streamer.vector),
            array.swap.eq(streamer.swap),
            array.control_i.eq(streamer.control),
            array.load.eq(loader.load),
            loader.pass_start.eq(
                delayed(m, streamer.pass_start, streamer.latency - 1 - loader.release_latency, "pass_start", init=0)
            ),
        ]
        # A tile is reported to the streamer only when a vector that waits for it can no longer reach the array before
        # the tile's last word does.
        told = 1 + streamer.issue_latency + streamer.latency  # cycles from the acceptance of a tile's last read to that vector
        late = max(loader.load_latency + 1 - told, 0)
        m.d.comb += [
            streamer.tile_loaded.eq(delayed(m, loader.tile_loaded, late, "tile_loaded", init=0)),
            streamer.bad_weights.eq(delayed(m, loader.bad_address, late, "bad_weights", init=0)),
        ]
        self._build_decode(m, loader, streamer)
        return m

    def _build_decode(self, m: Module, loader: WeightLoader, streamer: Streamer) -> None:
        """Take an instruction, check it, start loader and streamer; count those in progress."""
        layout = payload_layout(Opcode.MATMUL)
        control, offered = self.control, self.control.instruction
        fields = Signal(layout)
        counts = Cat(below(Opcode.MATMUL, f"{loop}_count", fields[f"{loop}_count"], self.config) for loop in STREAM_LOOPS)
        product, addend, multiplier = Signal(2 * COUNT_BITS), Signal(2 * COUNT_BITS), Signal(COUNT_BITS)
        taken = Signal(2)  # instructions taken and not done: at most one that runs and one ahead
        wants_loader, wants_streamer, bad_field = Signal(), Signal(), Signal()
        zero, too_many = Signal(), Signal()
        m.d.comb += [
            loader.start.valid.eq(wants_loader),
            streamer.start.valid.eq(wants_streamer),
            loader.start.payload.weights.eq(fields.weights),
            loader.start.payload.diagonal.eq(fields.diagonal),
            streamer.start.payload.base[0].eq(fields.source),
            streamer.start.payload.tag.eq(fields.recurrent),
            control.done.eq(streamer.done),
            control.busy.eq(taken != 0),
            control.error.eq(streamer.error | bad_field),
            control.error_code.eq(Mux(bad_field, ErrorCode.BAD_FIELD, streamer.error_code)),
        ]
        for loop in STREAM_LOOPS:
            m.d.comb += streamer.start.payload.counts[loop].eq(fields[f"{loop}_count"])
            m.d.comb += streamer.start.payload.steps[loop][0].eq(fields[f"{loop}_step"])
            if loop in loader.loops:
                m.d.comb += loader.start.payload.counts[loop].eq(fields[f"{loop}_count"])
        m.d.sync += taken.eq(taken + (offered.valid & offered.ready) - streamer.done)

        with m.FSM():
            with m.State("EMPTY"):
                m.d.comb += offered.ready.eq(taken != 2)
                with m.If(offered.valid & offered.ready):
                    m.d.sync += fields.eq(offered.payload.words[: layout.size])
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [product.eq(0), addend.eq(fields.x_count), multiplier.eq(fields.y_count)]
                m.d.sync += zero.eq(counts.any())
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [addend.eq(addend << 1), multiplier.eq(multiplier >> 1)]
                with m.If(multiplier[0]):
                    m.d.sync += product.eq(product + addend)
                m.d.sync += too_many.eq(product > product_bound(Opcode.MATMUL, self.config))
                with m.If(multiplier == 0):  # `product` does not change in this cycle, in which it is compared
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "BAD"
                with m.If(~zero & ~too_many):
                    m.d.sync += [wants_loader.eq(1), wants_streamer.eq(1)]
                    m.next = "START"
            with m.State("START"):
                with m.If(loader.start.ready):
                    m.d.sync += wants_loader.eq(0)
                with m.If(streamer.start.ready):
                    m.d.sync += wants_streamer.eq(0)
                with m.If((~wants_loader | loader.start.ready) & (~wants_streamer | streamer.start.ready)):
                    m.next = "EMPTY"
            with m.State("BAD"):  # reported once the instructions before it are done, as errors are of the oldest
                with m.If(taken == 1):
                    m.d.comb += bad_field.eq(1)
                    m.next = "STOPPED"
            with m.State("STOPPED"):
                pass
