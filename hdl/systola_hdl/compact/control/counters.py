"""Counting events in few bits between two visits of the scanner."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_hdl.common.logic import one_of
from systola_hdl.compact.control.state_layout import SCAN_LENGTH
from systola_hdl.host.counters import EVENT_LAYOUT

__all__ = ["VISIT_CYCLES", "LocalCounters"]

#: Cycles from one visit of the scanner to the next of the same counter.
VISIT_CYCLES = 2 * SCAN_LENGTH


class LocalCounters(Component):
    """Count up to :data:`VISIT_CYCLES` cycles of each event.

    Parameters
    ----------
    indices:
        Name of each counter and its index in the scanner's round.

    Members
    -------
    run: In(1)
        ``cycles`` counts this cycle.
    events: In(EVENT_LAYOUT)
        What else counts this cycle.
    index: In, visit: In(1)
        The counter at ``index`` is read; with ``visit`` it begins anew in the next cycle.
    count: Out, event: Out(1)
        Cycles counted between its last visit and the cycle before this one, and whether that one counts.
    """

    def __init__(self, indices: dict[str, int]) -> None:
        self._indices = indices
        super().__init__(
            {
                "run": In(1),
                "events": In(EVENT_LAYOUT),
                "index": In(range(SCAN_LENGTH)),
                "visit": In(1),
                "count": Out(ceil_log2(VISIT_CYCLES)),
                "event": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        counts, counting = [], []
        for name, index in self._indices.items():
            count, event, here = Signal.like(self.count, name=name), Signal(name=f"event_{name}"), Signal(name=f"here_{name}")
            # Registered, as events come from far: a cycle late.
            m.d.sync += event.eq(self.run if name == "cycles" else self.events[name])
            m.d.comb += here.eq(self.index == index)
            m.d.sync += count.eq(count + event)
            with m.If(here & self.visit):
                m.d.sync += count.eq(0)
            counts.append((here, count))
            counting.append((here, event))
        m.d.comb += [self.count.eq(one_of(counts)), self.event.eq(one_of(counting))]
        return m
