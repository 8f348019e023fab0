"""The bus side of a simple memory or register file: one access at a time, read data a fixed time after the address."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.host.bus import Bus

__all__ = ["BusTarget"]


class BusTarget(Component):
    """Turn :class:`Bus` requests into accesses of a synchronous memory.

    A request is taken into registers. An access is ``enable`` for one cycle with ``address``, ``write`` and ``data``,
    which stay until the response; ``read_data`` is sampled ``read_latency`` cycles later. An access in a cycle without
    ``grant`` has failed and is repeated. ``grant`` may come late in a cycle, as it goes straight into a register. The
    response (0 for a write, never an error: the range was checked before) is offered a cycle after the data:
    ``read_latency + 2`` cycles after the request was taken at best.

    Parameters
    ----------
    read_latency:
        Cycles from ``enable`` to ``read_data``; at least 1.

    Members
    -------
    bus:
        The initiator.
    grant: In(1)
        The memory serves a read in this cycle. A write may be executed without it: its repetition does no harm.
    enable, write: Out(1)
        An access is tried in this cycle.
    address: Out(32), data: Out(32)
        Byte offset and write data of the access.
    read_data: In(32)
        Data of a read.
    """

    bus: In(Bus())
    grant: In(1, init=1)
    enable: Out(1)
    write: Out(1)
    address: Out(32)
    data: Out(32)
    read_data: In(32)

    def __init__(self, read_latency: int = 1) -> None:
        if read_latency < 1:
            raise ValueError(f"read_latency must be at least 1, not {read_latency}")
        self._read_latency = read_latency
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        left = Signal(range(self._read_latency + 1))  # cycles until the data comes
        granted = Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += request.ready.eq(1)
                m.d.sync += [
                    self.write.eq(request.payload.write),
                    self.address.eq(request.payload.address),
                    self.data.eq(request.payload.data),
                ]
                with m.If(request.valid):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += self.enable.eq(1)
                m.d.sync += [granted.eq(self.grant), left.eq(self._read_latency - 1)]
                m.next = "CAPTURE"
            with m.State("CAPTURE"):
                # Captured, because the memory's read port may serve another client before the response is taken.
                m.d.sync += [left.eq(left - 1), response.payload.data.eq(Mux(self.write, 0, self.read_data))]
                with m.If(left == 0):
                    m.next = "RESPOND"
                    with m.If(~granted):
                        m.next = "ACCESS"
            with m.State("RESPOND"):
                m.d.comb += response.valid.eq(1)
                with m.If(response.ready):
                    m.next = "IDLE"
        return m
