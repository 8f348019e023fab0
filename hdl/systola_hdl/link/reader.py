"""The link's two byte memories and the one reader in front of them, which also undoes the stuffing of the line."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.spec.link import RECEIVE_BUFFER_BYTES

__all__ = ["RESPONSE_BITS", "LinkReader"]

#: Address width of the response memory: it has room for the encoded response and its delimiter.
RESPONSE_BITS = 8


class LinkReader(Component):
    """Delivers the bytes of the ring or of the response one after the other, one every two cycles at best.

    The ring holds what came over the line, undecoded, so that a frame can be read twice: ``rewind`` goes back to its
    first byte, ``release`` gives up what has been read. The memory's output is registered in ``byte``; ``is_zero`` and
    ``is_code``, which follow from it, are registered again.

    The stuffing (S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (2),
    1999) is undone by address: a code byte says how far behind it the next code byte is. A frame of this link has no
    block of 254 bytes, so every code byte but the first stands for a zero. A frame that does have such a block is
    longer, when decoded, than any good frame.

    Members
    -------
    i: In(stream of 8 bits)
        The line; :data:`~systola_firmware.spec.link.RECEIVE_BUFFER_BYTES` are held. Takes a byte a cycle.
    response: In(1)
        Read the response instead; changes only with ``restart``.
    restart: In(1)
        Forget what has been read ahead. The next byte is the first of a frame, or of the response the one at ``skip``.
    rewind, release: In(1)
        ``rewind``, with ``restart``: go back to the first byte that was not released. ``release``: release everything
        up to and including the byte taken last.
    take, hold, taken, byte, last:
        ``byte``, as it is in the memory, is consumed in a cycle with ``taken``: when there is one, ``take`` was high in
        the cycle before, and ``hold`` is low. ``last``: it is the last byte of the response.
    valid: Out(1)
        A byte is ``taken`` in this cycle unless ``hold`` is high.
    is_zero, is_code, is_first: Out(1)
        What the byte is; the bytes of a response are never codes. A zero (delimiter) that is no code came inside a
        block: the frame is broken.
    plain: Out(8)
        The decoded byte, if it is behind the first code byte and before the delimiter.
    place: Out
        Address in the response memory of the byte after this one.
    write, write_at, write_data, end:
        Write to the response memory; ``end`` is the address behind the last byte of the response. After a write to a
        byte that has been read already, ``restart``, after which it is read again, may follow two cycles later at the
        earliest.
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
        # One bit more than an address has, to tell the full ring from the empty one.
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
        # `ahead` follows two cycles after ``end`` has passed a byte; by then the byte is in the memory.
        end = Signal.like(self.end)
        m.d.sync += [
            answer_write.en.eq(self.write),
            answer_write.addr.eq(self.write_at),
            answer_write.data.eq(self.write_data),
            end.eq(self.end),
        ]
        with m.If(ring_write.en):
            m.d.sync += written.eq(written + 1)

        # `ahead`: the memory's output is the byte at the read address. `loaded`: that byte is in ``byte``, and the read
        # address has moved on; `known`, a cycle later: its flags are in their registers; `ahead` is high for the next
        # byte two cycles after `loaded`. Nothing is read ahead behind the end of a request, so that everything up to
        # the read address can be released.
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

        code_at = Signal(8)  # address behind the next code byte, modulo the longest block
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
