"""To the UltraScale+ hard block: raw TLPs become its streams RQ (our requests) and CC (completions for the host)."""

from typing import Any

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.pcie.adapters.axi_stream import AxiStream
from systola_hdl.pcie.adapters.ultrascale_descriptors import (
    completion_descriptor,
    request_descriptor,
)
from systola_hdl.pcie.tlp.header import COMPLETION_HEADER, REQUEST_HEADER, swap_bytes
from systola_hdl.pcie.tlp.stream import TlpStream

__all__ = ["CC_USER_BITS", "RQ_USER_BITS", "SEQUENCE_BITS", "CompletionSender", "RequestSender"]

#: Widths of ``tuser`` (PG213, tables of the AXI4-Stream interfaces).
RQ_USER_BITS = 62
CC_USER_BITS = 33
#: Width of a sequence number, with which the hard block says that a request has left.
SEQUENCE_BITS = 6

_RQ_DISCONTINUE = 11
_RQ_SEQUENCE_LOW, _RQ_SEQUENCE_HIGH = 24, 60  # lowest bits of its two fields, of four and two bits
_CC_DISCONTINUE = 0

_HELD = data.StructLayout({"data": 64, "keep": 2, "first": 1, "last": 1, "error": 1})


class _Held:
    """The stream's beats, each held for a cycle at least, so that it can be combined with the beat behind it.

    Attributes
    ----------
    beat:
        What is held, in a cycle with :attr:`valid`.
    header:
        First beat of its TLP, from the cycle after it moved on.
    moves:
        To be driven: the held beat is consumed in this cycle.
    """

    def __init__(self, m: Module, stream: Any) -> None:
        self.beat = Signal(_HELD)
        self.valid = Signal()
        self.header = Signal(64)
        self.moves = Signal()
        m.d.comb += stream.ready.eq(~self.valid | self.moves)
        with m.If(self.moves):
            m.d.sync += self.valid.eq(0)
            with m.If(self.beat.first):
                m.d.sync += self.header.eq(self.beat.data)
        with m.If(stream.valid & stream.ready):
            m.d.sync += self.valid.eq(1)
            m.d.sync += [getattr(self.beat, name).eq(stream.payload[name]) for name, _field in _HELD]


class CompletionSender(Component):
    """TLPs to CC, a beat a cycle. The descriptor's first beat waits for the header's second one, which has half of its
    fields.

    Members
    -------
    i: In(TlpStream)
        Completions.
    cc: Out(AxiStream)
        ``tuser`` [0] is discontinue.
    """

    i: In(TlpStream())
    cc: Out(AxiStream(CC_USER_BITS))

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        held = _Held(m, self.i)
        beat = held.beat
        second = Signal()
        payload = swap_bytes(beat.data)
        header = Signal(COMPLETION_HEADER)
        m.d.comb += header.eq(Mux(beat.first, Cat(beat.data, self.i.payload.data[:32]), Cat(held.header, beat.data[:32])))
        descriptor = Value.cast(completion_descriptor(m, header))
        m.d.comb += [
            self.cc.tvalid.eq(held.valid & (~beat.first | self.i.valid)),
            self.cc.tkeep.eq(beat.keep),
            self.cc.tlast.eq(beat.last),
            self.cc.tuser[_CC_DISCONTINUE].eq(beat.error),
            held.moves.eq(self.cc.tvalid & self.cc.tready),
        ]
        with m.If(beat.first):
            m.d.comb += self.cc.tdata.eq(descriptor[:64])
        with m.Else():
            m.d.comb += self.cc.tdata.eq(Cat(Mux(second, descriptor[64:], payload[:32]), payload[32:]))
        with m.If(held.moves):
            m.d.sync += second.eq(beat.first)
        return m


class RequestSender(Component):
    """TLPs to RQ, a beat a cycle; one more for a TLP of three header dwords and an odd number of payload dwords.

    The descriptor has four dwords, so behind a header of three the payload moves: an output beat is the upper half of
    the beat before and the lower half of that which is held.

    Members
    -------
    i: In(TlpStream)
        Memory requests.
    rq: Out(AxiStream)
        ``tuser`` [3:0] and [7:4] are the first and last byte enables, [11] is discontinue, [27:24] and [61:60] the
        sequence number.
    sequence: In(6)
        Number for the request that begins.
    """

    i: In(TlpStream())
    rq: Out(AxiStream(RQ_USER_BITS))
    sequence: In(SEQUENCE_BITS)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        held = _Held(m, self.i)
        beat = held.beat
        second = Signal()
        flush = Signal()  # the last payload dword of the TLP is in `upper`, and is sent in a beat of its own
        failed = Signal()
        upper = Signal(32)  # the upper half of the beat before
        payload = swap_bytes(beat.data)

        sequence = Signal(SEQUENCE_BITS)
        kept_sequence = Signal(SEQUENCE_BITS)
        m.d.comb += sequence.eq(Mux(beat.first & ~flush, self.sequence, kept_sequence))

        header = Signal(REQUEST_HEADER)
        address = Signal(64)
        m.d.comb += header.eq(Mux(beat.first & ~flush, beat.data, held.header))
        coming = self.i.payload.data
        m.d.comb += address.eq(Mux(header.long, Cat(coming[32:], coming[:32]), coming[:32]))
        descriptor = Value.cast(request_descriptor(m, header, address))
        shifted = ~header.long

        ends = Signal()
        m.d.comb += ends.eq(beat.last & ~(shifted & beat.keep[1]))
        m.d.comb += [
            self.rq.tvalid.eq(flush | (held.valid & (~beat.first | self.i.valid))),
            self.rq.tuser[:8].eq(Cat(header.first_be, header.last_be)),
            self.rq.tuser[_RQ_DISCONTINUE].eq(failed | (held.valid & ~flush & beat.error)),
            self.rq.tuser[_RQ_SEQUENCE_LOW : _RQ_SEQUENCE_LOW + 4].eq(sequence[:4]),
            self.rq.tuser[_RQ_SEQUENCE_HIGH : _RQ_SEQUENCE_HIGH + 2].eq(sequence[4:]),
            self.rq.tkeep.eq(0b11),
            self.rq.tlast.eq(ends),
        ]
        with m.If(flush):
            m.d.comb += [self.rq.tdata.eq(upper), self.rq.tkeep.eq(0b01), self.rq.tlast.eq(1)]
        with m.Elif(beat.first):
            m.d.comb += self.rq.tdata.eq(descriptor[:64])
        with m.Elif(second):
            m.d.comb += self.rq.tdata.eq(descriptor[64:])
        with m.Elif(shifted):
            m.d.comb += self.rq.tdata.eq(Cat(upper, payload[:32]))
        with m.Else():
            m.d.comb += [self.rq.tdata.eq(payload), self.rq.tkeep.eq(beat.keep)]

        with m.If(self.rq.tvalid & self.rq.tready):
            m.d.comb += held.moves.eq(~flush)
            m.d.sync += [
                kept_sequence.eq(sequence),
                flush.eq(0),
                second.eq(beat.first & ~flush),
                failed.eq(self.rq.tuser[_RQ_DISCONTINUE] & ~self.rq.tlast),
            ]
            with m.If(~flush):
                m.d.sync += [upper.eq(payload[32:]), flush.eq(beat.last & ~ends)]
        return m
