"""Execution of checked request frames on the bus, and the sequence rules of the link."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.link import HEADER_BYTES, MAX_WORDS, LinkOperation, LinkStatus
from systola_hdl.interfaces import Bus

__all__ = ["LinkExecutor"]

_HEADER_WORDS = HEADER_BYTES // 4
#: How far behind ``expected`` a frame still counts as a repeat.
_REPEAT_RANGE = 128

_REQUEST = data.StructLayout({"sequence": 8, "operation": 8, "count": 8, "reserved": 8})


class LinkExecutor(Component):
    """Take request frames from one :class:`~systola_hdl.frame_buffer.FrameBuffer`, put response frames into another.

    The rules are those of :mod:`systola_firmware.link`. Where it leaves room: a known operation with a possible count whose
    frame has another length is dropped, as a frame of bad length; an executed READ always carries ``count`` words, zeros from
    the first bad address on; no word after a bad address is tried. A word takes as long as its bus access, at most one is
    outstanding.
    """

    request_full: In(1)
    request_length: In(6)
    request_index: Out(6)
    request_data: In(32)
    request_release: Out(1)
    response_free: In(1)
    response_write: Out(1)
    response_index: Out(6)
    response_data: Out(32)
    response_commit: Out(1)
    response_length: Out(6)
    bus: Out(Bus())

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request = Signal(_REQUEST)
        address, expected, status = Signal(32), Signal(8), Signal(8)
        done = Signal(6)  # words transferred
        access, response = self.bus.request, self.bus.response

        is_read, is_write, is_sync = (
            request.operation == operation for operation in (LinkOperation.READ, LinkOperation.WRITE, LinkOperation.SYNC)
        )
        possible = is_sync | ((is_read | is_write) & (request.count != 0) & (request.count <= MAX_WORDS))
        length = Signal(8)
        m.d.comb += length.eq(_HEADER_WORDS + Mux(is_write, request.count, 0))
        behind = Signal(8)
        m.d.comb += behind.eq(expected - request.sequence)
        last = Signal()
        m.d.comb += last.eq(done + 1 == request.count)

        m.d.comb += [
            access.payload.address.eq(address + (done << 2)),
            access.payload.write.eq(is_write),
            access.payload.data.eq(self.request_data),
            self.response_index.eq(_HEADER_WORDS + done),
            self.request_index.eq(_HEADER_WORDS + done),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.request_index.eq(0)
                m.d.sync += [done.eq(0), status.eq(LinkStatus.OK)]
                with m.If(self.request_full & self.response_free):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += self.request_index.eq(1)
                m.d.sync += request.eq(self.request_data)
                m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.sync += address.eq(self.request_data)
                # `request_index` points at the first word of data, if there is any.
                with m.If(possible & (self.request_length != length)):
                    m.d.comb += self.request_release.eq(1)
                    m.next = "IDLE"
                with m.Elif(is_sync):
                    m.d.sync += expected.eq(request.sequence + 1)
                    m.next = "RESPOND_ADDRESS"
                with m.Elif(behind > _REPEAT_RANGE):
                    m.d.sync += status.eq(LinkStatus.OUT_OF_ORDER)
                    m.next = "RESPOND_ADDRESS"
                with m.Else():
                    with m.If(behind == 0):
                        m.d.sync += expected.eq(expected + 1)
                    with m.If(~possible):
                        m.d.sync += status.eq(LinkStatus.BAD_REQUEST)
                        m.next = "RESPOND_ADDRESS"
                    with m.Elif(is_write & (behind != 0)):
                        m.next = "RESPOND_ADDRESS"
                    with m.Else():
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += access.valid.eq(1)
                with m.If(access.ready):
                    m.next = "RESPONSE"
            with m.State("RESPONSE"):
                m.d.comb += response.ready.eq(1)
                with m.If(response.valid):
                    m.d.comb += [
                        self.response_write.eq(is_read),
                        self.response_data.eq(response.payload.data),
                        self.request_index.eq(_HEADER_WORDS + done + 1),
                    ]
                    m.d.sync += done.eq(done + 1)
                    m.next = "REQUEST"
                    with m.If(response.payload.error):
                        m.d.sync += status.eq(LinkStatus.BAD_ADDRESS)
                        m.next = "ZEROS"
                    with m.If(last | (response.payload.error & is_write)):
                        m.next = "RESPOND_ADDRESS"
            with m.State("ZEROS"):
                m.d.comb += self.response_write.eq(1)
                m.d.sync += done.eq(done + 1)
                with m.If(last):
                    m.next = "RESPOND_ADDRESS"
            with m.State("RESPOND_ADDRESS"):
                m.d.comb += [self.response_write.eq(1), self.response_index.eq(1), self.response_data.eq(address)]
                m.next = "RESPOND"
            with m.State("RESPOND"):
                m.d.comb += [
                    self.response_write.eq(1),
                    self.response_index.eq(0),
                    self.response_data.eq(Cat(request.sequence, status, request.count, expected)),
                    self.response_commit.eq(1),
                    self.response_length.eq(_HEADER_WORDS + Mux(is_read, done, 0)),
                    self.request_release.eq(1),
                ]
                m.next = "IDLE"
        return m
