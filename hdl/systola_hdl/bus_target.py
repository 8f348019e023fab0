"""The bus side of a simple memory or register file: one access at a time, read data one cycle after the address."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.interfaces import Bus

__all__ = ["BusTarget"]


class BusTarget(Component):
    """Turn :class:`Bus` requests into accesses of a synchronous memory.

    An access is ``enable`` for one cycle with ``address``, ``write`` and ``data``; ``read_data`` is sampled in the next cycle.
    The response (0 for a write, never an error: the range was checked before) follows a cycle after that, so a request is
    answered 2 cycles after it was taken and the next one is taken a cycle later: 3 cycles an access.

    Members
    -------
    bus:
        The initiator.
    grant: In(1)
        The memory can serve an access in this cycle.
    enable, write: Out(1)
        An access happens in this cycle.
    address: Out(32), data: Out(32)
        Byte offset and write data of the access.
    read_data: In(32)
        Data of a read, in the cycle after ``enable``.
    """

    bus: In(Bus())
    grant: In(1, init=1)
    enable: Out(1)
    write: Out(1)
    address: Out(32)
    data: Out(32)
    read_data: In(32)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        was_write = Signal()
        m.d.comb += [
            self.write.eq(request.payload.write),
            self.address.eq(request.payload.address),
            self.data.eq(request.payload.data),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [request.ready.eq(self.grant), self.enable.eq(self.grant & request.valid)]
                m.d.sync += was_write.eq(request.payload.write)
                with m.If(self.enable):
                    m.next = "CAPTURE"
            with m.State("CAPTURE"):
                # Captured, because the memory's read port may serve somebody else before the response is taken.
                m.d.sync += response.payload.data.eq(0)
                with m.If(~was_write):
                    m.d.sync += response.payload.data.eq(self.read_data)
                m.next = "RESPOND"
            with m.State("RESPOND"):
                m.d.comb += response.valid.eq(1)
                with m.If(response.ready):
                    m.next = "IDLE"
        return m
