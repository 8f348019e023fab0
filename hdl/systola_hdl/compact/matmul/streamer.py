"""Activation streamer of the compact engine: reads the vectors of a MATMUL, in step with weights and accumulators."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode
from systola_hdl.common.layouts import ERROR_CODE, STREAM_LOOPS
from systola_hdl.common.logic import is_below
from systola_hdl.common.memory_ports import ActivationRead
from systola_hdl.compact.address_generator import AddressGenerator, Nest
from systola_hdl.compact.interfaces import PAYLOAD_WORD
from systola_hdl.compact.matmul.accumulators import SUM_FLAGS, Accumulators
from systola_hdl.compact.words import word_of

__all__ = ["Streamer"]

#: The address generator's memory holds the payload words under their own numbers.
_NEST = Nest(
    (word_of(Opcode.MATMUL, "source"),), tuple((word_of(Opcode.MATMUL, f"{loop}_count"),) for loop in reversed(STREAM_LOOPS))
)
#: Levels of the address generator by loop.
_LEVEL = {loop: level for level, loop in enumerate(reversed(STREAM_LOOPS))}


class Streamer(Component):
    """Reads one activation vector a cycle, in the order of the MATMUL loops, and tells the array what each one is.

    The first vector of a job waits for a free half of the accumulators, and the first of a pass for the weights of its
    tile. Without an LSTM unit nothing completes a time step, so a ``recurrent`` instruction stops after its first
    block.

    Attributes
    ----------
    words:
        Payload words of the instruction: 0 (source) to 7.
    start, go, recurrent:
        ``start`` for one cycle, all words written; vectors are read only while ``go``, which says that no count is 0.
    activation:
        :class:`ActivationRead`.
    tile_full, bad_weights, pass_start, restart:
        To and from the weight loader: the next tile is there, or will never be; the first vector of a pass is accepted
        in this cycle; the tile after the one of the cycle before (after ``start``, the next) is the first of a block.
    half_free, claim, pause:
        To and from the accumulators.
    vectors:
        A vector is accepted in this cycle, and what its sum is:
        :data:`~systola_hdl.compact.matmul.accumulators.SUM_FLAGS`.
    done:
        The last vector of the instruction was accepted in the cycle before.
    error, error_code:
        One pulse; the streamer then stops for good.
    wait_weights, wait_activations, wait_post:
        Why no vector is accepted in this cycle; at most one is high.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.generator = AddressGenerator((_NEST,), row_bits=exact_log2(config.accumulator_depth))
        # Two vectors for one position are at least a row of a new pass apart, so nothing here counts cycles.
        assert self.generator.row_cycles(_LEVEL["k0"]) >= Accumulators.shortest_pass
        super().__init__(
            {
                "words": In(stream.Signature(PAYLOAD_WORD, always_ready=True)),
                "start": In(1),
                "go": In(1),
                "recurrent": In(1),
                "activation": Out(ActivationRead(config)),
                "tile_full": In(1),
                "bad_weights": In(1),
                "pass_start": Out(1),
                "restart": Out(1),
                "half_free": In(1),
                "claim": Out(1),
                "pause": In(1),
                "vectors": Out(stream.Signature(SUM_FLAGS, always_ready=True)),
                "done": Out(1),
                "error": Out(1),
                "error_code": Out(ERROR_CODE),
                "wait_weights": Out(1),
                "wait_activations": Out(1),
                "wait_post": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.generator = generator = self.generator
        item, word, written = generator.o.payload, self.words.payload, generator.words.payload
        address, first, last = item.address[0], item.first, item.last
        flags, accepted = self.vectors.payload, self.vectors.valid
        pass_first, job_first, block_first, block_last_tile = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            generator.words.valid.eq(self.words.valid),
            written.entry.eq(word.index),
            written.word.eq(word.word),
            written.low.eq(word.index == _NEST.bases[0]),
            generator.start.eq(self.start),
            generator.o.ready.eq(accepted),
            pass_first.eq(first[: _LEVEL["k0"]].all()),
            flags.first.eq(first[_LEVEL["k0"] : _LEVEL["group"]].all()),
            job_first.eq(pass_first & flags.first),
            block_first.eq(job_first & first[_LEVEL["group"]]),
            flags.pass_last.eq(last[: _LEVEL["k0"]].all()),
            flags.job_last.eq(last[: _LEVEL["group"]].all()),
            block_last_tile.eq(last[_LEVEL["k0"] : _LEVEL["block"]].all()),
        ]

        # May this vector go?
        stopped, present = Signal(), Signal()
        needs_half, needs_step, needs_weights, outside = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            present.eq(generator.o.valid & self.go & ~stopped),
            needs_half.eq(job_first & ~self.half_free),
            needs_step.eq(self.recurrent & block_first & ~first[_LEVEL["block"]]),
            needs_weights.eq(pass_first & ~self.tile_full),
            outside.eq(~is_below(address.as_unsigned(), self.config.activation_bytes)),
            self.activation.address.eq(address),
            self.activation.valid.eq(present & ~(needs_half | needs_step | needs_weights | outside | self.pause)),
            accepted.eq(self.activation.valid & self.activation.ready),
            self.pass_start.eq(accepted & pass_first),
            self.claim.eq(accepted & job_first),
            self.wait_post.eq(present & (needs_half | (self.pause & ~needs_step & ~needs_weights))),
            self.wait_weights.eq(present & ~needs_half & ~needs_step & needs_weights),
            self.wait_activations.eq(self.activation.valid & ~self.activation.ready),
        ]

        m.d.sync += self.restart.eq(self.start | (self.pass_start & block_last_tile))

        # Errors: in the order of the loops, so weights before activations.
        bad_weights = pass_first & self.bad_weights
        bad_activation = outside & ~needs_weights
        m.d.sync += [self.error.eq(0), self.done.eq(accepted & last.all())]
        with m.If(present & ~needs_half & ~needs_step & (bad_weights | bad_activation)):
            m.d.sync += [stopped.eq(1), self.error.eq(1)]
            m.d.sync += self.error_code.eq(Mux(bad_weights, ErrorCode.WEIGHT_ADDRESS, ErrorCode.ACTIVATION_ADDRESS))
        return m
