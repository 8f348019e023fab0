"""Where multipliers and block RAMs go, before nextpnr places the rest.

nextpnr's analytic placer computes a position for each of them and then puts one after the other on the free site
nearest to its position. When nearly all sites are taken, the last ones end up anywhere: on a full LFE5U-85F this made
the wires almost twice as long. They are few, though, so they can be placed together:

1. Connections: each net is a spring of strength 1 / (pins - 1) between each two of its cells; nets of more than
   ``_MOST_PINS`` pins are left out.
2. The soft cells (LUTs, flip-flops, carries) are eliminated from the Laplacian matrix of these springs: what is left
   says how strongly each two hard blocks pull each other through the logic and registers between them. This is the
   Schur complement; the more registers lie in a row between two, the weaker the pull.
3. Simulated annealing exchanges sites: cost is the sum over all pairs of pull times distance ** 1.5, so that one long
   way costs more than two of half its length.

All costs that are compared are integers, so the same netlist gives the same plan on every machine.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, diags_array

from systola_boards.fpga.devices import HardBlocks

__all__ = ["FLOORPLAN_VERSION", "Plan", "floorplan"]

#: To be raised with every change of the results, because results are cached by it.
FLOORPLAN_VERSION = "1"
#: A net of more pins (a clock, a reset, an enable) says little about where a cell belongs.
_MOST_PINS = 24
#: Pulls are whole multiples of this fraction of the strongest pull between two pins.
_PULL_UNIT = 1e-3
#: Exchanges tried, for each hard block.
_TRIES = 1500
#: The last temperature divided by the first.
_COOLING = 1e-4
#: Steps in which the soft cells' positions are solved for; the residual falls by a tenth in a few.
_SOLVER_STEPS = 150


@dataclass(frozen=True)
class Plan:
    """A netlist with the sites of its hard blocks written in, and what the annealing made of the cost."""

    netlist: bytes
    cost_before: int
    cost: int
    sites: dict[str, str]


def floorplan(netlist: bytes, blocks: Sequence[HardBlocks], seed: int = 1) -> Plan:
    """Choose a site for each hard block of a netlist of Yosys (JSON, its top module named ``top``): attribute ``BEL``.

    Raises ``ValueError`` if there are more blocks than sites. A full LFE5U-85F takes about two minutes.
    """
    design = json.loads(netlist)
    cells: dict[str, Any] = design["modules"]["top"]["cells"]
    names = sorted(name for name, cell in cells.items() if any(cell["type"] == kind.cell for kind in blocks))
    kinds = np.array(
        [next(i for i, kind in enumerate(blocks) if cells[name]["type"] == kind.cell) for name in names], dtype=np.int64
    )
    sites = [kind.sites() for kind in blocks]
    for index, kind in enumerate(blocks):
        wanted = int((kinds == index).sum())
        if wanted > len(sites[index]):
            raise ValueError(f"{wanted} {kind.cell} for {len(sites[index])} sites")
    if not names:
        return Plan(netlist, 0, 0, {})
    annealing = _Annealing(_pulls(cells, names), kinds, [[site[:2] for site in some] for some in sites], seed)
    before = annealing.cost()
    annealing.run(_TRIES * len(names))
    chosen = {name: sites[kind][site][2] for name, kind, site in zip(names, kinds, annealing.site, strict=True)}
    for name, site in chosen.items():
        cells[name].setdefault("attributes", {})["BEL"] = site
    return Plan(json.dumps(design).encode(), before, annealing.cost(), chosen)


def _pulls(cells: Mapping[str, Any], names: Sequence[str]) -> NDArray[np.int64]:
    """How strongly each two of the cells ``names`` pull each other, in units of ``_PULL_UNIT``."""
    hard = len(names)
    numbers = {name: number for number, name in enumerate([*names, *sorted(set(cells) - set(names))])}
    nets: dict[int, set[int]] = defaultdict(set)
    for name, cell in cells.items():
        for bits in cell["connections"].values():
            for bit in bits:
                if isinstance(bit, int):
                    nets[bit].add(numbers[name])
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for _, pins in sorted(nets.items()):
        if 2 <= len(pins) <= _MOST_PINS:
            ordered = sorted(pins)
            for position, one in enumerate(ordered):
                rows += [one] * position
                columns += ordered[:position]
                weights += [1 / (len(pins) - 1)] * position
    springs = coo_array((weights, (rows, columns)), shape=(len(numbers), len(numbers))).tocsr()
    springs = springs + springs.T
    # The small addend makes the matrix regular where cells have no springs.
    laplacian = (diags_array(np.asarray(springs.sum(axis=1)) + 1e-6) - springs).tocsr()
    soft, across = laplacian[hard:, hard:].tocsr(), laplacian[hard:, :hard].toarray()
    solution = _solve(soft, -across) if len(numbers) > hard else np.zeros_like(across)
    pulls = -(laplacian[:hard, :hard].toarray() + across.T @ solution)
    np.fill_diagonal(pulls, 0)
    rounded: NDArray[np.int64] = np.rint((pulls + pulls.T) / 2 / _PULL_UNIT).astype(np.int64)
    return np.maximum(rounded, 0)


def _solve(matrix: Any, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Conjugate gradients with the diagonal as preconditioner, for all columns of ``right`` at once."""
    inverse = 1 / matrix.diagonal()[:, None]
    solution = np.zeros_like(right)
    residual = right.copy()
    direction = inverse * residual
    product = (residual * direction).sum(axis=0)
    for _ in range(_SOLVER_STEPS):
        image = matrix @ direction
        step = product / np.maximum((direction * image).sum(axis=0), 1e-30)
        solution += step * direction
        residual -= step * image
        conditioned = inverse * residual
        following = (residual * conditioned).sum(axis=0)
        direction = conditioned + following / np.maximum(product, 1e-30) * direction
        product = following
    return solution


