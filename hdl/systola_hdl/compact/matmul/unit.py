"""The MATMUL unit of the compact engine: checks, weight loader, streamer, array and accumulators."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode
from systola_hdl.common.delay import delayed
from systola_hdl.common.field_rules import below, product_bound
from systola_hdl.common.layouts import STREAM_LOOPS
from systola_hdl.common.memory_ports import ActivationRead, WeightRead
from systola_hdl.compact.interfaces import AccumulatorDrain, UnitControl
from systola_hdl.compact.matmul.accumulators import Accumulators
from systola_hdl.compact.matmul.dot_array import DotArray
from systola_hdl.compact.matmul.streamer import Streamer
from systola_hdl.compact.matmul.weight_loader import WeightLoader
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.words import field_of, word_of

__all__ = ["MatmulUnit"]


class MatmulUnit(Component):
    """Executes MATMUL instructions, one at a time: see the instruction's text in ``docs/isa.md``.

    One vector a cycle, as long as rows (``x_count``) and passes are not shorter than the address generator and the
    loader take for the next, and neither POST's accesses to the activation memory nor its drain come between. An
    instruction begins some 15 cycles after ``start``; the check of ``x_count * y_count`` takes ``y_count`` of them, or
    more.

    Attributes
    ----------
    control:
        :class:`UnitControl`, flipped.
    activation, weights:
        To the memories.
    drain:
        :class:`AccumulatorDrain`, flipped.
    array_busy, wait_weights, wait_activations, wait_post:
        Events for the counters; at most one is high in a cycle. A pause for the drain is a wait for POST.
    """

    #: Cycles from an accepted drain request to its data.
    drain_latency = Accumulators.drain_latency

    def __init__(self, config: Config) -> None:
        self.config = config
        self.streamer = Streamer(config)
        super().__init__(
            {
                "control": In(UnitControl()),
                "activation": Out(ActivationRead(config)),
                "weights": Out(WeightRead(config)),
                "drain": In(AccumulatorDrain(config)),
                "array_busy": Out(1),
                "wait_weights": Out(1),
                "wait_activations": Out(1),
                "wait_post": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.loader = loader = WeightLoader(self.config)
        m.submodules.streamer = streamer = self.streamer
        m.submodules.array = array = DotArray(self.config)
        m.submodules.accumulators = accumulators = Accumulators(self.config)
        connect(m, flipped(self.activation), streamer.activation)
        connect(m, flipped(self.weights), loader.weights)
        connect(m, flipped(self.drain), accumulators.drain)
        m.d.comb += [
            streamer.tile_full.eq(loader.full),
            streamer.bad_weights.eq(loader.bad_address),
            loader.take.eq(streamer.pass_start),
            loader.restart.eq(streamer.restart),
            streamer.half_free.eq(accumulators.free),
            streamer.pause.eq(accumulators.pause),
            accumulators.claim.eq(streamer.claim),
            accumulators.sums.eq(array.sums),
            array.weights.eq(loader.tile),
            array.vector.eq(streamer.activation.data),
            self.array_busy.eq(streamer.vectors.valid),
            self.wait_weights.eq(streamer.wait_weights),
            self.wait_activations.eq(streamer.wait_activations),
            self.wait_post.eq(streamer.wait_post),
        ]
        # What a vector is waits for the vector, and then for its sums, which the accumulators want to know of a cycle
        # before.
        to_array = ActivationMemory.read_latency
        to_sums = to_array + DotArray.latency - 1
        flags = delayed(m, streamer.vectors.payload.as_value(), to_sums, "flags")
        m.d.comb += [
            array.load.eq(delayed(m, streamer.pass_start, to_array, "load", init=0)),
            accumulators.i.valid.eq(delayed(m, streamer.vectors.valid, to_sums, "accepted", init=0)),
            accumulators.i.payload.eq(flags),
        ]
        self._build_decode(m, loader, streamer)
        return m

    def _build_decode(self, m: Module, loader: WeightLoader, streamer: Streamer) -> None:
        """Hand the payload words over as they come, look at the counts on the way, and check the product of two of
        them."""
        control, depth = self.control, product_bound(Opcode.MATMUL, self.config)
        x_count, y_count = Signal(range(depth + 1)), Signal(range(depth + 1))
        # Once bad, it is until the unit's reset.
        bad, product = Signal(), Signal(range(depth + (1 << len(x_count))))
        base, beyond, diagonal, recurrent = Signal.like(loader.base), Signal(), Signal(), Signal()
        m.d.comb += [
            streamer.words.valid.eq(control.words.valid),
            streamer.words.payload.eq(control.words.payload),
            streamer.start.eq(control.start),
            streamer.recurrent.eq(recurrent),
            loader.diagonal.eq(diagonal),
            loader.base.eq(base),
            loader.beyond.eq(beyond),
        ]

        def arrives(name: str) -> Value:
            return control.words.valid & (control.words.payload.index == word_of(Opcode.MATMUL, name))

        def field(name: str) -> Value:
            return field_of(Opcode.MATMUL, name, control.words.payload.word)

        with m.If(arrives("source")):
            m.d.sync += [diagonal.eq(field("diagonal")), recurrent.eq(field("recurrent"))]
        with m.If(arrives("weights")):
            m.d.sync += [base.eq(field("weights")), beyond.eq(field("weights")[len(base) :].any())]
        for loop in STREAM_LOOPS:
            count = f"{loop}_count"
            with m.If(arrives(count) & below(Opcode.MATMUL, count, field(count), self.config)):
                m.d.sync += bad.eq(1)
        for name, count in (("x_count", x_count), ("y_count", y_count)):
            with m.If(arrives(name)):
                m.d.sync += count.eq(field(name))
                with m.If(field(name)[len(count) :].any()):
                    m.d.sync += bad.eq(1)

        m.d.comb += [
            control.busy.eq(1),
            control.done.eq(streamer.done),
            control.error.eq(streamer.error),
            control.error_code.eq(streamer.error_code),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += control.busy.eq(0)
                m.d.sync += product.eq(0)
                with m.If(control.start):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [product.eq(product + x_count), y_count.eq(y_count - 1)]
                with m.If(bad | (product > depth)):
                    m.d.comb += [control.error.eq(1), control.error_code.eq(ErrorCode.BAD_FIELD)]
                    m.next = "REFUSED"
                with m.Elif(y_count == 0):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += streamer.go.eq(1)
                with m.If(streamer.done):
                    m.next = "IDLE"
            with m.State("REFUSED"):
                m.d.comb += control.error_code.eq(ErrorCode.BAD_FIELD)
