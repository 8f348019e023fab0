"""Performance counters."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.memory_map import COUNTERS

__all__ = ["COUNTER_LAYOUT", "EVENT_LAYOUT", "Counters"]

#: One 32-bit value for each counter.
COUNTER_LAYOUT = data.StructLayout(dict.fromkeys(COUNTERS, 32))
#: One bit for each counter but ``cycles``: it counts in this cycle.
EVENT_LAYOUT = data.StructLayout({name: 1 for name in COUNTERS if name != "cycles"})


class Counters(Component):
    """Count events while a program runs; wraps at 32 bits. All inputs are registered first.

    ``latency`` is 1: the cycles by which ``values`` lag behind.

    Members
    -------
    clear: In(1)
        All to zero.
    run: In(1)
        Count in this cycle; ``cycles`` counts every such cycle.
    events: In(EVENT_LAYOUT)
        What happens in this cycle.
    values: Out(COUNTER_LAYOUT)
        The counts up to, and without, the cycle before.
    """

    latency = 1

    clear: In(1)
    run: In(1)
    events: In(EVENT_LAYOUT)
    values: Out(COUNTER_LAYOUT)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        clear, count = Signal(), Signal(data.StructLayout(dict.fromkeys(COUNTERS, 1)))
        m.d.sync += clear.eq(self.clear)
        for name in COUNTERS:
            m.d.sync += count[name].eq(self.run & (1 if name == "cycles" else self.events[name]))
            value = self.values[name]
            with m.If(clear):
                m.d.sync += value.eq(0)
            with m.Elif(count[name]):
                m.d.sync += value.eq(value + 1)
        return m
