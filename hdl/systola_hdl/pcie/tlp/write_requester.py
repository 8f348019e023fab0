"""Our writes to the host's memory."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect

from systola_firmware.spec.dma import DmaError
from systola_hdl.common.skid_buffer import SkidBuffer
from systola_hdl.host.host_port import DMA_ERROR, HostPort
from systola_hdl.pcie.tlp.header import FIRST_DWORD, LARGEST_SEGMENT, REQUEST_DWORD, TypeField, swap_bytes
from systola_hdl.pcie.tlp.splitter import SEGMENT, RequestSplitter
from systola_hdl.pcie.tlp.stream import TlpStream
from systola_hdl.pcie.tlp.write_aligner import WriteAligner

__all__ = ["WriteRequester"]

_QUEUE_WORDS = LARGEST_SEGMENT // 4


@dataclass(frozen=True)
class _Sender:
    """What the parts of a :class:`WriteRequester` share.

    ``at_hand``: the ``SEGMENT`` that is sent or discarded; ``long``: its header has four dwords. ``begin``: the
    splitter's segment takes its place; ``enough``: it may, as all its words are in the queue; ``refusal``: the
    ``DMA_ERROR`` with which it is then discarded. ``words``: from the queue; ``word``: the next, as a TLP has it;
    ``take``: it is taken in this cycle. ``left``: dwords that are left to send, or words to discard. ``code``: error of
    the transfer so far; ``down``: the link was down during the transfer.
    """

    splitter: RequestSplitter
    at_hand: data.View
    long: Value
    begin: Signal
    enough: Signal
    refusal: Signal
    words: SkidBuffer
    word: Signal
    take: Signal
    left: Signal
    code: Signal
    down: Signal


class WriteRequester(Component):
    """Write transfers of any length and alignment, one after another.

    The bytes are aligned as the host's memory has them and queued; a TLP begins when all its words are there, so that
    it goes out without a pause, while the queue takes the words of the next. In a TLP the payload begins in the upper
    half of a beat or in the lower, as its header has three dwords or four, and with an even or an odd dword of a word::

        header, first dword   beats                                      words
        three, odd            h0 h1 | h2 d1 | d2 d3 | …                  as they are, less half of the first word
        four, even            h0 h1 | h2 h3 | d0 d1 | …                  as they are
        three, even           h0 h1 | h2 d0 | d1 d2 | …                  shifted by a dword
        four, odd             h0 h1 | h2 h3 | d1 d2 | …                  shifted by a dword

    Throughput: 34 beats for 256 bytes, no cycle between two TLPs of a transfer.

    A segment that cannot be sent, because the link is down or was down during this transfer, or because Bus Master
    Enable is off, is taken from the queue and discarded, and so is the rest of its transfer.

    Members
    -------
    write, write_data, write_done:
        As in :class:`~systola_hdl.host.host_port.HostPort`.
    o: Out(TlpStream())
        Memory writes.
    function_id, wide, bus_master_enable, link_up: In
        Parts of the function's state; ``wide``: a payload may have 256 bytes, else 128.
    """

    write: In(stream.Signature(HostPort.TRANSFER))
    write_data: In(stream.Signature(HostPort.WRITE_DATA))
    write_done: Out(stream.Signature(HostPort.WRITE_DONE))
    o: Out(TlpStream())
    function_id: In(16)
    wide: In(1)
    bus_master_enable: In(1)
    link_up: In(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        splitter, words, queued = self._build_queue(m)
        word, enough, take = Signal(64), Signal(), Signal()
        begin = Signal()
        m.d.comb += [word.eq(swap_bytes(words.o.payload)), words.o.ready.eq(take)]
        at_hand, left, held = Signal(SEGMENT), Signal(7), Signal(32)
        code, down = Signal(DMA_ERROR), Signal()
        refusal = Signal(DMA_ERROR)
        long = at_hand.long
        s = _Sender(splitter, at_hand, long, begin, enough, refusal, words, word, take, left, code, down)

        shifted = Signal()  # the payload is shifted by a dword against the words of the queue
        m.d.comb += [shifted.eq(long == at_hand.address[2])]
        self._build_enough(m, s, queued)
        with m.If(~self.link_up):
            m.d.sync += down.eq(1)
        header = self._build_header(m, s)
        with m.If(take):
            m.d.sync += held.eq(word[32:])
        self._build_refusal(m, s)
        sends = self._build_states(m, s, header, shifted, held)
        # This stands behind the states because it overrides their assignments to `left`.
        segment = splitter.o.payload
        with m.If(begin):
            m.d.comb += splitter.o.ready.eq(1)
            m.d.sync += [at_hand.eq(segment), code.eq(refusal), left.eq(segment.words)]
            with m.If(segment.first):
                m.d.sync += down.eq(~self.link_up)
        m.d.comb += [
            self.o.valid.eq(sends),
            self.write_done.payload.error_code.eq(Mux((code == DmaError.NONE) & down, DmaError.LINK_DOWN, code)),
            self.write_done.payload.error.eq(down | (code != DmaError.NONE)),
        ]
        return m

    def _build_queue(self, m: Module) -> tuple[RequestSplitter, SkidBuffer, Value]:
        """Split a transfer into segments and queue its aligned bytes. Return the splitter, the words behind the queue,
        and whether a word enters it in this cycle."""
        m.submodules.splitter = splitter = RequestSplitter()
        m.submodules.aligner = aligner = WriteAligner()
        m.submodules.queue = queue = SyncFIFOBuffered(width=64, depth=_QUEUE_WORDS)
        connect(m, aligner.o, queue.w_stream)
        m.d.comb += [
            splitter.wide.eq(self.wide),
            splitter.i.payload.eq(self.write.payload),
            aligner.command.payload.eq(self.write.payload),
            splitter.i.valid.eq(self.write.valid & aligner.command.ready),
            aligner.command.valid.eq(self.write.valid & splitter.i.ready),
            self.write.ready.eq(splitter.i.ready & aligner.command.ready),
            aligner.i.payload.eq(self.write_data.payload),
            aligner.i.valid.eq(self.write_data.valid),
            self.write_data.ready.eq(aligner.i.ready),
        ]
        m.submodules.words = words = SkidBuffer(64)
        connect(m, queue.r_stream, words.i)
        return splitter, words, aligner.o.valid & aligner.o.ready

    def _build_enough(self, m: Module, s: _Sender, queued: Value) -> None:
        """A segment may begin when all its words have been in the queue for at least two cycles: so long does a word
        take to the skid buffer's output. ``queued``: a word enters the queue."""
        segment = s.splitter.o.payload
        entered, available = Signal(2), Signal(range(_QUEUE_WORDS + 4))
        m.d.sync += [
            entered.eq(Cat(queued, entered)),
            available.eq(available + entered[1] - Mux(s.begin, segment.words, 0)),  # words of no segment begun yet
            s.enough.eq(s.splitter.o.valid & (available >= segment.words) & ~s.begin),
        ]

    def _build_header(self, m: Module, s: _Sender) -> Value:
        """The first two dwords of the header of the segment at hand."""
        at_hand = s.at_hand
        first, second = Signal(FIRST_DWORD), Signal(REQUEST_DWORD)
        m.d.comb += [
            first.with_data.eq(1),
            first.long.eq(s.long),
            first.type.eq(TypeField.MEMORY),
            first.length.eq(at_hand.dwords),
            second.eq(Cat(at_hand.first_be, at_hand.last_be)),
            second.requester.eq(self.function_id),
            self.o.payload.keep.eq(3),
        ]
        return Cat(first, second)

    def _build_refusal(self, m: Module, s: _Sender) -> None:
        """Why the splitter's segment cannot be sent. Once a transfer is refused, so is the rest of it."""
        first, code, refusal = s.splitter.o.payload.first, s.code, s.refusal
        m.d.comb += refusal.eq(Mux(first, DmaError.NONE, code))
        with m.If(~self.link_up | (s.down & ~first)):
            m.d.comb += refusal.eq(DmaError.LINK_DOWN)
        with m.Elif(~self.bus_master_enable & (first | (code == DmaError.NONE))):
            m.d.comb += refusal.eq(DmaError.BUS_MASTER_DISABLED)

    def _build_states(self, m: Module, s: _Sender, header: Value, shifted: Signal, held: Signal) -> Value:
        """Send or discard one segment after another, and report the end of a transfer. Return whether a TLP is sent.

        ``header``: its first two dwords. ``shifted``: the payload is shifted by a dword against the words of the queue,
        and ``held`` has the dword before ``s.word``.
        """
        o, at_hand, long, left, take = self.o.payload, s.at_hand, s.long, s.left, s.take
        low, high = s.word[:32], s.word[32:]
        third, fourth = Cat(Const(0, 2), at_hand.address[2:32]), at_hand.address[32:]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                self._follow(m, s)
            with m.State("DISCARD"):
                m.d.comb += take.eq(s.words.o.valid)
                with m.If(s.words.o.valid):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        self._end_segment(m, s)
            with m.State("HEADER"):
                m.d.comb += [o.first.eq(1), o.data.eq(header)]
                with m.If(self.o.ready):
                    m.next = "ADDRESS"
                with m.Elif(~self.link_up):  # this TLP must not be sent when the link is up again
                    m.next = "DISCARD"
            with m.State("ADDRESS"):
                m.d.comb += o.data.eq(Mux(long, Cat(fourth, third), Cat(third, Mux(at_hand.address[2], high, low))))
                m.d.comb += o.last.eq(~long & (at_hand.dwords == 1))
                with m.If(self.o.ready):
                    m.d.comb += take.eq(~long | at_hand.address[2])
                    m.d.sync += left.eq(at_hand.dwords - ~long)
                    m.next = "DATA"
                    with m.If(o.last):
                        self._end_segment(m, s)
            with m.State("DATA"):
                m.d.comb += [
                    o.data.eq(Mux(shifted, Cat(held, low), s.word)),
                    o.keep.eq(Mux(left == 1, 1, 3)),
                    o.last.eq(left <= 2),
                ]
                with m.If(self.o.ready):
                    m.d.comb += take.eq(~shifted | (left != 1))
                    m.d.sync += left.eq(left - 2)
                    with m.If(o.last):
                        self._end_segment(m, s)
            with m.State("DONE"):
                m.d.comb += self.write_done.valid.eq(1)
                with m.If(self.write_done.ready):
                    m.next = "IDLE"
        return fsm.ongoing("HEADER") | fsm.ongoing("ADDRESS") | fsm.ongoing("DATA")

    def _follow(self, m: Module, s: _Sender) -> None:
        """In a state: begin with the next segment, if it is there."""
        m.next = "IDLE"
        with m.If(s.enough):
            m.d.comb += s.begin.eq(1)
            m.next = "HEADER"
            with m.If(s.refusal != DmaError.NONE):
                m.next = "DISCARD"

    def _end_segment(self, m: Module, s: _Sender) -> None:
        """In a state: the segment at hand ends; behind the last of a transfer, nothing begins before ``write_done``."""
        self._follow(m, s)
        with m.If(s.at_hand.last):
            m.d.comb += s.begin.eq(0)
            m.next = "DONE"
