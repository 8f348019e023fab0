"""Shifts the packed bytes of a write to where they lie in the host's memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.dma import LENGTH_BITS
from systola_hdl.host.host_port import HostPort

__all__ = ["WriteAligner"]


class WriteAligner(Component):
    """One word of 8 packed bytes in a cycle, one naturally aligned word of the host's memory out; the inverse of the
    read's shift::

        packed     a0 a1 a2 a3 a4 a5 a6 a7 | b0 b1 …                     a transfer of 10 bytes to 3 and on
        aligned    .. .. .. a0 a1 a2 a3 a4 | a5 a6 a7 b0 b1 .. .. ..

    A transfer costs a cycle beside those of its words. What surrounds the transfer's bytes in its first and last word
    is undefined.

    Members
    -------
    command: In(stream of HostPort.TRANSFER)
        The transfer; taken when all words of the last have left.
    i: In(stream of HostPort.WRITE_DATA)
        Its bytes.
    o: Out(stream of 64 bits)
        Aligned words.
    """

    command: In(stream.Signature(HostPort.TRANSFER))
    i: In(stream.Signature(HostPort.WRITE_DATA))
    o: Out(stream.Signature(64))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        shift, left, more = Signal(3), Signal(LENGTH_BITS - 2), Signal()
        before, shifted = Signal(64), Signal(64)
        transfer = self.command.payload
        offset = transfer.host_address[:3]
        data = self.i.payload.data
        # Bytes of the last packed word, 1 to 8, and the shift: if more than 8, another aligned word follows.
        tail = Signal(4)
        m.d.comb += tail.eq(Mux(transfer.length[:3] == 0, 8, transfer.length[:3]) + offset)
        m.d.comb += shifted.eq(Cat(before, data).bit_select(Cat(Const(0, 3), 8 - shift)[:7], 64))
        room = Signal()
        m.d.comb += room.eq(~self.o.valid | self.o.ready)
        with m.If(room):
            m.d.sync += [self.o.valid.eq(0), self.o.payload.eq(shifted)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [
                    shift.eq(offset),
                    left.eq((transfer.length + 7) >> 3),
                    more.eq(tail > 8),
                    before.eq(0),
                ]
                with m.If(self.command.valid):
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += self.i.ready.eq(room)
                with m.If(self.i.valid & room):
                    m.d.sync += [before.eq(data), self.o.valid.eq(1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "IDLE"
                        with m.If(more):
                            m.next = "FLUSH"
            with m.State("FLUSH"):
                with m.If(room):
                    m.d.sync += self.o.valid.eq(1)
                    m.next = "IDLE"
        return m
