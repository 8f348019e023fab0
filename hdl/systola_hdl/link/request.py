"""Decodes the first word of a request frame, and checks its sequence number."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.link import MAX_WORDS, LinkOperation, LinkStatus

__all__ = ["REQUEST_WORD", "LinkRequest"]

#: First word of a request.
REQUEST_WORD = data.StructLayout({"sequence": 8, "operation": 8, "count": 8, "reserved": 8})


class LinkRequest(Component):
    """Judge the first word of a request by the rules of :mod:`systola_firmware.spec.link`.

    Those rules leave one case open: a request of a known operation and a legal count whose frame has another length is
    dropped, like a frame of bad length. Results hold from two cycles after ``look`` on, while neither ``look`` nor
    ``accept`` is given.

    Members
    -------
    word, length:
        First word, and words of data that the frame carries; taken in while ``look``.
    accept: In(1)
        The judgement is acted on: ``expected`` advances.
    is_read, is_write: Out(1)
        The operation.
    drop: Out(1)
        The length is wrong.
    execute: Out(1)
        Words are to be transferred; otherwise ``status`` is all there is to say.
    status: Out
        The request's status so far.
    expected: Out(8)
        Sequence number to be executed next.
    """

    word: In(REQUEST_WORD)
    length: In(6)
    look: In(1)
    accept: In(1)
    is_read: Out(1)
    is_write: Out(1)
    drop: Out(1)
    execute: Out(1)
    status: Out(range(len(LinkStatus)))
    expected: Out(8)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        word = self.word
        behind = Signal(8)
        m.d.comb += behind.eq(self.expected - word.sequence)
        is_sync, transfer, sound = Signal(), Signal(), Signal()
        ahead, current, agrees = Signal(), Signal(), Signal()
        with m.If(self.look):
            m.d.sync += [
                self.is_read.eq(word.operation == LinkOperation.READ),
                self.is_write.eq(word.operation == LinkOperation.WRITE),
                is_sync.eq(word.operation == LinkOperation.SYNC),
                sound.eq((word.count != 0) & (word.count <= MAX_WORDS)),
                agrees.eq(self.length == Mux(word.operation == LinkOperation.WRITE, word.count[:6], 0)),
                ahead.eq(behind[7] & behind[:7].any()),  # more than 128 behind
                current.eq(behind == 0),
            ]
        m.d.comb += [
            transfer.eq((self.is_read | self.is_write) & sound),
            self.drop.eq((transfer | is_sync) & ~agrees),
            self.execute.eq(transfer & ~ahead & (self.is_read | current)),
        ]
        with m.If(~is_sync & ahead):
            m.d.comb += self.status.eq(LinkStatus.OUT_OF_ORDER)
        with m.Elif(~is_sync & ~transfer):
            m.d.comb += self.status.eq(LinkStatus.BAD_REQUEST)
        with m.If(self.accept & ~self.drop & (is_sync | current)):
            m.d.sync += self.expected.eq(word.sequence + 1)
        return m
