"""From the one host bus to the memories: region, range and alignment."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.config import Config
from systola_firmware.memory_map import REGION_SHIFT, Region, region_bytes
from systola_hdl.interfaces import Bus

__all__ = ["BusDecoder"]


class BusDecoder(Component):
    """Pass each request to the region its address names, with the address made an offset inside the region.

    A request outside every region, or not aligned to 4 bytes, reaches no memory and is answered with ``error``. One request
    is outstanding at a time, so responses are in order. The request and the response pass in the cycle they are offered;
    a refused request is answered one cycle after it was taken.

    Members
    -------
    bus:
        The initiator.
    registers, program, activation, weight, trace: Out(Bus())
        One for each :class:`~systola_firmware.memory_map.Region`, by its name in lower case.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__({"bus": In(Bus()), **{region.name.lower(): Out(Bus()) for region in Region}})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        address = request.payload.address
        offset = address[:REGION_SHIFT]
        selected, target = Signal(len(Region)), Signal(len(Region))
        for index, region in enumerate(Region):
            inside = (address[REGION_SHIFT:] == region) & (offset < region_bytes(self._config, region))
            m.d.comb += selected[index].eq(inside & (address[:2] == 0))

        with m.FSM():
            with m.State("REQUEST"):
                m.d.comb += request.ready.eq(~selected.any())
                for index, region in enumerate(Region):
                    downstream = getattr(self, region.name.lower()).request
                    m.d.comb += [
                        downstream.payload.address.eq(offset),
                        downstream.payload.write.eq(request.payload.write),
                        downstream.payload.data.eq(request.payload.data),
                        downstream.valid.eq(request.valid & selected[index]),
                    ]
                    with m.If(selected[index]):
                        m.d.comb += request.ready.eq(downstream.ready)
                m.d.sync += target.eq(selected)
                with m.If(request.valid & request.ready):
                    m.next = "RESPONSE"
            with m.State("RESPONSE"):
                m.d.comb += [response.valid.eq(~target.any()), response.payload.error.eq(~target.any())]
                for index, region in enumerate(Region):
                    downstream = getattr(self, region.name.lower()).response
                    with m.If(target[index]):
                        m.d.comb += [
                            response.valid.eq(downstream.valid),
                            response.payload.eq(downstream.payload),
                            downstream.ready.eq(response.ready),
                        ]
                with m.If(response.valid & response.ready):
                    m.next = "REQUEST"
        return m
