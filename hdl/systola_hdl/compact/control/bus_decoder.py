"""From the one host bus to the three memories of the compact engine."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import REGION_SHIFT, Region, region_bytes
from systola_hdl.common.logic import is_below, moved, one_of
from systola_hdl.compact.control.state_layout import StateLayout
from systola_hdl.compact.interfaces import HostAccess, stored_words
from systola_hdl.host.bus import Bus

__all__ = ["BusDecoder"]


class BusDecoder(Component):
    """Pass each request to the memory that has its region: registers and trace are one, and weights and program.

    A request outside every region, or not aligned to 4 bytes, reaches no memory and is answered with ``error``. A
    request is taken in the cycle in which it has been served; the response is there in the cycle after, and must be
    taken before the next.

    Members
    -------
    bus:
        The initiator.
    state, activation, weight: Out(HostAccess)
        Memories of the control plane, of activations, and of weights and program.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "bus": In(Bus()),
                "state": Out(HostAccess(StateLayout(config).words)),
                "activation": Out(HostAccess(config.activation_bytes // 4)),
                "weight": Out(HostAccess(stored_words(config))),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        request, response = self.bus.request, self.bus.response
        address = request.payload.address
        word = address[2:REGION_SHIFT]
        config = self._config
        #: Memory of each region, and the word of that memory at which it begins.
        destinations = {
            Region.REGISTERS: (self.state, StateLayout(config).registers),
            Region.PROGRAM: (self.weight, config.weight_bytes // 4),
            Region.ACTIVATION: (self.activation, 0),
            Region.WEIGHT: (self.weight, 0),
            Region.TRACE: (self.state, 0),
        }
        free, served = Signal(), Signal()
        m.d.comb += free.eq(request.valid & ~response.valid)
        inside = Signal(len(destinations))
        for index, region in enumerate(destinations):
            m.d.comb += inside[index].eq(
                (address[REGION_SHIFT:] == region) & is_below(word, region_bytes(config, region) // 4) & (address[:2] == 0)
            )
        answers: list[tuple[Value, Value]] = []
        for access in (self.state, self.activation, self.weight):
            regions = [region for region, (memory, _) in destinations.items() if memory is access]
            m.d.comb += [
                access.valid.eq(free & Cat(inside[region] for region in regions).any()),
                access.address.eq(word),
                access.write.eq(request.payload.write),
                access.data.eq(request.payload.data),
            ]
            for region in regions:
                with m.If(address[REGION_SHIFT:] == region):
                    m.d.comb += access.address.eq(moved(word, destinations[region][1], region_bytes(config, region) // 4))
            answers.append((access.done, access.read_data))
        m.d.comb += [
            served.eq(Cat(access.valid & access.done for access in (self.state, self.activation, self.weight)).any()),
            request.ready.eq(~response.valid & (served | ~inside.any())),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += [
                response.valid.eq(1),
                response.payload.error.eq(~inside.any()),
                response.payload.data.eq(one_of(answers)),
            ]
            with m.If(request.payload.write):
                m.d.sync += response.payload.data.eq(0)
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        return m
