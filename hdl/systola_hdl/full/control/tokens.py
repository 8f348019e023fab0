"""Token counters: one for each ordered pair of units."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import INSTRUCTIONS, TOKEN_LIMIT, Unit

__all__ = ["EXECUTING", "Tokens"]

#: Units that execute instructions, so can give tokens; the sequencer's END gives none, as the program is over.
EXECUTING: tuple[Unit, ...] = tuple(
    unit for unit in Unit if unit is not Unit.SEQUENCER and any(d.unit == unit for d in INSTRUCTIONS.values())
)


class Tokens(Component):
    """Counters from 0 to :data:`~systola_firmware.spec.isa.TOKEN_LIMIT`.

    A token that is given is available in the next cycle. A unit that executes no instructions never gives one, so
    waiting for it never ends. All counters are zero after reset.

    Members
    -------
    give_<unit>: In(4)
        For each executing unit: mask of units to which it gives a token in this cycle.
    overflow_<unit>: Out(1)
        In the same cycle: the token does not fit, and is lost.
    wait_<unit>: In(4)
        For each unit: mask of units from which it wants a token.
    available_<unit>: Out(1)
        All those tokens are available.
    take_<unit>: In(1)
        Take them; only while ``available``.
    """

    def __init__(self) -> None:
        ports: dict[str, object] = {}
        for unit in EXECUTING:
            ports |= {f"give_{unit.name.lower()}": In(len(Unit)), f"overflow_{unit.name.lower()}": Out(1)}
        for unit in Unit:
            name = unit.name.lower()
            ports |= {f"wait_{name}": In(len(Unit)), f"available_{name}": Out(1), f"take_{name}": In(1)}
        super().__init__(ports)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        overflows: dict[Unit, list[Value]] = {unit: [] for unit in EXECUTING}
        for destination in Unit:
            to = destination.name.lower()
            wanted, take = getattr(self, f"wait_{to}"), getattr(self, f"take_{to}")
            there: list[Value] = []
            for source in Unit:
                if source not in EXECUTING:
                    there.append(Const(0, 1))
                    continue
                name = source.name.lower()
                count = Signal(range(TOKEN_LIMIT + 1), name=f"{name}_to_{to}")
                given, taken, full = Signal(name=f"given_{name}_{to}"), Signal(name=f"taken_{name}_{to}"), count == TOKEN_LIMIT
                m.d.comb += [given.eq(getattr(self, f"give_{name}")[destination]), taken.eq(take & wanted[source])]
                with m.If(given & ~taken & ~full):
                    m.d.sync += count.eq(count + 1)
                with m.Elif(taken & ~given):
                    m.d.sync += count.eq(count - 1)
                overflows[source].append(given & ~taken & full)
                there.append(count != 0)
            m.d.comb += getattr(self, f"available_{to}").eq((~wanted | Cat(there)).all())
        for source, overflow in overflows.items():
            m.d.comb += getattr(self, f"overflow_{source.name.lower()}").eq(Cat(overflow).any())
        return m
