"""Random steps of LSTM units, for every bench of the cell: items, constants and what the model says."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_sim.golden import lstm_cell as model

__all__ = ["ITEM", "RESULT", "Constants", "expected", "random_constants", "random_items"]

#: Bytes of ``systola_hdl.full.post.lstm.cell.LSTM_ITEM``.
ITEM = np.dtype([("recurrent", "<i4", 4), ("preactivation", "<i2", 4), ("cell", "<i2")])
#: Bytes of ``systola_hdl.full.post.lstm.cell.LSTM_RESULT``.
RESULT = np.dtype([("cell", "<i2"), ("hidden", "i1")])

_INT16 = np.arange(-(1 << 15), 1 << 15)
Items = npt.NDArray[np.void]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Constants:
    """Fields of an LSTM instruction."""

    exponent: int
    clip: int
    multiplier: int
    shift: int
    zero_point: int

    def fields(self) -> dict[str, object]:
        """As ``systola_hdl.full.post.lstm.cell.LSTM_CONSTANTS`` has them."""
        return {
            "exponent": self.exponent,
            "clip": self.clip,
            "factor": {"multiplier": self.multiplier, "shift": self.shift},
            "zero_point": self.zero_point,
        }


def random_constants(rng: np.random.Generator, exponent: int) -> Constants:
    """Clip and hidden scale as models have them, and at their limits."""
    return Constants(
        exponent=exponent,
        clip=int(rng.choice([0, 0, 1, (1 << 15) - 1, int(rng.integers(1, 1 << 15))])),
        multiplier=int(rng.choice([0, 1 << 30, (1 << 31) - 1, *rng.integers(1 << 30, 1 << 31, 6)])),
        shift=int(rng.choice([-31, -14, 0, 6, *rng.integers(-24, -20, 8)])),
        zero_point=int(rng.choice([-128, 127, 0, *rng.integers(-128, 128, 3)])),
    )


def _spread(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> Int64Array:
    """Signed integers of every magnitude up to ``bits``, and the corners."""
    values = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape) >> rng.integers(0, bits, shape)
    corners = rng.choice([-(1 << (bits - 1)), (1 << (bits - 1)) - 1, -1, 0, 1], shape)
    return np.where(rng.random(shape) < 0.05, corners, values)


def _set_preactivation(items: Items, gate: int, chosen: npt.NDArray[np.bool_], values: Int64Array) -> None:
    """Make ``values`` the sums of the two parts of ``gate`` where that is possible without saturation."""
    parts = items["preactivation"][:, gate].astype(np.int64)
    items["recurrent"][:, gate] = np.where(chosen, values - parts, items["recurrent"][:, gate])


def _near_tie_of_forgetting(rng: np.random.Generator, items: Items) -> Int64Array:
    """Cell states whose product with the forget gate is within two of half a unit of 2^15, where the gate is odd."""
    forget = model.sigmoid(_preactivations(items)[:, 1]).astype(np.int64)
    inverse = forget
    for _ in range(4):  # Newton: each step doubles the right bits, three at the start
        inverse = inverse * (2 - forget * inverse) & 0x7FFF
    near = (1 << 14) + rng.integers(-2, 3, len(items))
    return (near * inverse & 0x7FFF) - (rng.integers(0, 2, len(items)) << 15)


@functools.cache
def _near_ties_of_input(exponent: int) -> tuple[Int64Array, Int64Array]:
    """Preactivations of input gate and candidate with a product within two of half a unit of the cell state."""
    bits = 30 + exponent
    gate_arguments = np.random.default_rng(exponent & 0xFF).choice(_INT16, 400)
    candidates, candidate_arguments = np.unique(model.tanh(_INT16, model.GATE_EXPONENT), return_index=True)
    products = model.sigmoid(gate_arguments)[:, None] * candidates[None, :]
    distance = np.abs((products & ((1 << bits) - 1)) - (1 << (bits - 1)))
    rows, columns = np.nonzero((distance <= 2) & (products != 0))
    return gate_arguments[rows], _INT16[candidate_arguments[columns]]


def _preactivations(items: Items) -> npt.NDArray[np.int32]:
    return model.saturate(items["preactivation"].astype(np.int32) + model.saturate(items["recurrent"]))


def random_items(rng: np.random.Generator, count: int, exponent: int) -> Items:
    """``count`` items for a cell state of scale ``2^exponent``: of all magnitudes, and a quarter near ties of the two
    roundings."""
    items = np.zeros(count, ITEM)
    items["preactivation"] = _spread(rng, 16, (count, 4))
    wide = rng.random((count, 4)) < 0.1
    items["recurrent"] = np.where(wide, _spread(rng, 32, (count, 4)), _spread(rng, 16, (count, 4)))
    gates, candidates = _near_ties_of_input(exponent)
    chosen, which = rng.random(count) < 0.125, rng.integers(0, len(gates), count)
    _set_preactivation(items, 0, chosen, gates[which])
    _set_preactivation(items, 2, chosen, candidates[which])
    uniform = rng.integers(-(1 << 15), 1 << 15, count)
    items["cell"] = np.where(rng.random(count) < 0.5, uniform, _spread(rng, 16, (count,)))
    items["cell"] = np.where(rng.random(count) < 0.125, _near_tie_of_forgetting(rng, items), items["cell"])
    return items


def expected(items: Items, constants: Constants) -> npt.NDArray[np.void]:
    """What the model says: :data:`RESULT` an item."""
    results = np.zeros(len(items), RESULT)
    results["hidden"], results["cell"] = model.cell_step(
        _preactivations(items),
        items["cell"],
        exponent=constants.exponent,
        clip=constants.clip,
        multiplier=constants.multiplier,
        shift=constants.shift,
        zero_point=constants.zero_point,
    )
    return results