class _Annealing:
    """Sites of hard blocks, changed one exchange at a time."""

    def __init__(
        self, pulls: NDArray[np.int64], kinds: NDArray[np.int64], sites: Sequence[Sequence[tuple[int, int]]], seed: int
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.kinds = kinds.tolist()
        self.coordinates = [np.array(some, dtype=np.int64).reshape(-1, 2) for some in sites]
        self.others = [np.flatnonzero(row) for row in pulls]
        self.pulls = [row[others] for row, others in zip(pulls, self.others, strict=True)]
        reach = int(max(coordinates.max(initial=0) for coordinates in self.coordinates))
        self.costs: NDArray[np.int64] = np.rint(np.arange(2 * reach + 2) ** 1.5 * 8).astype(np.int64)
        self.at = [np.full(len(coordinates), -1, dtype=np.int64) for coordinates in self.coordinates]
        self.site = np.zeros(len(kinds), dtype=np.int64)
        self.position = np.zeros((len(kinds), 2), dtype=np.int64)
        for kind, coordinates in enumerate(self.coordinates):
            members = np.flatnonzero(kinds == kind)
            for block, site in zip(members, self.random.permutation(len(coordinates)), strict=False):
                self._put(int(block), int(site))

    def cost(self) -> int:
        """The cost of all pairs."""
        return sum(self._cost(block, self.position[block], -1) for block in range(len(self.kinds))) // 2

    def run(self, tries: int) -> None:
        """Try so many exchanges, of a block with another or with a free site."""
        random = self.random
        changes: list[int] = []
        start = temperature = 0.0
        for number in range(tries):
            block = int(random.integers(len(self.kinds)))
            kind = self.kinds[block]
            site = self._wanted(block) if random.random() < 0.5 else int(random.integers(len(self.coordinates[kind])))
            if site == self.site[block]:
                continue
            change = self._change(block, site)
            if number < 500:  # to begin with, see how much an exchange changes the cost
                changes.append(abs(change))
                start = temperature = sum(changes) / len(changes)
            elif change < 0 or random.random() < np.exp(-change / max(temperature, 1e-9)):
                self._exchange(block, site)
            temperature = start * _COOLING ** (number / tries)

    def _put(self, block: int, site: int) -> None:
        kind = self.kinds[block]
        self.at[kind][site], self.site[block], self.position[block] = block, site, self.coordinates[kind][site]

    def _exchange(self, block: int, site: int) -> None:
        kind, left = self.kinds[block], int(self.site[block])
        other = int(self.at[kind][site])
        self.at[kind][left] = -1
        if other >= 0:
            self._put(other, left)
        self._put(block, site)

    def _change(self, block: int, site: int) -> int:
        """What the exchange would add to the cost."""
        kind = self.kinds[block]
        here, there, other = self.position[block], self.coordinates[kind][site], int(self.at[kind][site])
        change = self._cost(block, there, other) - self._cost(block, here, other)
        if other >= 0:
            change += self._cost(other, here, block) - self._cost(other, there, block)
        return change

    def _cost(self, block: int, position: NDArray[np.int64], without: int) -> int:
        """Cost of all pairs with ``block`` if it were at ``position``. The pair with ``without`` is left out, because
        its distance stays the same; -1 leaves out none."""
        others = self.others[block]
        costs = self.pulls[block] * self.costs[np.abs(self.position[others] - position).sum(axis=1)]
        return int(costs.sum() if without < 0 else costs[others != without].sum())

    def _wanted(self, block: int) -> int:
        """A site near the weighted middle of the blocks that pull ``block``, with a random offset of a few columns and
        rows."""
        kind, pulls = self.kinds[block], self.pulls[block]
        middle = (pulls @ self.position[self.others[block]]) // max(int(pulls.sum()), 1)
        aim = middle + self.random.integers(-20, 21, 2)
        return int(np.abs(self.coordinates[kind] - aim).sum(axis=1).argmin())
