"""The device's end of the framed byte link: bytes in, bus accesses, bytes out."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.link import CRC_BYTES, HEADER_BYTES, MAX_WORDS, LinkStatus
from systola_hdl.host.bus import Bus
from systola_hdl.link.crc import LinkCrc
from systola_hdl.link.reader import RESPONSE_BITS, LinkReader
from systola_hdl.link.request import LinkRequest

__all__ = ["Link"]

#: `count` before a frame: a frame of a header and a CRC leaves 0, one with data its bytes.
_COUNT_INIT = -(HEADER_BYTES + CRC_BYTES) % 256
#: Place of a response's first byte; before it lies the first code byte.
_HEADER_AT = 1
_STATUS_AT, _EXPECTED_AT = _HEADER_AT + 1, _HEADER_AT + 3


class Link(Component):
    """Serve the protocol of :mod:`systola_firmware.spec.link`, in as few cells as its few bytes a microsecond allow.

    One state machine does one thing after another, and bytes keep coming into the ring meanwhile::

        check     read a frame from the ring: length and CRC; a bad one is released and forgotten
        execute   read it again: header, then for each word four bytes and an access of the bus
        close     read the response from its memory: append the CRC, replace each zero by the distance to the next
        send      read the response once more

    Nothing of a frame is executed before all of it has been checked. Two bytes of each frame's four readings are two
    cycles apart; to the WRITE of a word come the cycles of an access, to the READ four more. So the longest frames take
    5 cycles a byte and a quarter of an access.

    An executed READ always carries ``count`` words, zeros from the first bad address on; no word after a bad address is
    tried.

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
        end = Signal(RESPONSE_BITS)  # of the response
        code_at = Signal(RESPONSE_BITS)  # place of the response's last code byte
        distance = Signal(RESPONSE_BITS)  # from there to the byte that the reader shows
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

        # The address is loaded and counted a byte at a time, as the word's bytes pass.
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

        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += reader.restart.eq(1)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += reader.take.eq(1)
                m.d.sync += answer.eq(0)
                with m.If(reader.taken):
                    with m.If(reader.is_zero):
                        m.d.sync += bad_code.eq(~reader.is_code)
                        m.next = "JUDGE"
                    with m.Elif(~reader.is_first):
                        m.d.comb += crc.enable.eq(1)
                        m.d.sync += count.eq(count + 1)
                        with m.If(count == 4 * MAX_WORDS):
                            m.next = "SKIP"
            with m.State("JUDGE"):
                m.d.comb += reader.restart.eq(1)
                with m.If(~crc.good | bad_code | (count[:2] != 0) | count[2:].matches(*range(MAX_WORDS + 1, 64))):
                    m.d.comb += reader.release.eq(1)
                    m.d.sync += count.eq(_COUNT_INIT)
                    m.next = "CHECK"
                with m.Else():
                    m.d.comb += reader.rewind.eq(1)
                    m.next = "HEADER"
                m.d.sync += [end.eq(_HEADER_AT), in_address.eq(0), stepping.eq(0), bad_address.eq(0)]
            with m.State("HEADER"):
                m.d.comb += [reader.take.eq(1), load_address.eq(1), request.look.eq(1)]
                with m.If(reader.taken & ~reader.is_first):
                    m.d.comb += append.eq(1)
                    m.d.comb += [shift.eq(~in_address), turn.eq(in_address)]
                    with m.If(end[:2] == 0):  # the first byte's place is 1
                        m.d.sync += in_address.eq(1)
                        with m.If(in_address):
                            m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.comb += request.accept.eq(1)
                with m.If(request.is_read):
                    m.d.sync += count.eq(request.word.count << 2)
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
                    m.d.comb += [shift.eq(1), turn.eq(1)]
                    m.d.sync += count.eq(count - 1)
                    with m.If(count[:2] == 1):
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                # The access of a written word goes on while the next word's bytes come.
                m.d.comb += access.valid.eq(~outstanding & ~bad_address)
                m.d.sync += stepping.eq(1)
                with m.If(access.valid & access.ready):
                    m.d.sync += outstanding.eq(1)
                    m.next = "WORD"
                    with m.If(request.is_read | (count == 0)):
                        m.next = "RESPONSE"
                with m.Elif(bad_address):
                    m.next = "STATUS"
            with m.State("RESPONSE"):
                m.d.sync += word.eq(response.payload.data)
                with m.If(response.valid & outstanding):
                    m.next = "STATUS"
                    with m.If(request.is_read):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [reader.write_data.eq(Mux(bad_address, 0, word[:8])), append.eq(1), shift.eq(1), turn.eq(1)]
                m.d.sync += count.eq(count - 1)
                with m.If(count == 1):
                    m.next = "STATUS"
                with m.Elif((count[:2] == 1) & ~bad_address):
                    m.next = "REQUEST"
            with m.State("STATUS"):
                m.d.comb += [
                    reader.write.eq(1),
                    reader.write_at.eq(_STATUS_AT),
                    reader.write_data.eq(Mux(bad_address, LinkStatus.BAD_ADDRESS, request.status)),
                ]
                m.next = "EXPECTED"
            with m.State("EXPECTED"):
                m.d.comb += [reader.write.eq(1), reader.write_at.eq(_EXPECTED_AT), reader.write_data.eq(request.expected)]
                m.d.sync += answer.eq(1)
                m.next = "SKIP"
            with m.State("SKIP"):
                m.d.comb += [reader.take.eq(1), reader.release.eq(reader.taken)]
                m.d.sync += [count.eq(_COUNT_INIT), code_at.eq(0)]
                with m.If(reader.taken & reader.is_zero):
                    m.next = "BEGIN"
                    with m.If(answer):
                        m.next = "TURN"
            with m.State("TURN"):
                m.d.comb += [reader.restart.eq(1), reader.skip.eq(_HEADER_AT)]
                m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [
                    reader.response.eq(1),
                    reader.take.eq(1),
                    reader.write_at.eq(code_at),
                    reader.write_data.eq(distance),
                ]
                with m.If(reader.taken):
                    m.d.comb += crc.enable.eq(1)
                    with m.If(reader.is_zero):
                        m.d.comb += reader.write.eq(1)
                        m.d.sync += code_at.eq(reader.place - 1)
                    with m.If(reader.last):
                        # Words and the code byte make the end 1 modulo 4, the CRC and the delimiter 2.
                        with m.If(end[1]):
                            m.next = "CLOSED"
                        with m.Else():
                            m.next = "CLOSING"
            with m.State("CLOSING"):
                # The last byte's cycle on its way into the CRC.
                m.d.comb += reader.response.eq(1)
                m.next = "APPEND"
            with m.State("APPEND"):
                m.d.comb += [reader.response.eq(1), crc.shift.eq(1)]
                m.d.comb += [append.eq(1), reader.write_data.eq(crc.low)]
                with m.If(end[:2] == 0):
                    m.next = "DELIMIT"
            with m.State("DELIMIT"):
                m.d.comb += [reader.response.eq(1), append.eq(1), reader.write_data.eq(0)]
                m.next = "CLOSE"
            with m.State("CLOSED"):
                m.d.comb += [reader.response.eq(1), reader.restart.eq(1)]
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [reader.response.eq(1), self.o.valid.eq(reader.valid), reader.take.eq(1), reader.hold.eq(~self.o.ready)]
                with m.If(reader.taken & reader.last):
                    m.next = "BEGIN"
        return m
