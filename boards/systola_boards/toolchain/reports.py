"""Reads what Yosys and nextpnr report about a design."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Clock", "Route", "cells_of", "route_of"]


def cells_of(statistics: str) -> dict[str, int]:
    """The cells by type, from the answer of Yosys' ``stat -json``. Raises ``ValueError`` if it is something else."""
    try:
        found = json.loads(statistics)["design"]["num_cells_by_type"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError("these are not the statistics of Yosys") from None
    return {name: int(count) for name, count in sorted(found.items()) if not name.startswith("$")}


@dataclass(frozen=True)
class Clock:
    """One clock of a routed design, in MHz: what its slowest path allows, and what was asked for."""

    name: str
    achieved_mhz: float
    constraint_mhz: float


@dataclass(frozen=True)
class Route:
    """Result of place and route: the clocks, and the ends and parts of the slowest path within one clock.

    The first clock is the one with the smallest slack. ``utilization`` is nextpnr's own count of what is used.
    """

    seed: int
    clocks: tuple[Clock, ...]
    path_from: str
    path_to: str
    logic_ns: float
    routing_ns: float
    utilization: dict[str, int]

    @property
    def fmax_mhz(self) -> float:
        """What the slowest path of the critical clock allows."""
        return self.clocks[0].achieved_mhz

    @property
    def slack(self) -> float:
        """The critical clock's achieved frequency divided by the one asked for: timing is met from 1 on."""
        return self.clocks[0].achieved_mhz / self.clocks[0].constraint_mhz

    @property
    def path_ns(self) -> float:
        """Length of the path, with clock-to-output and setup times."""
        return self.logic_ns + self.routing_ns

    def record(self) -> dict[str, Any]:
        """The result, ready for JSON."""
        return {**dataclasses.asdict(self), "fmax_mhz": self.fmax_mhz}


def route_of(report: str, seed: int) -> Route:
    """Read nextpnr's ``--report``. Raises ``ValueError`` if it has no clock or no path within one."""
    content = json.loads(report)
    clocks = [Clock(name, clock["achieved"], clock["constraint"]) for name, clock in content["fmax"].items()]
    clocks.sort(key=lambda clock: clock.achieved_mhz / clock.constraint_mhz)
    steps: list[dict[str, Any]] = []
    for path in content["critical_paths"]:
        if clocks and path["from"] == path["to"] and path["from"].endswith(f" {clocks[0].name}"):
            steps = path["path"]
            break
    if not steps:
        raise ValueError("nextpnr reports no path between registers")
    routing = sum(step["delay"] for step in steps if step["type"] == "routing")
    return Route(
        seed=seed,
        clocks=tuple(clocks),
        path_from=steps[0]["from"]["cell"],
        path_to=steps[-1]["to"]["cell"],
        logic_ns=sum(step["delay"] for step in steps) - routing,
        routing_ns=routing,
        utilization={name: cell["used"] for name, cell in content["utilization"].items() if cell["used"]},
    )
