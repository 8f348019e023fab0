"""Adapter between the UltraScale+ hard block PCIE4 and the TLP endpoint."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, ResetInserter, Signal
from amaranth.lib.wiring import In, Out, Signature, connect, flipped

from systola_hdl.pcie.adapters.adapter import HardBlockAdapter
from systola_hdl.pcie.adapters.axi_stream import AxiStream
from systola_hdl.pcie.adapters.non_posted_credit import NonPostedCredit
from systola_hdl.pcie.adapters.ultrascale_receive import CQ_USER_BITS, RC_USER_BITS, CompletionReceiver, RequestReceiver
from systola_hdl.pcie.adapters.ultrascale_transmit import (
    CC_USER_BITS,
    RQ_USER_BITS,
    SEQUENCE_BITS,
    CompletionSender,
    RequestSender,
)
from systola_hdl.pcie.tlp.arbiter import TlpArbiter
from systola_hdl.pcie.tlp.header import is_completion

__all__ = ["UltrascaleAdapter", "UltrascalePins"]


class UltrascalePins(Signature):
    """The hard block's user side, as far as it is used; initiator is the hard block. Names are those of PG213's tables.

    The block is to be set up with 64-bit interfaces aligned to dwords, without straddling, with client tags and one
    function with one MSI vector. Its ``user_clk`` is the clock of the ``sync`` domain. ``user_reset``, which is active
    whenever the link is down, is not that domain's reset: the engine keeps running through a reset of the link, and
    reports to the host which transfers it cut off.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "user_lnk_up": Out(1),
                "user_reset": Out(1),
                "cq": Out(AxiStream(CQ_USER_BITS)),
                "rc": Out(AxiStream(RC_USER_BITS)),
                "cc": In(AxiStream(CC_USER_BITS)),
                "rq": In(AxiStream(RQ_USER_BITS)),
                "pcie_cq_np_req": In(2),
                "pcie_rq_seq_num0": Out(SEQUENCE_BITS),
                "pcie_rq_seq_num_vld0": Out(1),
                "cfg_bus_number": Out(8),
                "cfg_max_payload": Out(2),
                "cfg_max_read_req": Out(3),
                "cfg_rcb_status": Out(4),
                "cfg_function_status": Out(16),
                "cfg_interrupt_msi_enable": Out(4),
                "cfg_interrupt_msi_int": In(32),
                "cfg_interrupt_msi_sent": Out(1),
                "cfg_interrupt_msi_fail": Out(1),
            }
        )


