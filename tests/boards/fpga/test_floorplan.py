"""The floorplan: sites are those of the device, each taken once, and what is connected lies together."""

import itertools
import json
from typing import Any

import numpy as np
import pytest

from systola_boards.fpga.devices import DEVICES, HardBlocks
from systola_boards.fpga.floorplan import floorplan

BLOCKS = (
    HardBlocks("MULT", tuple(range(0, 40, 10)), (5, 25), ((0, "A"), (1, "B"))),
    HardBlocks("RAM", tuple(range(0, 40, 10)), (15,), ((2, "C"),)),
)


def netlist(cells: dict[str, tuple[str, list[int]]]) -> bytes:
    """Of cells with their type and the nets at their pins; a pin without a net is constant."""
    described = {
        name: {"type": kind, "connections": {f"P{pin}": [net, "0"] for pin, net in enumerate(nets)}}
        for name, (kind, nets) in cells.items()
    }
    return json.dumps({"modules": {"top": {"cells": described}}}).encode()


def chain(kind: str, count: int, *, registers: int = 0, prefix: str = "", first_net: int = 0) -> dict[str, tuple[str, list[int]]]:
    """Blocks in a row, with registers between each two."""
    cells: dict[str, tuple[str, list[int]]] = {}
    net = first_net
    for number in range(count):
        cells[f"{prefix}block{number}"] = (kind, [net, net + 1] if number else [net + 1])
        for register in range(registers if number < count - 1 else 0):
            cells[f"{prefix}register{number}_{register}"] = ("FF", [net + 1, net + 2])
            net += 1
        net += 1
    return cells


def locations(made: bytes) -> dict[str, tuple[int, int, str]]:
    found = {}
    for name, cell in json.loads(made)["modules"]["top"]["cells"].items():
        if "BEL" in cell.get("attributes", {}):
            column, row, kind = cell["attributes"]["BEL"].split("/")
            found[name] = (int(column[1:]), int(row[1:]), kind)
    return found


@pytest.mark.parametrize("registers", [0, 2])
def test_a_chain_lies_in_a_row(registers: int) -> None:
    """Eight multipliers have just the sites of two rows: the shortest chain crosses between the rows once."""
    plan = floorplan(netlist(chain("MULT", 8, registers=registers)), BLOCKS)
    found = locations(plan.netlist)
    assert set(plan.sites.values()) <= {name for block in BLOCKS for *_, name in block.sites()}
    assert len(found) == len(set(found.values())) == 8
    ways = [found[f"block{number}"] for number in range(8)]
    length = sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.pairwise(ways))
    assert length <= 3 * 12 + 20
    assert plan.cost < plan.cost_before


def test_only_hard_blocks_are_placed_and_nothing_else_changes() -> None:
    cells = chain("MULT", 3, registers=1) | chain("RAM", 2, prefix="ram_", first_net=100)
    given = netlist(cells)
    made = floorplan(given, BLOCKS).netlist
    assert set(locations(made)) == {name for name, (kind, _) in cells.items() if kind != "FF"}
    design: dict[str, Any] = json.loads(made)
    for cell in design["modules"]["top"]["cells"].values():
        cell.pop("attributes", None)
    assert design == json.loads(given)


def test_registers_weaken_a_pull() -> None:
    """Of two partners, the one without registers between is the nearer."""
    cells = chain("MULT", 16) | chain("RAM", 1, prefix="near_", first_net=500)
    cells["near_block0"] = ("RAM", [3, 500])  # at block3's output
    cells |= {"far_block0": ("RAM", [600])} | {f"way{n}": ("FF", [600 + n, 601 + n]) for n in range(20)} | {"end": ("FF", [620, 3])}
    found = locations(floorplan(netlist(cells), BLOCKS).netlist)

    def distance(name: str) -> int:
        return min(abs(found[name][0] - found[f"block{n}"][0]) + abs(found[name][1] - found[f"block{n}"][1]) for n in (2, 3))

    assert distance("near_block0") <= distance("far_block0")


def test_the_same_netlist_gives_the_same_plan_and_a_seed_another() -> None:
    given = netlist(chain("MULT", 8, registers=1))
    assert floorplan(given, BLOCKS, 3).netlist == floorplan(given, BLOCKS, 3).netlist
    assert len({floorplan(given, BLOCKS, seed).netlist for seed in (1, 2, 3)}) > 1


def test_more_blocks_than_sites() -> None:
    with pytest.raises(ValueError, match="5 RAM for 4 sites"):
        floorplan(netlist(chain("RAM", 5)), BLOCKS)


def test_a_netlist_without_hard_blocks_stays() -> None:
    given = netlist(chain("FF", 3))
    assert floorplan(given, BLOCKS).netlist == given


@pytest.mark.parametrize("name", [name for name, device in DEVICES.items() if device.hard_blocks])
def test_sites_of_the_devices_are_different(name: str) -> None:
    for block in DEVICES[name].hard_blocks:
        sites = block.sites()
        assert len({bel for *_, bel in sites}) == len(np.unique([site[:2] for site in sites], axis=0)) == len(sites)
