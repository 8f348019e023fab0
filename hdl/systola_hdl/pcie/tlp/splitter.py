"""Cuts a transfer into segments, one for each TLP."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.dma import LENGTH_BITS
from systola_hdl.host.host_port import HostPort
from systola_hdl.pcie.tlp.header import LARGEST_SEGMENT

__all__ = ["SEGMENT", "RequestSplitter"]

_OFFSET_BITS = ceil_log2(LARGEST_SEGMENT)

#: What one TLP asks for or carries: ``size`` bytes from ``address`` on, in ``dwords`` dwords and ``words`` naturally
#: aligned words of 8 bytes. ``long``: the address needs 64 bits. ``first`` and ``last`` segment of a transfer.
SEGMENT = data.StructLayout(
    {
        "address": 64,
        "size": _OFFSET_BITS + 1,
        "dwords": _OFFSET_BITS - 1,
        "words": _OFFSET_BITS - 2,
        "first_be": 4,
        "last_be": 4,
        "long": 1,
        "first": 1,
        "last": 1,
    }
)


class RequestSplitter(Component):
    """Cut transfers at the multiples of 128 bytes, or of 256 while ``wide``; so no segment crosses a 4 KiB boundary.

    Only the first segment of a transfer begins, and only the last one ends, off such a multiple. The byte enables are
    set for all bytes from the first to the last. A segment comes three cycles after the one before was taken.

    Members
    -------
    i: In(stream of HostPort.TRANSFER)
        Taken one at a time, when all segments of the last were taken.
    wide: In(1)
        Sampled once for each segment.
    o: Out(stream of SEGMENT)
        The segments.
    stop: In(1)
        Together with ``o.ready``: the rest of the transfer is given up, no further segment of it follows.
    """

    i: In(stream.Signature(HostPort.TRANSFER))
    wide: In(1)
    o: Out(stream.Signature(SEGMENT))
    stop: In(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        segment = self.o.payload
        address, left, first = Signal(64), Signal(LENGTH_BITS), Signal()
        wide = Signal()
        # Offset of the segment's first byte in a block of 128 or 256 bytes, and bytes from there to its end.
        place, room = Signal(_OFFSET_BITS), Signal(_OFFSET_BITS + 1)
        m.d.comb += [
            place.eq(Mux(self.wide, address[:_OFFSET_BITS], address[: _OFFSET_BITS - 1])),
            room.eq(Mux(self.wide, LARGEST_SEGMENT, LARGEST_SEGMENT // 2) - place),
        ]
        end = Signal(_OFFSET_BITS + 1)  # of the segment, from the aligned word of 8 bytes on in which it begins
        m.d.comb += end.eq(address[:3] + segment.size)
        one = Signal()
        m.d.comb += one.eq(address[:2] + segment.size <= 4)
        following = Signal(65 - _OFFSET_BITS)  # blocks of 128 bytes
        m.d.comb += following.eq(address[_OFFSET_BITS - 1 :] + Mux(wide & ~address[_OFFSET_BITS - 1], 2, 1))
        begins, ends = Signal(4), Signal(4)
        with m.Switch(address[:2]):
            for value in range(4):
                with m.Case(value):
                    m.d.comb += begins.eq(0xF << value & 0xF)
        with m.Switch(end[:2]):
            for value in range(4):
                with m.Case(value):
                    m.d.comb += ends.eq(0xF >> (-value % 4))

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [address.eq(self.i.payload.host_address), left.eq(self.i.payload.length), first.eq(1)]
                with m.If(self.i.valid):
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += [segment.size.eq(Mux(left > room, room, left)), segment.last.eq(left <= room), wide.eq(self.wide)]
                m.next = "SHAPE"
            with m.State("SHAPE"):
                m.d.sync += [
                    segment.address.eq(address),
                    segment.dwords.eq((address[:2] + segment.size + 3) >> 2),
                    segment.words.eq((end + 7) >> 3),
                    segment.first_be.eq(Mux(one, begins & ends, begins)),
                    segment.last_be.eq(Mux(one, 0, ends)),
                    segment.long.eq(address[32:] != 0),
                    segment.first.eq(first),
                    first.eq(0),
                    left.eq(left - segment.size),
                    # The next segment begins at the next multiple of 128 or 256 bytes.
                    address.eq(Cat(Const(0, _OFFSET_BITS - 1), following)),
                ]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "SIZE"
                    with m.If(segment.last | self.stop):
                        m.next = "IDLE"
        return m
