"""Our writes to the host's memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
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

        # A skid buffer behind the queue. A segment may begin when all its words have been in the queue for at least two
        # cycles.
        m.submodules.words = words = SkidBuffer(64)
        connect(m, queue.r_stream, words.i)
        word, take = Signal(64), Signal()
        entered, available = Signal(2), Signal(range(_QUEUE_WORDS + 4))
        begin = Signal()
        m.d.comb += [word.eq(swap_bytes(words.o.payload)), words.o.ready.eq(take)]

        segment, at_hand, enough = splitter.o.payload, Signal(SEGMENT), Signal()
        left, held = Signal(7), Signal(32)
        code, down = Signal(DMA_ERROR), Signal()
        shifted = Signal()  # the payload is shifted by a dword against the words of the queue
        long = at_hand.long
        m.d.comb += [shifted.eq(long == at_hand.address[2])]
        m.d.sync += [
            entered.eq(Cat(aligner.o.valid & aligner.o.ready, entered)),
            available.eq(available + entered[1] - Mux(begin, segment.words, 0)),  # words of no segment begun yet
            enough.eq(splitter.o.valid & (available >= segment.words) & ~begin),
        ]
        with m.If(~self.link_up):
            m.d.sync += down.eq(1)

        o, low, high = self.o.payload, word[:32], word[32:]
        first, second = Signal(FIRST_DWORD), Signal(REQUEST_DWORD)
        m.d.comb += [
            first.with_data.eq(1),
            first.long.eq(long),
            first.type.eq(TypeField.MEMORY),
            first.length.eq(at_hand.dwords),
            second.eq(Cat(at_hand.first_be, at_hand.last_be)),
            second.requester.eq(self.function_id),
            o.keep.eq(3),
        ]
        third, fourth = Cat(Const(0, 2), at_hand.address[2:32]), at_hand.address[32:]
        with m.If(take):
            m.d.sync += held.eq(high)

        refusal = Signal(DMA_ERROR)
        m.d.comb += refusal.eq(Mux(segment.first, DmaError.NONE, code))
        with m.If(~self.link_up | (down & ~segment.first)):
            m.d.comb += refusal.eq(DmaError.LINK_DOWN)
        with m.Elif(~self.bus_master_enable & (segment.first | (code == DmaError.NONE))):
            m.d.comb += refusal.eq(DmaError.BUS_MASTER_DISABLED)
        with m.FSM() as fsm:

            def follow() -> None:
                """Begin with the next segment, if it is there."""
                m.next = "IDLE"
                with m.If(enough):
                    m.d.comb += begin.eq(1)
                    m.next = "HEADER"
                    with m.If(refusal != DmaError.NONE):
                        m.next = "DISCARD"

            def end_segment() -> None:
                follow()
                with m.If(at_hand.last):
                    m.d.comb += begin.eq(0)
                    m.next = "DONE"

            with m.State("IDLE"):
                follow()
            with m.State("DISCARD"):
                m.d.comb += take.eq(words.o.valid)
                with m.If(words.o.valid):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        end_segment()
            with m.State("HEADER"):
                m.d.comb += [o.first.eq(1), o.data.eq(Cat(first, second))]
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
                        end_segment()
            with m.State("DATA"):
                m.d.comb += [
                    o.data.eq(Mux(shifted, Cat(held, low), word)),
                    o.keep.eq(Mux(left == 1, 1, 3)),
                    o.last.eq(left <= 2),
                ]
                with m.If(self.o.ready):
                    m.d.comb += take.eq(~shifted | (left != 1))
                    m.d.sync += left.eq(left - 2)
                    with m.If(o.last):
                        end_segment()
            with m.State("DONE"):
                m.d.comb += self.write_done.valid.eq(1)
                with m.If(self.write_done.ready):
                    m.next = "IDLE"
        # This stands behind the states because it overrides their assignments to `left`.
        with m.If(begin):
            m.d.comb += splitter.o.ready.eq(1)
            m.d.sync += [at_hand.eq(segment), code.eq(refusal), left.eq(segment.words)]
            with m.If(segment.first):
                m.d.sync += down.eq(~self.link_up)
        m.d.comb += [
            self.o.valid.eq(fsm.ongoing("HEADER") | fsm.ongoing("ADDRESS") | fsm.ongoing("DATA")),
            self.write_done.payload.error_code.eq(Mux((code == DmaError.NONE) & down, DmaError.LINK_DOWN, code)),
            self.write_done.payload.error.eq(down | (code != DmaError.NONE)),
        ]
        return m
