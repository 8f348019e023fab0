"""How a bench gets its simulator: with a clock, and with the rules of streams attached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from amaranth.hdl import Elaboratable, ValueLike
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator

from support.benches.stream_rules import attach

__all__ = ["RepeatedSimulation", "simulator_of"]


def simulator_of(
    design: Elaboratable,
    blocks: Mapping[str, Component] | None = None,
    *,
    unless: ValueLike = 0,
    exempt: Mapping[str, str] | None = None,
) -> Simulator:
    """A simulator of ``design`` whose domain ``sync`` has a clock.

    :func:`~support.benches.stream_rules.attach` watches every stream of which a block is the source.

    Parameters
    ----------
    blocks:
        Components in the design, by a name for messages. None: the design, if it is a component.
    unless:
        As in ``attach``, for all of them.
    exempt:
        As in ``attach``; with ``blocks``, paths begin with the block's name.
    """
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    if blocks is None:
        if isinstance(design, Component):
            attach(simulator, design, unless=unless, exempt=exempt)
    else:
        reasons = dict(exempt or {})
        for name, block in blocks.items():
            own = {path: reasons.pop(path) for path in list(reasons) if path.startswith(f"{name}.")}
            own = {path.removeprefix(f"{name}."): reason for path, reason in own.items()}
            attach(simulator, block, name=name, unless=unless, exempt=own)
        if reasons:
            raise ValueError(f"of no block: {', '.join(reasons)}")
    return simulator


class RepeatedSimulation:
    """A simulator, which takes a second to make, for many runs: each from a reset, with processes of its own.

    Parameters
    ----------
    names:
        Of the processes of every run; all but the last are in the background.
    """

    def __init__(self, simulator: Simulator, *names: str) -> None:
        self._simulator = simulator
        self._processes: dict[str, Callable[[Any], Awaitable[None]]] = {}
        for name in names:
            simulator.add_testbench(self._testbench(name), background=name != names[-1])

    def _testbench(self, name: str) -> Callable[[Any], Any]:
        async def testbench(ctx: Any) -> None:
            await self._processes[name](ctx)

        return testbench

    def run(self, **processes: Callable[[Any], Awaitable[None]]) -> None:
        """Run the processes until the last one ends."""
        if self._processes:
            self._simulator.reset()
        self._processes = processes
        self._simulator.run()
