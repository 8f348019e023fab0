"""Activation streamer: issues the vectors of MATMUL jobs, in step with weights and accumulators."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_firmware.isa import ErrorCode
from systola_hdl.accumulators import AccumulatorBuffer
from systola_hdl.activation_memory import ActivationMemory
from systola_hdl.dot_cell import delayed
from systola_hdl.interfaces import ERROR_CODE, ActivationRead
from systola_hdl.loop_nest import COUNT_BITS, LoopNest
from systola_hdl.systolic_array import VECTOR_CONTROL

__all__ = ["STREAM_LOOPS", "Streamer"]

#: Loops of a MATMUL, outermost first.
STREAM_LOOPS = ("block", "group", "k2", "k1", "k0", "y", "x")


class Streamer(Component):
    """Reads one activation vector a cycle, in the order of the MATMUL loops, and tells the array what each one is.

    The first vector of a job waits for a free half of the accumulators, and the first of a pass for the weights of its tile;
    it comes no sooner after the pass before than the accumulators can add to the same position again. The first vector of a
    block of a recurrent instruction also waits for the time step before to be complete. Otherwise passes, jobs and
    instructions follow each other without a bubble. Vector and control leave :attr:`latency` cycles after the read was accepted.

    Attributes
    ----------
    start:
        A loop nest over :data:`STREAM_LOOPS`, counts checked; its ``tag`` is ``recurrent``.
    activation:
        :class:`ActivationRead`.
    shadow_full, bad_weights:
        From the weight loader: the next tile is loaded, or will never be.
    pass_start:
        To the weight loader: the first vector of a pass is accepted in this cycle.
    half_free, claim:
        To the accumulators.
    step_done:
        For one cycle: a read accepted from the next cycle on sees all that the LSTM has written in one more time step. Counted, and
        forgotten when a recurrent instruction begins.
    vector, swap, control:
        To the array.
    done:
        The last vector of an instruction was accepted in the cycle before.
    error, error_code:
        One pulse; the streamer then stops for good.
    issued, wait_weights, wait_activations, wait_post, wait_step:
        What this cycle was used for; at most one is high.
    """

    latency = ActivationMemory.read_latency

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nest = LoopNest(STREAM_LOOPS, tag_bits=1)
        super().__init__(
            {
                "start": In(self.nest.start.signature.flip()),
                "activation": Out(ActivationRead(config)),
                "shadow_full": In(1),
                "bad_weights": In(1),
                "pass_start": Out(1),
                "half_free": In(1),
                "claim": Out(1),
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
        item, address = nest.o.payload, nest.o.payload.address[0]
        pass_first, pass_last = item.first.y & item.first.x, item.last.y & item.last.x
        first_tile = item.first.k2 & item.first.k1 & item.first.k0
        last_tile = item.last.k2 & item.last.k1 & item.last.k0
        job_first, job_last = pass_first & first_tile, pass_last & last_tile

        # May this vector go? Everything here is a register, but for the memory's ready.
        stopped, recovery, between = Signal(), Signal(range(AccumulatorBuffer.shortest_pass)), Signal()
        needs_half, needs_step, needs_weights, outside = Signal(), Signal(), Signal(), Signal()
        steps = Signal(COUNT_BITS)  # complete and not yet followed by their next block
        block_first = job_first & item.first.group & item.tag
        m.d.comb += [
            needs_half.eq(job_first & ~self.half_free),
            needs_step.eq(block_first & ~item.first.block & (steps == 0)),
            needs_weights.eq(pass_first & (~self.shadow_full | (~first_tile & (recovery != 0)))),
            outside.eq((address < 0) | (address >= self.config.activation_bytes)),
            self.activation.address.eq(address),
            self.activation.valid.eq(nest.o.valid & ~stopped & ~needs_half & ~needs_step & ~needs_weights & ~outside),
            self.issued.eq(self.activation.valid & self.activation.ready),
            nest.o.ready.eq(self.issued),
            self.pass_start.eq(self.issued & pass_first),
            self.claim.eq(self.issued & job_first),
        ]
        present = nest.o.valid & ~stopped
        m.d.comb += [
            self.wait_post.eq(present & needs_half),
            self.wait_step.eq(present & ~needs_half & needs_step),
            self.wait_weights.eq(present & ~needs_half & ~needs_step & needs_weights),
            self.wait_activations.eq(self.activation.valid & ~self.activation.ready),
        ]

        with m.If(self.issued & block_first & item.first.block):
            m.d.sync += steps.eq(self.step_done)
        with m.Else():
            m.d.sync += steps.eq(steps + self.step_done - (self.issued & block_first))

        # Two vectors for one position are apart by what the pass between them took without stalls, so a short pass is followed
        # by a pause. Counted in vectors within a pass, in cycles between passes.
        with m.If(self.issued):
            m.d.sync += between.eq(pass_last)
        with m.If(self.issued & pass_first):
            m.d.sync += recovery.eq(AccumulatorBuffer.shortest_pass - 1)
        with m.Elif((self.issued | between) & (recovery != 0)):
            m.d.sync += recovery.eq(recovery - 1)

        # Errors: in the order of the loop nest, so weights before activations.
        bad_weights = pass_first & ~self.shadow_full & self.bad_weights & ~needs_half & ~needs_step
        bad_activation = outside & ~needs_half & ~needs_step & ~needs_weights
        m.d.sync += [self.error.eq(0), self.done.eq(self.issued & job_last & item.last.block & item.last.group)]
        with m.If(present & (bad_weights | bad_activation)):
            m.d.sync += [stopped.eq(1), self.error.eq(1)]
            m.d.sync += self.error_code.eq(Mux(bad_weights, ErrorCode.WEIGHT_ADDRESS, ErrorCode.ACTIVATION_ADDRESS))

        # The control waits for its vector.
        travelling = delayed(m, Cat(pass_first, first_tile, pass_last, job_last), self.latency, "travelling")
        m.d.comb += [
            self.vector.eq(self.activation.data),
            self.swap.eq(self.activation.data_valid & travelling[0]),
            self.control.valid.eq(self.activation.data_valid),
            Cat(self.control.first, self.control.pass_last, self.control.job_last).eq(travelling[1:]),
        ]
        return m
