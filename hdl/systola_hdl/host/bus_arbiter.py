"""Several links share one bus."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.host.bus import Bus

__all__ = ["BusArbiter"]


class BusArbiter(Component):
    """Round-robin, one request at a time: a client that has been served has the lowest priority next.

    A request takes a cycle longer than on the bus alone.

    Parameters
    ----------
    clients:
        Number of clients, at least 1.

    Members
    -------
    clients: In(Bus()).array(clients)
        The initiators.
    bus: Out(Bus())
        What they share.
    """

    def __init__(self, clients: int) -> None:
        if clients < 1:
            raise ValueError(f"clients must be at least 1, not {clients}")
        self._count = clients
        super().__init__({"clients": In(Bus()).array(clients), "bus": Out(Bus())})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        owner = Signal(range(self._count))
        with m.FSM():
            with m.State("CHOOSE"):
                # The last assignment wins: that of the first client behind the last owner which has a request.
                for last in range(self._count):
                    with m.If(owner == last):
                        for distance in reversed(range(self._count)):
                            index = (last + 1 + distance) % self._count
                            with m.If(self.clients[index].request.valid):
                                m.d.sync += owner.eq(index)
                                m.next = "REQUEST"
            with m.State("REQUEST"):
                for index, client in enumerate(self.clients):
                    with m.If(owner == index):
                        m.d.comb += [
                            request.valid.eq(1),
                            request.payload.eq(client.request.payload),
                            client.request.ready.eq(request.ready),
                        ]
                with m.If(request.ready):
                    m.next = "RESPONSE"
            with m.State("RESPONSE"):
                for index, client in enumerate(self.clients):
                    m.d.comb += client.response.payload.eq(response.payload)
                    with m.If(owner == index):
                        m.d.comb += [client.response.valid.eq(response.valid), response.ready.eq(client.response.ready)]
                with m.If(response.valid & response.ready):
                    m.next = "CHOOSE"
        return m
