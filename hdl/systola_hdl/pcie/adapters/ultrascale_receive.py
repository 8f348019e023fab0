"""From the UltraScale+ hard block: its streams CQ (requests of the host) and RC (completions for us) become raw
TLPs."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.pcie.adapters.axi_stream import AxiStream
from systola_hdl.pcie.adapters.ultrascale_descriptors import (
    CompleterRequest,
    ErrorCode,
    RequesterCompletion,
    RequestType,
    completion_header,
    request_header,
)
from systola_hdl.pcie.tlp.header import swap_bytes
from systola_hdl.pcie.tlp.stream import TlpStream

__all__ = ["CQ_USER_BITS", "RC_USER_BITS", "CompletionReceiver", "RequestReceiver"]

#: Widths of ``tuser`` (PG213, tables of the AXI4-Stream interfaces).
CQ_USER_BITS = 88
RC_USER_BITS = 75

_CQ_DISCONTINUE = 41
_RC_DISCONTINUE = 42


class RequestReceiver(Component):
    """CQ to TLPs. Messages are taken and dropped: they are posted, and nothing here has a use for them.

    A descriptor has four dwords; the header has three if the address is below 4 GiB, and then the payload moves up by
    one dword. Two beats come in before the first goes out: a request takes two cycles more than it has beats.

    Members
    -------
    cq: In(AxiStream)
        ``tuser`` [3:0] and [7:4] are the first and last byte enables, with the first beat, and [41] is discontinue,
        with the last.
    o: Out(TlpStream)
        ``bar_hit`` for BAR0.
    dropped: Out(1)
        Pulses when a non-posted request has ended with discontinue: the endpoint will not answer it.
    """

    cq: In(AxiStream(CQ_USER_BITS))
    o: Out(TlpStream())
    dropped: Out(1)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        beat = self.o.payload
        descriptor = Signal(CompleterRequest)
        byte_enables = Signal(8)
        ended = Signal()  # the last beat of CQ was taken: what is left of the payload, if anything, is in `carry`
        failed = Signal()
        carry = Signal(32)
        header, is_message = request_header(m, descriptor, byte_enables[:4], byte_enables[4:])
        address = Cat(0, 0, descriptor.address)
        payload = swap_bytes(self.cq.tdata)
        discontinue = self.cq.tuser[_CQ_DISCONTINUE]
        take = Signal()  # the beat at the input is consumed with that at the output
        m.d.comb += beat.bar_hit.eq(descriptor.bar_id == 0)
        m.d.comb += beat.keep.eq(0b11)

        def offer(*, next_state: str, taking: ValueLike) -> None:
            m.d.comb += [take.eq(taking), self.o.valid.eq(~take | self.cq.tvalid), self.cq.tready.eq(take & self.o.ready)]
            m.d.comb += beat.error.eq(Mux(take, discontinue, failed))
            with m.If(self.o.valid & self.o.ready):
                with m.If(take):
                    m.d.sync += [ended.eq(self.cq.tlast), carry.eq(payload[32:])]
                m.next = next_state
                with m.If(beat.last):
                    m.next = "address"

        with m.FSM():
            with m.State("address"):
                m.d.comb += self.cq.tready.eq(1)
                with m.If(self.cq.tvalid):
                    m.d.sync += [descriptor.as_value()[:64].eq(self.cq.tdata), byte_enables.eq(self.cq.tuser[:8])]
                    m.next = "descriptor"
            with m.State("descriptor"):
                m.d.comb += self.cq.tready.eq(1)
                with m.If(self.cq.tvalid):
                    m.d.sync += [descriptor.as_value()[64:].eq(self.cq.tdata), ended.eq(self.cq.tlast), failed.eq(discontinue)]
                    m.next = "header"
            with m.State("header"):
                with m.If(is_message):
                    m.next = "message"
                with m.Else():
                    m.d.comb += beat.first.eq(1)
                    m.d.comb += beat.data.eq(header.as_value())
                    offer(next_state="place", taking=0)
            with m.State("message"):
                m.d.comb += self.cq.tready.eq(~ended)
                with m.If(ended | (self.cq.tvalid & self.cq.tlast)):
                    m.next = "address"
            with m.State("place"):
                with m.If(header.long):
                    m.d.comb += [beat.data.eq(Cat(address[32:], address[:32])), beat.last.eq(ended)]
                    offer(next_state="aligned", taking=0)
                with m.Elif(ended):
                    m.d.comb += [beat.data.eq(address[:32]), beat.keep.eq(0b01), beat.last.eq(1)]
                    offer(next_state="address", taking=0)
                with m.Else():
                    m.d.comb += [beat.data.eq(Cat(address[:32], payload[:32])), beat.last.eq(self.cq.tlast & ~self.cq.tkeep[1])]
                    offer(next_state="shifted", taking=1)
            with m.State("aligned"):
                m.d.comb += [beat.data.eq(payload), beat.keep.eq(self.cq.tkeep), beat.last.eq(self.cq.tlast)]
                offer(next_state="aligned", taking=1)
            with m.State("shifted"):
                with m.If(ended):
                    m.d.comb += [beat.data.eq(carry), beat.keep.eq(0b01), beat.last.eq(1)]
                with m.Else():
                    m.d.comb += [beat.data.eq(Cat(carry, payload[:32])), beat.last.eq(self.cq.tlast & ~self.cq.tkeep[1])]
                offer(next_state="shifted", taking=~ended)
        # A request that ends with its descriptor is in the descriptor's register only in the next cycle: so all are
        # judged then.
        non_posted = ~is_message & (descriptor.request_type != RequestType.MEMORY_WRITE)
        failed_after = Signal()
        m.d.sync += failed_after.eq(self.cq.tvalid & self.cq.tready & self.cq.tlast & discontinue)
        m.d.comb += self.dropped.eq(failed_after & non_posted)
        return m


class CompletionReceiver(Component):
    """RC to TLPs, a beat a cycle. The header's first beat waits for the descriptor's second one, which has half of its
    fields.

    A descriptor has as many dwords as the header, so the payload stays where it is. Completions that the hard block
    made up, for a request that timed out or was abandoned by a reset of the function, are no TLPs: they end here, and
    :attr:`timeout` tells.

    Members
    -------
    rc: In(AxiStream)
        ``tuser`` [42] is discontinue, with the last beat.
    o: Out(TlpStream)
        Poisoned if the hard block says so.
    timeout: Out(1)
        Pulses when the hard block has given up a request.
    """

    rc: In(AxiStream(RC_USER_BITS))
    o: Out(TlpStream())
    timeout: Out(1)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        beat = self.o.payload
        held = Signal(data.StructLayout({"data": 64, "keep": 2, "last": 1, "discontinue": 1}))
        held_valid = Signal()
        first = Signal(init=1)  # the held beat is the first of its completion
        second = Signal()
        third_dword = Signal(32)  # of the header; it goes out with the second beat
        dropping = Signal()
        descriptor = data.View(RequesterCompletion, Cat(held.data, self.rc.tdata[:32]))
        header = Value.cast(completion_header(m, descriptor))
        code = descriptor.error_code
        made_up = first & ((code == ErrorCode.TIMEOUT) | (code == ErrorCode.FUNCTION_RESET))
        complete = held_valid & (~first | self.rc.tvalid)
        drop = made_up | dropping
        moves = Signal()
        m.d.comb += [
            moves.eq(complete & (drop | self.o.ready)),
            self.rc.tready.eq(~held_valid | moves),
            self.o.valid.eq(complete & ~drop),
            beat.first.eq(first),
            beat.last.eq(held.last),
            beat.keep.eq(held.keep),
            beat.error.eq(held.discontinue),
            self.timeout.eq(moves & made_up),
        ]
        payload = swap_bytes(held.data)
        with m.If(first):
            m.d.comb += beat.data.eq(header[:64])
        with m.Else():
            m.d.comb += beat.data.eq(Cat(Mux(second, third_dword, payload[:32]), payload[32:]))
        with m.If(moves):
            m.d.sync += [held_valid.eq(0), first.eq(held.last), second.eq(first), dropping.eq(drop & ~held.last)]
            with m.If(first):
                m.d.sync += third_dword.eq(header[64:])
        with m.If(self.rc.tvalid & self.rc.tready):
            m.d.sync += [
                held_valid.eq(1),
                held.data.eq(self.rc.tdata),
                held.keep.eq(self.rc.tkeep),
                held.last.eq(self.rc.tlast),
                held.discontinue.eq(self.rc.tlast & self.rc.tuser[_RC_DISCONTINUE]),
            ]
        return m