class UltrascaleAdapter(HardBlockAdapter):
    """Four streams with descriptors on one side, two streams of TLPs on the other.

    **Order.** The hard block keeps RQ, CC and the interrupt apart, and may let a completion or a message pass a write
    that it was given before. The standard forbids that, and a host that reads "done" from a register, or is
    interrupted, would read old data. So each write carries a sequence number, and a completion or an MSI waits until
    the hard block has returned the last one.

    Resources: no multiplier, no block RAM. Latency: one cycle a stream, two for CQ.
    """

    def __init__(self, non_posted_requests: int = 1) -> None:
        super().__init__(UltrascalePins(), non_posted_requests)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.requests = requests = RequestReceiver()
        m.submodules.completions = completions = CompletionReceiver()
        m.submodules.arbiter = arbiter = TlpArbiter()
        connect(m, requests.cq, flipped(self.pins.cq))
        connect(m, completions.rc, flipped(self.pins.rc))
        connect(m, requests.o, arbiter.i0)
        connect(m, completions.o, arbiter.i1)
        connect(m, arbiter.o, flipped(self.rx))
        drained, answered = self._build_transmitter(m)
        self._build_credit(m, answered, requests.dropped)
        self._build_function(m, drained)
        return ResetInserter(~self.function.link_up)(m)

    def _build_transmitter(self, m: Module) -> tuple[Signal, Signal]:
        """Both transmitters; returns whether all writes have left, and a pulse for each completion."""
        m.submodules.request_sender = requests = RequestSender()
        m.submodules.completion_sender = completions = CompletionSender()
        connect(m, requests.rq, flipped(self.pins.rq))
        connect(m, completions.cc, flipped(self.pins.cc))

        tx = self.tx.payload
        number = Signal(SEQUENCE_BITS, init=1)  # of the next write, never 0; requests other than writes have 0
        returned = Signal(SEQUENCE_BITS)
        last_sent = Signal(SEQUENCE_BITS)
        drained = Signal()
        writing = Signal()
        to_completions = Signal()
        routed = Signal()  # the value of `to_completions` for the TLP under way
        m.d.comb += drained.eq(last_sent == returned)
        with m.If(tx.first):
            m.d.comb += to_completions.eq(is_completion(tx.data))
        with m.Else():
            m.d.comb += to_completions.eq(routed)
        blocked = tx.first & ~drained
        m.d.comb += [requests.i.payload.eq(tx), completions.i.payload.eq(tx)]
        with m.If(to_completions):
            m.d.comb += [completions.i.valid.eq(self.tx.valid & ~blocked), self.tx.ready.eq(completions.i.ready & ~blocked)]
        with m.Else():
            m.d.comb += [requests.i.valid.eq(self.tx.valid), self.tx.ready.eq(requests.i.ready)]
        with m.If(self.tx.valid & self.tx.ready):
            m.d.sync += routed.eq(to_completions)
            with m.If(~to_completions & tx.first):
                m.d.sync += writing.eq(tx.data[30])  # Fmt: with data
                with m.If(tx.data[30]):
                    m.d.sync += last_sent.eq(number)
                    m.d.sync += number.eq(Mux(number.all(), 1, number + 1))
        with m.If(self.pins.pcie_rq_seq_num_vld0 & (self.pins.pcie_rq_seq_num0 != 0)):
            m.d.sync += returned.eq(self.pins.pcie_rq_seq_num0)
        m.d.comb += requests.sequence.eq(Mux(writing, last_sent, 0))
        answered = Signal()
        m.d.comb += answered.eq(self.tx.valid & self.tx.ready & tx.last & to_completions)
        return drained, answered

    def _build_credit(self, m: Module, answered: Signal, dropped: Signal) -> None:
        m.submodules.credit = credit = NonPostedCredit(self.non_posted_requests)
        m.d.comb += [credit.answered.eq(answered), credit.dropped.eq(dropped), self.pins.pcie_cq_np_req.eq(credit.request)]

    def _build_function(self, m: Module, drained: Signal) -> None:
        """State of the function, and the handshake of the interrupt."""
        pins, function = self.pins, self.function
        m.d.comb += [
            function.link_up.eq(pins.user_lnk_up & ~pins.user_reset),
            function.function_id.eq(Cat(Const(0, 8), pins.cfg_bus_number)),
            function.max_payload.eq(pins.cfg_max_payload),
            function.max_read_request.eq(pins.cfg_max_read_req),
            function.read_completion_boundary.eq(pins.cfg_rcb_status[0]),
            function.bus_master_enable.eq(pins.cfg_function_status[2]),
            function.msi.enable.eq(pins.cfg_interrupt_msi_enable[0]),
        ]
        with m.FSM():
            with m.State("idle"):
                with m.If(function.msi.request):
                    with m.If(~function.msi.enable):
                        m.d.comb += function.msi.acknowledge.eq(1)  # MSI was disabled meanwhile: the event is lost
                    with m.Elif(drained):
                        m.d.comb += pins.cfg_interrupt_msi_int[0].eq(1)
                        m.next = "sending"
            with m.State("sending"):
                m.d.comb += function.msi.acknowledge.eq(pins.cfg_interrupt_msi_sent)
                with m.If(pins.cfg_interrupt_msi_sent | pins.cfg_interrupt_msi_fail):
                    m.next = "idle"  # after a failure, the request is still there and is tried again
