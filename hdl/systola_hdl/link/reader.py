"""The link's two byte memories and the one reader in front of them, which also undoes the stuffing of the line."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.spec.link import RECEIVE_BUFFER_BYTES

__all__ = ["RESPONSE_BITS", "LinkReader"]

#: The encoded response, its delimiter included, has its place among so many bytes (as a power of two).
RESPONSE_BITS = 8


class LinkReader(Component):
    """Bytes of the line's ring, or of the response, one after the other: one every two cycles at best.

    The ring holds what came over the line, undecoded, so that a frame can be read twice: ``rewind`` goes back to its
    first byte, ``release`` gives up what has been read. Between the memory's output and what is made of the byte lies a
    register, and another before what is said about it.

    The stuffing (S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (2),
    1999) is undone by place: a code byte names the place of the next one. A frame of this link has no block of 254
    bytes, so every code byte but the first stands for a zero; what comes of a frame that has such a block is longer
    than any good frame.

    Members
    -------
    i: In(stream of 8 bits)
        The line; :data:`~systola_firmware.spec.link.RECEIVE_BUFFER_BYTES` are held. Takes a byte a cycle.
    response: In(1)
        Read the response instead; changes only with ``restart``.
    restart: In(1)
        Forget what has been read ahead. The next byte is the first of a frame, or of the response the one at ``skip``.
    rewind, release: In(1)
        Go back to the last place released, with ``restart``; release everything up to and with the byte taken last.
    take, hold, taken, byte, last:
        A byte, as it is in the memory, is used in a cycle with ``taken``: that is when there is one, ``take`` was high
        in the cycle before, and ``hold`` is low. ``last`` with the last one there is (of a response).
    valid: Out(1)
        There would be a byte, but for ``hold``.
    is_zero, is_code, is_first: Out(1)
        What the byte is; a response has no codes. A zero that is no code was inside a block: the frame is broken.
    plain: Out(8)
        The byte that a byte after the first and before the end stands for.
    place: Out
        The place after the byte's in the response.
    write, write_at, write_data, end:
        Fill the response, and how far it goes. Of a byte that is read already when it is written, the next cycle but
        one may be that of the ``restart`` after which it is read again.
    """

    i: In(stream.Signature(8))
    response: In(1)
    restart: In(1)
    skip: In(1)
    rewind: In(1)
    release: In(1)
    take: In(1)
    hold: In(1)
    valid: Out(1)
    taken: Out(1)
    byte: Out(8)
    last: Out(1)
    is_zero: Out(1)
    is_code: Out(1)
    is_first: Out(1, init=1)
    plain: Out(8)
    place: Out(RESPONSE_BITS)
    write: In(1)
    write_at: In(RESPONSE_BITS)
    write_data: In(8)
    end: In(RESPONSE_BITS)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.ring = ring = Memory(shape=8, depth=RECEIVE_BUFFER_BYTES, init=[])
        m.submodules.answer = answer = Memory(shape=8, depth=1 << RESPONSE_BITS, init=[])
        ring_write, ring_read = ring.write_port(), ring.read_port()
        answer_write, answer_read = answer.write_port(), answer.read_port()
        # One bit more than a place has, to tell the full ring from the empty one.
        bits = exact_log2(RECEIVE_BUFFER_BYTES)
        written, read, kept = Signal(bits + 1), Signal(bits + 1), Signal(bits + 1)
        m.d.comb += [
            self.i.ready.eq((written[:bits] != kept[:bits]) | (written[bits] == kept[bits])),
            ring_write.en.eq(self.i.valid & self.i.ready),
            ring_write.addr.eq(written),
            ring_write.data.eq(self.i.payload),
            ring_read.addr.eq(read),
            answer_read.addr.eq(self.place),
        ]
        # Two cycles after ``end`` has passed a byte, `ahead` is the first to know of it; by then it is in the memory.
        end = Signal.like(self.end)
        m.d.sync += [
            answer_write.en.eq(self.write),
            answer_write.addr.eq(self.write_at),
            answer_write.data.eq(self.write_data),
            end.eq(self.end),
        ]
        with m.If(ring_write.en):
            m.d.sync += written.eq(written + 1)

        # `ahead`: the memory's output is the byte at the reading place. It follows a byte's `loaded`, that the place
        # moves, by two cycles; `known`, that all is known of the byte, follows it by one. Nothing is read ahead of the
        # end of a request, so that its place can be released.
        ahead, loaded, known, load, take = Signal(), Signal(), Signal(), Signal(), Signal()
        taken = self.taken
        m.d.comb += [
            self.valid.eq(known & take),
            taken.eq(self.valid & ~self.hold),
            load.eq(ahead & (~loaded | (taken & (~self.is_zero | self.response))) & ~self.restart),
            self.last.eq(~ahead),
        ]
        m.d.sync += [
            take.eq(self.take),
            ahead.eq(Mux(self.response, self.place != end, read != written) & ~load & ~self.restart),
            loaded.eq((loaded & ~taken & ~self.restart) | load),
            known.eq(loaded & ~taken & ~self.restart),
        ]
        with m.If(load):
            m.d.sync += self.byte.eq(Mux(self.response, answer_read.data, ring_read.data))
        with m.If(self.restart):
            m.d.sync += self.place.eq(self.skip)
        with m.Elif(load & self.response):
            m.d.sync += self.place.eq(self.place + 1)
        with m.If(self.rewind):
            m.d.sync += read.eq(kept)
        with m.Elif(load & ~self.response):
            m.d.sync += read.eq(read + 1)
        with m.If(self.release):
            m.d.sync += kept.eq(read)

        code_at = Signal(8)  # place after the next code byte's, modulo the longest block
        m.d.comb += self.plain.eq(Mux(self.is_code, 0, self.byte))
        m.d.sync += [
            self.is_zero.eq(self.byte == 0),
            self.is_code.eq((self.is_first | (code_at == read[:8])) & ~self.response),
        ]
        with m.If(taken):
            m.d.sync += self.is_first.eq(0)
            with m.If(self.is_code):
                m.d.sync += code_at.eq(read[:8] + self.byte)
        with m.If(self.restart):
            m.d.sync += self.is_first.eq(1)
        return m
