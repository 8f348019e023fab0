"""The device's end of the framed byte link: bytes in, bus accesses, bytes out."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.link import CRC_BYTES, HEADER_BYTES, MAX_WORDS, LinkStatus
from systola_hdl.host.bus import Bus
from systola_hdl.link.crc import LinkCrc
from systola_hdl.link.reader import RESPONSE_BITS, LinkReader
from systola_hdl.link.request import LinkRequest

__all__ = ["Link"]

#: `count` before a frame, of which each byte adds 1: it ends as the number of data bytes, 0 if there are header and CRC
#: alone.
_COUNT_INIT = -(HEADER_BYTES + CRC_BYTES) % 256
#: Address of a response's first byte in the response memory; before it lies the first code byte.
_HEADER_AT = 1
_STATUS_AT, _EXPECTED_AT = _HEADER_AT + 1, _HEADER_AT + 3


@dataclass(frozen=True)
class _Work:
    """Blocks and registers of the link that its states share; each is described where it is made."""

    reader: LinkReader
    request: LinkRequest
    crc: LinkCrc
    access: Any
    response: Any
    count: Signal
    end: Signal
    code_at: Signal
    distance: Signal
    word: Signal
    bad_code: Signal
    bad_address: Signal
    in_address: Signal
    answer: Signal
    outstanding: Signal
    turn: Signal
    load_address: Signal
    stepping: Signal
    shift: Signal
    append: Signal


class Link(Component):
    """Serve the protocol of :mod:`systola_firmware.spec.link`, in few cells rather than few cycles: the line brings
    only a few bytes a microsecond.

    One state machine does these steps one after another, while the ring keeps taking bytes from the line::

        check     read a frame from the ring: length and CRC; a bad one is released and forgotten
        execute   read it again: header, then for each word four bytes and an access of the bus
        close     read the response from its memory: append the CRC, replace each zero by the distance to the next
        send      read the response once more

    Nothing of a frame is executed before all of it has been checked. Each of the four steps reads its frame at two
    cycles a byte, check and execute the request, close and send the response. For each word, a WRITE adds the cycles of
    an access of the bus, a READ four cycles more than that. So the longest frames take 5 cycles a byte and a quarter of
    an access.

    The response to an executed READ always carries ``count`` words, zeros from the first bad address on; no word after
    a bad address is accessed.

    Members
    -------
    i: In(stream of 8 bits)
        Bytes from the host; :data:`~systola_firmware.spec.link.RECEIVE_BUFFER_BYTES` are held.
    o: Out(stream of 8 bits)
        Bytes to the host.
    bus:
        The accesses, one at a time.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    bus: Out(Bus())

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = LinkReader()
        m.submodules.request = request = LinkRequest()
        m.submodules.crc = crc = LinkCrc()
        connect(m, flipped(self.i), reader.i)
        count = Signal(8, init=_COUNT_INIT)  # bytes of data, up while they are counted, down while they are transferred
        end = Signal(RESPONSE_BITS)  # address behind the response's last byte
        code_at = Signal(RESPONSE_BITS)  # address of the response's last code byte
        distance = Signal(RESPONSE_BITS)  # from `code_at` to the byte that the reader shows
        m.d.sync += distance.eq(reader.place + ~code_at)
        word, address = Signal(32), Signal(32)
        bad_code, bad_address = Signal(), Signal()
        in_address, answer = Signal(), Signal()
        access, response = self.bus.request, self.bus.response
        m.d.comb += [
            access.payload.address.eq(address),
            access.payload.write.eq(request.is_write),
            access.payload.data.eq(word),
            self.o.payload.eq(reader.byte),
            reader.end.eq(end),
            reader.write_at.eq(end),
            reader.write_data.eq(reader.plain),
            request.word.eq(word),
            request.length.eq(count[2:]),
            crc.byte.eq(reader.plain),
            crc.start.eq(reader.restart),
        ]

        outstanding = Signal()
        m.d.comb += response.ready.eq(outstanding)
        with m.If(response.valid & outstanding):
            m.d.sync += [outstanding.eq(0), bad_address.eq(response.payload.error)]

        # The address is loaded and incremented a byte at a time, while the bytes of a word pass.
        turn, load_address, carry, stepping = Signal(), Signal(), Signal(), Signal()
        low = Signal(9)
        m.d.comb += low.eq(address[:8] + Cat(Const(0, 2), stepping & (count[:2] == 0)) + carry)
        with m.If(turn):
            m.d.sync += [address.eq(Cat(address[8:], Mux(load_address, reader.plain, low[:8]))), carry.eq(low[8] & ~load_address)]
        shift = Signal()
        with m.If(shift):
            m.d.sync += word.eq(Cat(word[8:], reader.plain))
        append = Signal()
        with m.If(append):
            m.d.comb += reader.write.eq(1)
            m.d.sync += end.eq(end + 1)

        work = _Work(
            reader=reader,
            request=request,
            crc=crc,
            count=count,
            end=end,
            code_at=code_at,
            distance=distance,
            word=word,
            bad_code=bad_code,
            bad_address=bad_address,
            in_address=in_address,
            answer=answer,
            access=access,
            response=response,
            outstanding=outstanding,
            turn=turn,
            load_address=load_address,
            stepping=stepping,
            shift=shift,
            append=append,
        )
        with m.FSM():
            self._build_check(m, work)
            self._build_execution(m, work)
            self._build_answer(m, work)
        return m

    def _build_check(self, m: Module, work: _Work) -> None:
        """Read a frame and check its CRC and its length."""
        reader, crc = work.reader, work.crc
        with m.State("BEGIN"):
            m.d.comb += reader.restart.eq(1)
            m.next = "CHECK"
        with m.State("CHECK"):
            m.d.comb += reader.take.eq(1)
            m.d.sync += work.answer.eq(0)
            with m.If(reader.taken):
                with m.If(reader.is_zero):
                    m.d.sync += work.bad_code.eq(~reader.is_code)
                    m.next = "JUDGE"
                with m.Elif(~reader.is_first):
                    m.d.comb += crc.enable.eq(1)
                    m.d.sync += work.count.eq(work.count + 1)
                    with m.If(work.count == 4 * MAX_WORDS):
                        m.next = "SKIP"
        with m.State("JUDGE"):
            m.d.comb += reader.restart.eq(1)
            with m.If(~crc.good | work.bad_code | (work.count[:2] != 0) | work.count[2:].matches(*range(MAX_WORDS + 1, 64))):
                m.d.comb += reader.release.eq(1)
                m.d.sync += work.count.eq(_COUNT_INIT)
                m.next = "CHECK"
            with m.Else():
                m.d.comb += reader.rewind.eq(1)
                m.next = "HEADER"
            m.d.sync += [work.end.eq(_HEADER_AT), work.in_address.eq(0), work.stepping.eq(0), work.bad_address.eq(0)]

    def _build_execution(self, m: Module, work: _Work) -> None:
        """Execute the request, word by word."""
        reader, request = work.reader, work.request
        with m.State("HEADER"):
            m.d.comb += [reader.take.eq(1), work.load_address.eq(1), request.look.eq(1)]
            with m.If(reader.taken & ~reader.is_first):
                m.d.comb += work.append.eq(1)
                m.d.comb += [work.shift.eq(~work.in_address), work.turn.eq(work.in_address)]
                with m.If(work.end[:2] == 0):  # the first byte's address is 1
                    m.d.sync += work.in_address.eq(1)
                    with m.If(work.in_address):
                        m.next = "DECIDE"
        with m.State("DECIDE"):
            m.d.comb += request.accept.eq(1)
            with m.If(request.is_read):
                m.d.sync += work.count.eq(request.word.count << 2)
            with m.If(request.drop):
                m.next = "SKIP"
            with m.Elif(~request.execute):
                m.next = "STATUS"
            with m.Elif(request.is_read):
                m.next = "REQUEST"
            with m.Else():
                m.next = "WORD"
        with m.State("WORD"):
            m.d.comb += reader.take.eq(1)
            with m.If(reader.taken):
                m.d.comb += [work.shift.eq(1), work.turn.eq(1)]
                m.d.sync += work.count.eq(work.count - 1)
                with m.If(work.count[:2] == 1):
                    m.next = "REQUEST"
        with m.State("REQUEST"):
            # The access that writes a word goes on while the bytes of the next word come.
            m.d.comb += work.access.valid.eq(~work.outstanding & ~work.bad_address)
            m.d.sync += work.stepping.eq(1)
            with m.If(work.access.valid & work.access.ready):
                m.d.sync += work.outstanding.eq(1)
                m.next = "WORD"
                with m.If(request.is_read | (work.count == 0)):
                    m.next = "RESPONSE"
            with m.Elif(work.bad_address):
                m.next = "STATUS"
        with m.State("RESPONSE"):
            m.d.sync += work.word.eq(work.response.payload.data)
            with m.If(work.response.valid & work.outstanding):
                m.next = "STATUS"
                with m.If(request.is_read):
                    m.next = "ANSWER"
        with m.State("ANSWER"):
            m.d.comb += [
                reader.write_data.eq(Mux(work.bad_address, 0, work.word[:8])),
                work.append.eq(1),
                work.shift.eq(1),
                work.turn.eq(1),
            ]
            m.d.sync += work.count.eq(work.count - 1)
            with m.If(work.count == 1):
                m.next = "STATUS"
            with m.Elif((work.count[:2] == 1) & ~work.bad_address):
                m.next = "REQUEST"

    def _build_answer(self, m: Module, work: _Work) -> None:
        """Complete the response, stuff it and send it."""
        reader, request, crc = work.reader, work.request, work.crc
        with m.State("STATUS"):
            m.d.comb += [
                reader.write.eq(1),
                reader.write_at.eq(_STATUS_AT),
                reader.write_data.eq(Mux(work.bad_address, LinkStatus.BAD_ADDRESS, request.status)),
            ]
            m.next = "EXPECTED"
        with m.State("EXPECTED"):
            m.d.comb += [reader.write.eq(1), reader.write_at.eq(_EXPECTED_AT), reader.write_data.eq(request.expected)]
            m.d.sync += work.answer.eq(1)
            m.next = "SKIP"
        with m.State("SKIP"):
            m.d.comb += [reader.take.eq(1), reader.release.eq(reader.taken)]
            m.d.sync += [work.count.eq(_COUNT_INIT), work.code_at.eq(0)]
            with m.If(reader.taken & reader.is_zero):
                m.next = "BEGIN"
                with m.If(work.answer):
                    m.next = "TURN"
        with m.State("TURN"):
            m.d.comb += [reader.restart.eq(1), reader.skip.eq(_HEADER_AT)]
            m.next = "CLOSE"
        with m.State("CLOSE"):
            m.d.comb += [
                reader.response.eq(1),
                reader.take.eq(1),
                reader.write_at.eq(work.code_at),
                reader.write_data.eq(work.distance),
            ]
            with m.If(reader.taken):
                m.d.comb += crc.enable.eq(1)
                with m.If(reader.is_zero):
                    m.d.comb += reader.write.eq(1)
                    m.d.sync += work.code_at.eq(reader.place - 1)
                with m.If(reader.last):
                    # The first code byte and whole words make the end 1 modulo 4; CRC and delimiter make it 2.
                    with m.If(work.end[1]):
                        m.next = "CLOSED"
                    with m.Else():
                        m.next = "CLOSING"
        with m.State("CLOSING"):
            # One cycle, in which the last byte reaches the CRC.
            m.d.comb += reader.response.eq(1)
            m.next = "APPEND"
        with m.State("APPEND"):
            m.d.comb += [reader.response.eq(1), crc.shift.eq(1)]
            m.d.comb += [work.append.eq(1), reader.write_data.eq(crc.low)]
            with m.If(work.end[:2] == 0):
                m.next = "DELIMIT"
        with m.State("DELIMIT"):
            m.d.comb += [reader.response.eq(1), work.append.eq(1), reader.write_data.eq(0)]
            m.next = "CLOSE"
        with m.State("CLOSED"):
            m.d.comb += [reader.response.eq(1), reader.restart.eq(1)]
            m.next = "SEND"
        with m.State("SEND"):
            m.d.comb += [reader.response.eq(1), self.o.valid.eq(reader.valid), reader.take.eq(1), reader.hold.eq(~self.o.ready)]
            with m.If(reader.taken & reader.last):
                m.next = "BEGIN"
