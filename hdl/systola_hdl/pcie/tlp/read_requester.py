"""Our reads of the host's memory: sends the requests, and delivers the answers in the order of the requests."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.dma import DmaError
from systola_hdl.host.host_port import DMA_ERROR, HostPort
from systola_hdl.pcie.tlp.header import FIRST_DWORD, REQUEST_DWORD
from systola_hdl.pcie.tlp.read_drain import ReadDrain
from systola_hdl.pcie.tlp.receiver import COMPLETION_BEAT
from systola_hdl.pcie.tlp.slots import ReadSlots
from systola_hdl.pcie.tlp.splitter import RequestSplitter
from systola_hdl.pcie.tlp.stream import ENDPOINT_EVENTS, TlpStream

__all__ = ["ReadRequester"]


class ReadRequester(Component):
    """Read transfers of any length and alignment, with up to ``slots`` outstanding reads.

    A request is sent only when there is room for all of its answer, so completions are never refused. A segment that
    cannot be sent, because the link is down or Bus Master Enable is off, takes a slot as well, so that its error is
    reported in order. After an error no more requests of the same transfer are sent, and answers that are still
    outstanding are awaited.

    Throughput: a slot of 256 bytes is emptied in 34 cycles, its completions come in at least 34 beats.

    Parameters
    ----------
    slots:
        2, 4, 8 or 16.
    timeout:
        Cycles after which a read has timed out, counted from when its slot is the oldest.

    Members
    -------
    read, read_data:
        As in :class:`~systola_hdl.host.host_port.HostPort`.
    o: Out(TlpStream())
        Memory reads.
    completion: In(COMPLETION_BEAT)
        From the receiver.
    function_id, wide, bus_master_enable, link_up: In
        Parts of the function's state; ``wide``: requests may be of 256 bytes, else of 128.
    events: Out(ENDPOINT_EVENTS)
        ``unexpected``, ``malformed``, ``poisoned``, ``timeout``.
    """

    def __init__(self, slots: int, timeout: int) -> None:
        self._slots = slots
        self._timeout = timeout
        super().__init__(
            {
                "read": In(stream.Signature(HostPort.TRANSFER)),
                "read_data": Out(stream.Signature(HostPort.READ_DATA)),
                "o": Out(TlpStream()),
                "completion": In(COMPLETION_BEAT),
                "function_id": In(16),
                "wide": In(1),
                "bus_master_enable": In(1),
                "link_up": In(1),
                "events": Out(ENDPOINT_EVENTS),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = RequestSplitter()
        m.submodules.slots = slots = ReadSlots(self._slots)
        m.submodules.drain = drain = ReadDrain(self._timeout)
        connect(m, flipped(self.read), splitter.i)
        connect(m, drain.o, flipped(self.read_data))
        for name in ("occupied", "head", "head_done", "head_code", "read_data"):
            m.d.comb += getattr(drain, name).eq(getattr(slots, name))
        for name in ("pop", "expire", "read_enable", "read_word"):
            m.d.comb += getattr(slots, name).eq(getattr(drain, name))
        m.d.comb += [
            splitter.wide.eq(self.wide),
            slots.completion.eq(self.completion),
            slots.function_id.eq(self.function_id),
            slots.link_up.eq(self.link_up),
            self.events.eq(slots.events.as_value() | drain.events.as_value()),
        ]

        # If no occupied slot ends a transfer, the transfer that the drain has found to fail is the one being split.
        ends = Signal(range(self._slots + 1))
        m.d.sync += ends.eq(ends + (slots.allocate & slots.allocation.last) - (slots.pop & slots.head.last))
        code = Signal(DMA_ERROR)
        with m.If(~self.link_up):
            m.d.comb += code.eq(DmaError.LINK_DOWN)
        with m.Elif(~self.bus_master_enable):
            m.d.comb += code.eq(DmaError.BUS_MASTER_DISABLED)
        with m.Elif(~slots.any_tag_free | (drain.failing & (ends == 0))):
            m.d.comb += code.eq(DmaError.TIMEOUT)  # in the second case the drain has reported an error before

        segment, allocation = splitter.o.payload, slots.allocation
        header, request, address = Signal(FIRST_DWORD), Signal(REQUEST_DWORD), Signal(64)
        m.d.comb += [
            allocation.place.eq(segment.address),
            allocation.size.eq(Mux(slots.tag_free, segment.size, 0)),
            allocation.first.eq(segment.first),
            allocation.last.eq((segment.last & slots.tag_free) | splitter.stop),
            allocation.code.eq(code),
            splitter.stop.eq(code != DmaError.NONE),
            self.o.payload.keep.eq(3),
            self.o.payload.data.eq(Cat(header, request)),
        ]
        with m.FSM():
            with m.State("PIECE"):
                with m.If(splitter.o.valid & slots.free):
                    m.d.comb += slots.allocate.eq(1)
                    m.d.sync += [
                        header.length.eq(segment.dwords),
                        header.long.eq(segment.long),
                        request.eq(Cat(segment.first_be, segment.last_be, slots.tag)),
                        request.requester.eq(self.function_id),
                        address.eq(Cat(Const(0, 2), segment.address[2:])),
                    ]
                    with m.If(splitter.stop):
                        m.d.comb += splitter.o.ready.eq(1)
                    with m.Elif(slots.tag_free):
                        m.d.comb += splitter.o.ready.eq(1)
                        m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.first.eq(1)]
                with m.If(self.o.ready):
                    m.next = "ADDRESS"
                with m.Elif(~self.link_up):  # the slot is lost, but its tag may be used again
                    m.next = "PIECE"
            with m.State("ADDRESS"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.last.eq(1)]
                with m.If(header.long):
                    m.d.comb += self.o.payload.data.eq(Cat(address[32:], address[:32]))
                with m.Else():
                    m.d.comb += [self.o.payload.data.eq(address[:32]), self.o.payload.keep.eq(1)]
                with m.If(self.o.ready):
                    m.next = "PIECE"
        return m
