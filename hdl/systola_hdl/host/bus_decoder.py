"""From the one host bus to the memories: region, range and alignment."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import REGION_SHIFT, present_regions, region_bytes
from systola_hdl.host.bus import Bus

__all__ = ["BusDecoder"]


class BusDecoder(Component):
    """Pass each request to the region its address names, with the address made an offset inside the region.

    A request outside every region, or not aligned to 4 bytes, reaches no memory and is answered with ``error``. One
    request is outstanding at a time, so responses are in order. The regions lie far apart on the chip: request and
    response are held in registers here, so that each direction has a whole cycle for the wires. That takes 2 cycles
    before the region's own and 1 after them.

    Members
    -------
    bus:
        The initiator.
    registers, program, activation, weight, trace, dma: Out(Bus())
        One for each :class:`~systola_firmware.spec.memory_map.Region` that the engine has, by its name in lower case.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__({"bus": In(Bus()), **{region.name.lower(): Out(Bus()) for region in present_regions(config)}})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        regions = present_regions(self._config)
        request, response = self.bus.request, self.bus.response
        held = Signal(Bus.REQUEST)
        selected, accepted = Signal(len(regions)), Signal(len(regions))
        for region in regions:
            downstream = getattr(self, region.name.lower()).request
            m.d.comb += [
                downstream.payload.address.eq(held.address[:REGION_SHIFT]),
                downstream.payload.write.eq(held.write),
                downstream.payload.data.eq(held.data),
            ]

        with m.FSM():
            with m.State("REQUEST"):
                m.d.comb += request.ready.eq(1)
                m.d.sync += held.eq(request.payload)
                with m.If(request.valid):
                    m.next = "DECODE"
            with m.State("DECODE"):
                for index, region in enumerate(regions):
                    offset = held.address[:REGION_SHIFT]
                    inside = (held.address[REGION_SHIFT:] == region) & (offset < region_bytes(self._config, region))
                    m.d.sync += selected[index].eq(inside & (held.address[:2] == 0))
                m.next = "PASS"
            with m.State("PASS"):
                m.d.sync += [response.payload.data.eq(0), response.payload.error.eq(1)]
                for index, region in enumerate(regions):
                    downstream = getattr(self, region.name.lower()).request
                    m.d.comb += [downstream.valid.eq(selected[index]), accepted[index].eq(selected[index] & downstream.ready)]
                with m.If(accepted.any()):
                    m.next = "WAIT"
                with m.Elif(~selected.any()):
                    m.next = "RESPONSE"
            with m.State("WAIT"):
                for index, region in enumerate(regions):
                    downstream = getattr(self, region.name.lower()).response
                    m.d.comb += downstream.ready.eq(selected[index])
                    with m.If(selected[index] & downstream.valid):
                        m.d.sync += response.payload.eq(downstream.payload)
                        m.next = "RESPONSE"
            with m.State("RESPONSE"):
                m.d.comb += response.valid.eq(1)
                with m.If(response.ready):
                    m.next = "REQUEST"
        return m
