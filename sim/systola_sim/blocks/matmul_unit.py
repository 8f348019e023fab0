"""What :class:`systola_hdl.full.matmul.unit.MatmulUnit` leaves in the accumulators: the instruction's text as plain
loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation

__all__ = ["matmul_jobs", "weight_tile"]

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]


def weight_tile(config: Config, operation: Operation, weights: Int8Array, number: int) -> Int8Array:
    """Tile ``number`` of a block, shape ``rows, columns``; ``weights`` is the weight memory, shape ``words, word
    bytes``."""
    rows_per_word = config.weight_rows_per_cycle
    if not operation["diagonal"]:
        first = operation["weights"] + number * config.tile_words
        return weights[first : first + config.tile_words].reshape(config.rows, config.columns)
    word = weights[operation["weights"] + number // rows_per_word].reshape(rows_per_word, config.columns)
    tile = np.zeros((config.rows, config.columns), dtype=np.int8)
    np.fill_diagonal(tile, word[number % rows_per_word])
    return tile


def matmul_jobs(config: Config, operation: Operation, activations: Int8Array, weights: Int8Array) -> Iterator[Int32Array]:
    """The filled half of every job in order, shape ``positions, columns``; sums wrap at 32 bits.

    ``activations`` is the activation memory's bytes; ``weights`` as in :func:`weight_tile`.
    """

    def steps(*loops: str) -> Iterator[int]:
        ranges = [[i * operation[f"{loop}_step"] for i in range(operation[f"{loop}_count"])] for loop in loops]
        return (sum(offsets) for offsets in itertools.product(*ranges))

    lanes = np.arange(config.rows)
    tiles_per_group = operation["k2_count"] * operation["k1_count"] * operation["k0_count"]
    for block, group in itertools.product(range(operation["block_count"]), range(operation["group_count"])):
        job = operation["source"] + block * operation["block_step"] + group * operation["group_step"]
        half = np.zeros((operation["y_count"] * operation["x_count"], config.columns), dtype=np.int64)
        for tile, chunk in enumerate(steps("k2", "k1", "k0")):
            matrix = weight_tile(config, operation, weights, group * tiles_per_group + tile).astype(np.int64)
            for position, offset in enumerate(steps("y", "x")):
                vector = activations[(job + chunk + offset + lanes) % config.activation_bytes]
                half[position] += vector.astype(np.int64) @ matrix
        yield half.astype(np.int32)
