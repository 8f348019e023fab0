"""Consistent-overhead byte stuffing as streams: frames of arbitrary bytes become bytes without zeros, ended by one zero.

S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (2), 1999.
"""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["CobsDecoder", "CobsEncoder", "FrameByte"]

#: Code of a block of 254 bytes that no zero follows: the longest.
LONGEST = 255


class FrameByte(data.Struct):
    """One element of a stream of frames: a byte, or (``end``) the end of a frame, which carries no byte."""

    byte: unsigned(8)
    end: unsigned(1)
    error: unsigned(1)  #: with ``end``: the frame's code was broken


class CobsDecoder(Component):
    """Remove the stuffing. A zero always ends the frame, so the decoder finds its place again after any garbage.

    Combinational from ``i`` to ``o``, one byte a cycle: a code byte becomes the zero it stands for (or nothing), a data byte
    itself, a zero the end of the frame. The end has ``error`` if the zero came inside a block.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(FrameByte))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        left = Signal(8)  # data bytes of the block still to come
        zero_follows = Signal()  # the next code byte stands for a zero (not at the start, nor after a longest block)
        emit = Signal()
        is_end, is_code = self.i.payload == 0, left == 0
        m.d.comb += [
            self.o.payload.byte.eq(Mux(is_code, 0, self.i.payload)),
            self.o.payload.end.eq(is_end),
            self.o.payload.error.eq(is_end & ~is_code),
            emit.eq(is_end | ~is_code | zero_follows),
            self.o.valid.eq(self.i.valid & emit),
            self.i.ready.eq(self.o.ready | ~emit),
        ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(is_end):
                m.d.sync += [left.eq(0), zero_follows.eq(0)]
            with m.Elif(is_code):
                m.d.sync += [left.eq(self.i.payload - 1), zero_follows.eq(self.i.payload != LONGEST)]
            with m.Else():
                m.d.sync += left.eq(left - 1)
        return m


class CobsEncoder(Component):
    """Stuff frames of any length, and end each with a zero.

    The code byte of a block is known only at the block's end, so bytes go through a ring of ``2 * 256`` bytes in which the place of
    the code is left open. A zero of the frame needs no place of its own: it is the place of the next code. So every byte takes
    one cycle, the end of a frame two, and a block of 254 bytes one more. Latency is that of the longest block.
    """

    i: In(stream.Signature(FrameByte))
    o: Out(stream.Signature(8))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        bits = 9
        m.submodules.ring = ring = Memory(shape=8, depth=1 << bits, init=[])
        write, read = ring.write_port(), ring.read_port()
        code_at, free_at = Signal(bits), Signal(bits, init=1)  # place of the open code byte; next free place
        count = Signal(8, init=1)  # the open block's code so far
        closed = Signal(bits)  # everything before is complete and may be sent
        sent = Signal(bits)
        room = Signal(bits)
        m.d.comb += room.eq(sent - free_at - 1)
        taken = self.i.payload

        with m.FSM():
            with m.State("BYTES"):
                with m.If(self.i.valid & (room > 2)):
                    with m.If(taken.end | (count == LONGEST) | (taken.byte == 0)):
                        m.d.comb += [write.en.eq(1), write.addr.eq(code_at), write.data.eq(count)]
                        with m.If(taken.end):
                            m.next = "DELIMITER"
                        with m.Else():
                            # After a longest block the byte itself is still to be taken, in the next cycle.
                            m.d.comb += self.i.ready.eq(count != LONGEST)
                            m.d.sync += [code_at.eq(free_at), closed.eq(free_at), free_at.eq(free_at + 1), count.eq(1)]
                    with m.Else():
                        m.d.comb += [write.en.eq(1), write.addr.eq(free_at), write.data.eq(taken.byte), self.i.ready.eq(1)]
                        m.d.sync += [free_at.eq(free_at + 1), count.eq(count + 1)]
            with m.State("DELIMITER"):
                m.d.comb += [write.en.eq(1), write.addr.eq(free_at), write.data.eq(0), self.i.ready.eq(1)]
                m.d.sync += [code_at.eq(free_at + 1), closed.eq(free_at + 1), free_at.eq(free_at + 2), count.eq(1)]
                m.next = "BYTES"

        # Read ahead by one: `read.data` is the byte at `sent` while `valid`.
        valid, following = Signal(), Signal(bits)
        m.d.comb += [
            following.eq(Mux(self.o.valid & self.o.ready, sent + 1, sent)),
            read.addr.eq(following),
            self.o.payload.eq(read.data),
            self.o.valid.eq(valid),
        ]
        m.d.sync += [sent.eq(following), valid.eq(following != closed)]
        return m
