"""The host's word bus: how a link reaches the memory map. Directions are those of the initiator, the link."""

from __future__ import annotations

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["Bus"]


class Bus(Signature):
    """The host's word bus; initiator is the link. ``response`` answers every request, in order.

    ``request.payload``: ``address`` (bytes, aligned), ``write``, ``data``. ``response.payload``: ``data`` (0 for a
    write), ``error`` (nothing is at this address).
    """

    REQUEST = data.StructLayout({"address": 32, "write": 1, "data": 32})
    RESPONSE = data.StructLayout({"data": 32, "error": 1})

    def __init__(self) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(self.REQUEST)),
                "response": In(stream.Signature(self.RESPONSE)),
            }
        )
