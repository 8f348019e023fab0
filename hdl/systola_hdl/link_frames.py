"""Frames between bytes and words: the receiver checks length and CRC, the sender appends the CRC."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.link import CRC_BYTES, HEADER_BYTES
from systola_hdl.cobs import FrameByte
from systola_hdl.frame_buffer import FRAME_WORDS

__all__ = ["FrameReceiver", "FrameSender"]

_HEADER_WORDS = HEADER_BYTES // 4
_CRC_WORDS = CRC_BYTES // 4


class FrameReceiver(Component):
    """Collect a frame's words in a :class:`~systola_hdl.frame_buffer.FrameBuffer`; hand it on only if it is whole.

    Dropped without a trace are frames with a broken code, a bad CRC, a length that is not a multiple of 4, and lengths below the
    header and CRC or above the longest frame. One byte a cycle; waits while the buffer has no free frame.
    """

    i: In(stream.Signature(FrameByte))
    free: In(1)
    write: Out(1)
    write_index: Out(6)
    write_data: Out(32)
    commit: Out(1)
    commit_length: Out(6)  #: words of the frame, the CRC not counted

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        count = Signal(range(4 * FRAME_WORDS + 2))  # bytes so far, at most one more than the longest frame: then never whole
        low = Signal(24)
        length = count >> 2
        m.d.comb += [
            self.i.ready.eq(self.free),
            crc.data.eq(self.i.payload.byte),
            self.write_index.eq(length),
            self.write_data.eq(Cat(low, self.i.payload.byte)),
            self.commit_length.eq(length - _CRC_WORDS),
        ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(self.i.payload.end):
                m.d.comb += crc.start.eq(1)
                m.d.sync += count.eq(0)
                whole = (count[:2] == 0) & (length >= _HEADER_WORDS + _CRC_WORDS)
                m.d.comb += self.commit.eq(whole & crc.match_detected & ~self.i.payload.error)
            with m.Else():
                m.d.comb += crc.valid.eq(1)
                m.d.sync += low.eq(Cat(low[8:], self.i.payload.byte))
                with m.If(count <= 4 * FRAME_WORDS):
                    m.d.sync += count.eq(count + 1)
                m.d.comb += self.write.eq((count[:2] == 3) & (length < FRAME_WORDS))
        return m


class FrameSender(Component):
    """Send the frames of a :class:`~systola_hdl.frame_buffer.FrameBuffer`, least significant byte first, each with its CRC.

    One byte a cycle, and two cycles more a frame.
    """

    full: In(1)
    length: In(6)  #: words of the frame, the CRC not counted; at least 1
    read_index: Out(6)
    read_data: In(32)
    release: Out(1)
    o: Out(stream.Signature(FrameByte))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        index, lane = Signal(6), Signal(2)
        taken, following = Signal(), Signal(6)
        word = Signal(32)
        m.d.comb += [
            taken.eq(self.o.valid & self.o.ready),
            self.read_index.eq(following),
            following.eq(index),
            self.o.payload.byte.eq(word.word_select(lane, 8)),
            crc.data.eq(self.o.payload.byte),
        ]
        m.d.sync += index.eq(following)
        with m.If(taken):
            m.d.sync += lane.eq(lane + 1)

        with m.FSM():
            with m.State("IDLE"):
                # The first word is read in every cycle of waiting, so it is there in the next state.
                m.d.comb += crc.start.eq(1)
                m.d.sync += lane.eq(0)
                with m.If(self.full):
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += [self.o.valid.eq(1), word.eq(self.read_data), crc.valid.eq(taken)]
                with m.If(taken & (lane == 3)):
                    m.d.comb += following.eq(index + 1)
                    with m.If(index == self.length - 1):
                        m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [self.o.valid.eq(1), word.eq(crc.crc)]
                with m.If(taken & (lane == 3)):
                    m.next = "END"
            with m.State("END"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.end.eq(1),
                    following.eq(Mux(taken, 0, index)),
                    self.release.eq(taken),
                ]
                with m.If(taken):
                    m.next = "IDLE"
        return m
