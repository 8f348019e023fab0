"""Reads what Yosys and nextpnr report about a design for the LFE5U-85F."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["AVAILABLE", "DEVICE", "Report", "Route", "cells_of", "excess", "route_of"]

#: JSON-ready: block, preset, device, tools, cells.
Report = dict[str, Any]

#: The FPGA of the largest ULX3S.
DEVICE = "LFE5U-85F"

#: What it has: Lattice FPGA-DS-02012, "ECP5 and ECP5-5G Family Data Sheet", table 1.1. A carry cell takes the place of two LUT4.
AVAILABLE = {"LUT4": 83_640, "TRELLIS_FF": 83_640, "MULT18X18D": 156, "DP16KD": 208}

#: Cells that are reported even if there are none.
_ALWAYS = ("LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "MULT18X18D", "DP16KD")


def cells_of(statistics: str) -> dict[str, int]:
    """The cells that count, by type, from the answer of Yosys' ``stat -json``. Raises ``ValueError`` if it is something else."""
    try:
        found = json.loads(statistics)["design"]["num_cells_by_type"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError("these are not the statistics of Yosys") from None
    return {name: int(found.get(name, 0)) for name in _ALWAYS}


def excess(cells: Mapping[str, int]) -> list[str]:
    """What there is too much of, as "MULT18X18D 160 of 156"; a carry cell counts as two LUT4, a LUT memory as four."""
    luts = cells["LUT4"] + 2 * cells["CCU2C"] + 4 * cells["TRELLIS_DPR16X4"]
    used = {**cells, "LUT4": luts}
    return [f"{name} {used[name]} of {limit}" for name, limit in AVAILABLE.items() if used[name] > limit]


@dataclass(frozen=True)
class Route:
    """Result of place and route: the clock that the slowest path allows, and that path's ends and parts."""

    seed: int
    fmax_mhz: float
    path_from: str
    path_to: str
    logic_ns: float
    routing_ns: float
    utilization: dict[str, int]

    @property
    def path_ns(self) -> float:
        """Length of the path, with clock-to-output and setup times."""
        return self.logic_ns + self.routing_ns

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


def route_of(report: str, seed: int) -> Route:
    """Read nextpnr's ``--report``. Raises ``ValueError`` if it has no clock or no path within one."""
    content = json.loads(report)
    paths = [path for path in content["critical_paths"] if path["from"] == path["to"]]
    if not content["fmax"] or not paths:
        raise ValueError("nextpnr reports no path between registers")
    steps = paths[0]["path"]
    routing = sum(step["delay"] for step in steps if step["type"] == "routing")
    return Route(
        seed=seed,
        fmax_mhz=min(clock["achieved"] for clock in content["fmax"].values()),
        path_from=steps[0]["from"]["cell"],
        path_to=steps[-1]["to"]["cell"],
        logic_ns=sum(step["delay"] for step in steps) - routing,
        routing_ns=routing,
        utilization={name: cell["used"] for name, cell in content["utilization"].items() if cell["used"]},
    )
