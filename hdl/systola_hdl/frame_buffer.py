"""Two frames of words: one is filled while the other is used."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.link import CRC_BYTES, HEADER_BYTES, MAX_WORDS

__all__ = ["FRAME_WORDS", "FrameBuffer"]

#: Words of the longest frame, its CRC included.
FRAME_WORDS = (HEADER_BYTES + CRC_BYTES) // 4 + MAX_WORDS
_INDEX_BITS = 6


class FrameBuffer(Component):
    """A pair of memories of 64 words, filled and emptied in turn.

    Members
    -------
    free: Out(1)
        There is a frame to fill; ``write``, ``write_index`` and ``write_data`` fill it in any order; ``commit`` hands it on,
        with its length in words. Without ``commit`` it is filled anew.
    full: Out(1)
        There is a frame to use, of ``length`` words; ``read_data`` is the word at ``read_index`` of the cycle before;
        ``release`` gives it back.
    """

    free: Out(1)
    write: In(1)
    write_index: In(_INDEX_BITS)
    write_data: In(32)
    commit: In(1)
    commit_length: In(_INDEX_BITS)
    full: Out(1)
    length: Out(_INDEX_BITS)
    read_index: In(_INDEX_BITS)
    read_data: Out(32)
    release: In(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=2 << _INDEX_BITS, init=[])
        write, read = memory.write_port(), memory.read_port()
        occupied, filling, using = Signal(2), Signal(), Signal()
        lengths = [Signal(_INDEX_BITS, name=f"length{half}") for half in range(2)]
        m.d.comb += [
            self.free.eq(~occupied.bit_select(filling, 1)),
            self.full.eq(occupied.bit_select(using, 1)),
            self.length.eq(Mux(using, lengths[1], lengths[0])),
            write.addr.eq(Cat(self.write_index, filling)),
            write.data.eq(self.write_data),
            write.en.eq(self.write),
            read.addr.eq(Cat(self.read_index, using)),
            self.read_data.eq(read.data),
        ]
        with m.If(self.commit):
            m.d.sync += [occupied.bit_select(filling, 1).eq(1), filling.eq(~filling)]
            for half, length in enumerate(lengths):
                with m.If(filling == half):
                    m.d.sync += length.eq(self.commit_length)
        with m.If(self.release):
            m.d.sync += [occupied.bit_select(using, 1).eq(0), using.eq(~using)]
        return m
