"""Components run side by side in one bench, a value on every port every cycle, with the bodies of any FPGA family.

The portable bodies run in Amaranth's simulator, a family's as Verilog with the vendor's cells in Verilator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from amaranth.hdl import Elaboratable, Module, Shape, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, Flow, In, Out

from support.benches.simulate import simulator_of
from support.benches.stream_block import CompiledStream
from systola_hdl.cells.families import Family

__all__ = ["PortValues", "port_shapes", "run_every_cycle"]

#: Values of ports by ``component.port``.
PortValues = Mapping[str, int]


def port_shapes(components: Mapping[str, Component], flow: Flow) -> dict[str, Shape]:
    """Shapes of all ports of one direction, by ``component.port``."""
    return {
        f"{name}.{port}": Value.cast(getattr(component, port)).shape()
        for name, component in components.items()
        for port, member in component.signature.members.items()
        if member.flow == flow
    }


class _Bench(Component):
    """The components with their inputs as the payload of one stream and their outputs as that of another, valid in
    every cycle."""

    def __init__(self, components: Mapping[str, Component]) -> None:
        self._components = components
        self.inputs = data.StructLayout(port_shapes(components, In))
        self.outputs = data.StructLayout(port_shapes(components, Out))
        super().__init__(
            {
                "constants": In(1),  # for the harness of streams; not used
                "i": In(stream.Signature(self.inputs, always_ready=True)),
                "o": Out(stream.Signature(self.outputs, always_ready=True, always_valid=True)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for name, component in self._components.items():
            m.submodules[name] = component
        for layout, view, to_component in ((self.inputs, self.i.payload, True), (self.outputs, self.o.payload, False)):
            for path, _field in layout:
                name, port = path.split(".")
                inner = getattr(self._components[name], port)
                m.d.comb += inner.eq(view[path]) if to_component else view[path].eq(inner)
        return m


def _packed(layout: data.StructLayout, values: PortValues) -> int:
    return int(layout.const(values).as_value().value)


def _unpacked(layout: data.StructLayout, bits: int) -> dict[str, int]:
    constant = layout.from_bits(bits)
    return {path: int(constant[path]) for path, _field in layout}


def run_every_cycle(components: Mapping[str, Component], family: Family, stimuli: Sequence[PortValues]) -> list[dict[str, int]]:
    """Outputs in every cycle after reset, as the inputs of that cycle are applied, before its clock edge."""
    bench = _Bench(components)
    items = [_packed(bench.inputs, values) for values in stimuli]
    if family is Family.PORTABLE:
        return [_unpacked(bench.outputs, bits) for bits in _simulated(bench, items)]
    size = (bench.inputs.size + 7) // 8
    blob = np.frombuffer(b"".join(item.to_bytes(size, "little") for item in items), np.uint8).reshape(-1, size)
    results, cycles = CompiledStream(bench, family).run(0, blob, np.arange(len(items), dtype=np.uint64), drain=0)
    assert list(cycles) == list(range(len(items)))
    mask = (1 << bench.outputs.size) - 1
    return [_unpacked(bench.outputs, int.from_bytes(result.tobytes(), "little") & mask) for result in results]


def _simulated(bench: _Bench, items: Sequence[int]) -> list[int]:
    found: list[int] = []

    async def drive(ctx: object) -> None:
        for item in items:
            ctx.set(bench.i.payload.as_value(), item)  # type: ignore[attr-defined]
            found.append(ctx.get(bench.o.payload.as_value()))  # type: ignore[attr-defined]
            await ctx.tick()  # type: ignore[attr-defined]

    simulator = simulator_of(bench)
    simulator.add_testbench(drive)
    simulator.run()
    return found
