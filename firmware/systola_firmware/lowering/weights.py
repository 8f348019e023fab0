"""The weight-memory image: tiles, parameters and tables in the layouts that ``isa.py`` defines.

Every blob starts at a word boundary. Equal blobs are stored once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.errors import DoesNotFit
from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config


def wrap_int32(values: npt.NDArray[np.int64]) -> Int32Array:
    """``values`` modulo 2^32, as the engine's adders compute them."""
    return values.astype(np.uint64).astype(np.uint32).view(np.int32)


def fold_zero_point(bias: Int32Array, weight_sums: npt.NDArray[np.int64], zero_point: int) -> Int32Array:
    """``bias − z_in·Σw``: with it the array multiplies raw int8 by int8, and a border of value ``z_in`` counts as
    zero."""
    return wrap_int32(bias.astype(np.int64) - zero_point * weight_sums)


def dense_tiles(tiles: Int8Array) -> bytes:
    """Dense tiles ``[..., rows, columns]`` in the order MATMUL reads them: word j, byte i*columns + c is ``W[j*R +
    i][c]``."""
    return np.ascontiguousarray(tiles).tobytes()


def diagonal_tiles(taps: Int8Array, config: Config) -> bytes:
    """Diagonal tiles ``[groups, taps, columns]``, packed R taps a word; the last word is filled up with zeros."""
    raw = np.ascontiguousarray(taps).tobytes()
    return raw.ljust(-(-len(raw) // config.weight_word_bytes) * config.weight_word_bytes, b"\0")


def is_per_channel(requantization: Requantization) -> bool:
    """Whether the channels' multipliers or shifts really differ: if they are all equal, it is cheaper to have them in
    the instruction."""
    return len(set(zip(requantization.multiplier.tolist(), requantization.shift.tolist(), strict=True))) > 1


def channel_parameters(bias: Int32Array, requantization: Requantization, config: Config) -> bytes:
    """Parameters of POST: for each group of ``columns`` channels the biases and, if they differ, multipliers and
    shifts.

    Absent channels of the last group have zeros.
    """
    channels = bias.size
    groups = -(-channels // config.columns)

    def grouped(values: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.generic]:
        padded = np.zeros(groups * config.columns, dtype=dtype)
        padded[:channels] = values
        return padded.reshape(groups, config.columns)

    biases = grouped(bias, "<i4")
    if not is_per_channel(requantization):
        return biases.tobytes()
    multipliers = grouped(requantization.multiplier, "<i4")
    shifts = grouped(requantization.shift, "i1")
    padding = b"\0" * (config.weight_word_bytes - config.columns)
    return b"".join(biases[g].tobytes() + multipliers[g].tobytes() + shifts[g].tobytes() + padding for g in range(groups))


def cell_parameters(bias: Int32Array, requantization: Requantization, config: Config) -> bytes:
    """Parameters of LSTM: multipliers and shifts of the gates for one group of columns, then the biases of every group.

    ``bias`` has the gates of a hidden unit side by side: ``[4 * hidden]``; ``requantization`` has one element a gate.
    """
    units = config.columns // requantization.multiplier.size
    shifts = np.tile(requantization.shift, units).astype("i1").tobytes()
    groups = -(-bias.size // config.columns)
    biases = np.zeros(groups * config.columns, "<i4")
    biases[: bias.size] = bias
    factors = np.tile(requantization.multiplier, units).astype("<i4").tobytes()
    return factors + shifts.ljust(config.weight_word_bytes, b"\0") + biases.tobytes()


def table_entries(*tables: npt.NDArray[np.generic]) -> bytes:
    """Tables of 256 entries as TABLE loads them: int32, little endian, entry ``i`` for the byte whose unsigned reading
    is ``i``."""
    return b"".join(np.asarray(table).astype("<i4").tobytes() for table in tables)


class WeightImage:
    """Collects blobs and gives them word addresses. ``add`` never fails; :meth:`finish` checks the size."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._parts: list[bytes] = []
        self._words = 0
        self._known: dict[bytes, int] = {}

    @property
    def words(self) -> int:
        """Words used so far."""
        return self._words

    def add(self, blob: bytes) -> int:
        """Word address of ``blob``, a whole number of words; appended if it is not in the image yet."""
        size = self._config.weight_word_bytes
        if len(blob) % size:
            raise ValueError(f"a blob of {len(blob)} bytes is no whole number of {size}-byte words")
        if blob not in self._known:
            self._known[blob] = self._words
            self._parts.append(blob)
            self._words += len(blob) // size
        return self._known[blob]

    def finish(self) -> bytes:
        """The image. Raises :class:`DoesNotFit` if it is larger than the weight memory."""
        image = b"".join(self._parts)
        if len(image) > self._config.weight_bytes:
            raise DoesNotFit("weight memory", len(image), self._config.weight_bytes)
        return image
