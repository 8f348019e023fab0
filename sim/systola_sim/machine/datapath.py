"""What each instruction does to the memories: the arithmetic of the numpy interpreter. The order of events is the
interpreter's.

Every function works on :class:`Memories` of N inferences at once, which share weights, tables and addresses. MATMUL,
POST and LSTM (:mod:`systola_sim.machine.lstm_datapath`) are cut into the *jobs* that the accumulators hand over, one
for each block and group; :mod:`systola_sim.machine.interpreter` decides when each of them runs, and only if its fields
break no rule (:mod:`systola_sim.machine.rules`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import SHIFT_MAXIMUM, SHIFT_MINIMUM, Combine, ErrorCode, Operation, Rounding
from systola_sim.golden.lstm_cell import saturate
from systola_sim.golden.requantize import clamp, requantize

__all__ = [
    "Memories",
    "ProgramError",
    "UnsoundProgramError",
    "job_count",
    "run_matmul_job",
    "run_post_job",
    "run_table",
    "run_vector",
]

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

#: Products of int8 that float32 adds exactly in any order: each is at most 2^14, and float32 holds every integer up to
#: 2^24.
EXACT_TERMS = 1 << 10
#: Elements gathered at a time, so that the working set of a large batch stays in the cache.
GATHER_ELEMENTS = 1 << 20
#: The value with which a maximum starts: the lowest int8.
LOWEST = -128


class ProgramError(Exception):
    """The engine stops the program with ``code``."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class UnsoundProgramError(Exception):
    """The program does what the instruction set leaves undefined, so there is no right answer to compute."""


@dataclass
class Memories:
    """State of an engine that runs N inferences side by side.

    ``activation`` is int8 ``(N, activation_bytes)`` and C-contiguous, ``weights`` int8 ``(weight_bytes,)``. ``tables``
    (int32 ``(2, 256)``) and ``accumulators`` (int32, half × N × position × column) start as zeros.
    """

    config: Config
    activation: Int8Array
    weights: Int8Array
    tables: Int32Array = field(init=False)
    accumulators: Int32Array = field(init=False)

    def __post_init__(self) -> None:
        expected = (len(self.activation), self.config.activation_bytes)
        if self.activation.shape != expected or self.activation.dtype != np.int8 or not self.activation.flags.c_contiguous:
            raise ValueError(
                f"activation must be C-contiguous int8 {expected}, not {self.activation.dtype} {self.activation.shape}"
            )
        if self.weights.shape != (self.config.weight_bytes,) or self.weights.dtype != np.int8:
            raise ValueError(f"weights must be int8 ({self.config.weight_bytes},), not {self.weights.dtype} {self.weights.shape}")
        self.tables = np.zeros((2, 256), dtype=np.int32)
        self.accumulators = np.zeros((2, len(self.activation), self.config.accumulator_depth, self.config.columns), dtype=np.int32)

    def weight_slice(self, word: int, count: int) -> Int8Array:
        """``count`` bytes from the start of weight word ``word``. Raises :class:`ProgramError` past the end."""
        start = word * self.config.weight_word_bytes
        if start + count > self.weights.size:
            raise ProgramError(ErrorCode.WEIGHT_ADDRESS)
        return self.weights[start : start + count]

    def check(self, addresses: Int64Array) -> None:
        """Raise :class:`ProgramError` if an activation address is outside the memory."""
        if addresses.min() < 0 or addresses.max() >= self.config.activation_bytes:
            raise ProgramError(ErrorCode.ACTIVATION_ADDRESS)

    def read_int16(self, addresses: Int64Array) -> Int16Array:
        """The int16 at each address, little endian: ``(N, *addresses.shape)``. Raises :class:`ProgramError`."""
        pairs = addresses[..., np.newaxis] + np.arange(2)
        self.check(pairs)
        result: Int16Array = np.take(self.activation, pairs, axis=1).view("<i2")[..., 0]
        return result

    def write_int16(self, addresses: Int64Array, values: Int16Array) -> None:
        """Write ``values`` (``(N, *addresses.shape)``) as :meth:`read_int16` reads. Raises :class:`ProgramError`."""
        pairs = addresses[..., np.newaxis] + np.arange(2)
        self.check(pairs)
        self.activation[:, pairs] = values.astype("<i2")[..., np.newaxis].view(np.int8)

    def vectors(self, images: slice, addresses: Int64Array, width: int) -> Int8Array:
        """``width`` bytes from each address, wrapping at the end of the memory: int8 ``(images, *addresses.shape,
        width)``."""
        activation, size = self.activation[images], self.config.activation_bytes
        if addresses.max() + width <= size:
            return np.lib.stride_tricks.sliding_window_view(activation, width, axis=1)[:, addresses]
        return activation[:, (addresses[..., np.newaxis] + np.arange(width)) % size]


def _offsets(operation: Operation, *loops: str) -> Int64Array:
    """Address offsets of nested loops, outermost first, as one axis."""
    offsets = np.zeros(1, dtype=np.int64)
    for loop in loops:
        steps = np.arange(operation[f"{loop}_count"]) * operation[f"{loop}_step"]
        offsets = (offsets[:, np.newaxis] + steps).reshape(-1)
    return offsets


def _job_offset(operation: Operation, job: int) -> tuple[int, int]:
    """Group of a job, and the offset that block and group add to its addresses (group is the inner loop)."""
    block, group = divmod(job, operation["group_count"])
    return group, block * operation["block_step"] + group * operation["group_step"]


def job_count(operation: Operation) -> int:
    """Jobs of a MATMUL, POST or LSTM."""
    return operation["group_count"] * operation["block_count"]


def run_matmul_job(memories: Memories, operation: Operation, job: int, half: int) -> None:
    """Fill accumulator half ``half`` with job number ``job`` of a MATMUL. Raises :class:`ProgramError`."""
    config = memories.config
    positions, tiles = _offsets(operation, "y", "x"), _offsets(operation, "k2", "k1", "k0")
    group, offset = _job_offset(operation, job)
    diagonal = bool(operation["diagonal"])
    width = config.columns if diagonal else config.rows
    rows = tiles.size * (1 if diagonal else config.rows)  # rows of COLUMNS weights of this job; each group before has as many
    addresses = operation["source"] + offset + positions[:, np.newaxis] + tiles
    weights = memories.weight_slice(operation["weights"], (group + 1) * rows * config.columns)[group * rows * config.columns :]
    weights = weights.reshape(rows, config.columns).astype(np.float32)
    memories.check(addresses)

    accumulators = memories.accumulators[half, :, : positions.size]
    accumulators[...] = 0
    tiles_at_once = EXACT_TERMS // width
    images_at_once = max(1, GATHER_ELEMENTS // (positions.size * min(tiles.size, tiles_at_once) * width))
    for first_image in range(0, len(memories.activation), images_at_once):
        images = slice(first_image, first_image + images_at_once)
        for first_tile in range(0, tiles.size, tiles_at_once):
            some = slice(first_tile, first_tile + tiles_at_once)
            vectors = memories.vectors(images, addresses[:, some], width).astype(np.float32)
            if diagonal:
                sums = np.einsum("nptc,tc->npc", vectors, weights[some])
            else:
                lanes = weights[some.start * width : some.stop * width]
                sums = (vectors.reshape(-1, len(lanes)) @ lanes).reshape(*vectors.shape[:2], config.columns)
            accumulators[images] += sums.astype(np.int32)  # int32 wraps, as the accumulators do


def _requantize(values: Int32Array, multiplier: npt.ArrayLike, shift: npt.ArrayLike, operation: Operation) -> Int32Array:
    shifts = np.asarray(shift)
    if shifts.min() < SHIFT_MINIMUM or shifts.max() > SHIFT_MAXIMUM:
        raise UnsoundProgramError(f"{operation.opcode.name}: a channel's shift is outside {SHIFT_MINIMUM}..{SHIFT_MAXIMUM}")
    return requantize(values, multiplier, shifts, Rounding(operation["rounding"]))


def _clamp(values: Int32Array, operation: Operation) -> Int8Array:
    return clamp(values, operation["zero_point"], operation["minimum"], operation["maximum"])


def run_post_job(memories: Memories, operation: Operation, job: int, half: int) -> None:
    """Drain accumulator half ``half`` as job number ``job`` of a POST.

    Raises :class:`ProgramError` and :class:`UnsoundProgramError`.
    """
    config = memories.config
    positions = _offsets(operation, "y", "x")
    if positions.size > config.accumulator_depth:  # the error occurs when the drain gets there, not before
        raise ProgramError(ErrorCode.BAD_FIELD)
    group, offset = _job_offset(operation, job)
    channels = operation["last_columns"] if group == operation["group_count"] - 1 else config.columns

    per_channel = bool(operation["per_channel"])
    words = config.channel_parameter_words if per_channel else config.bias_words
    parameters = memories.weight_slice(operation["parameters"] + group * words, words * config.weight_word_bytes)
    integers = parameters[: (2 if per_channel else 1) * 4 * config.columns].view("<i4").reshape(-1, config.columns)[:, :channels]
    multiplier: npt.ArrayLike = operation["multiplier"]
    shift: npt.ArrayLike = operation["shift"]
    if per_channel:
        multiplier, shift = integers[1], parameters[8 * config.columns :][:channels]

    sums = memories.accumulators[half, :, : positions.size, :channels] + integers[0]
    values = _requantize(sums, multiplier, shift, operation)
    base = operation["destination"] + offset + positions[:, np.newaxis]
    if operation["wide"]:
        memories.write_int16(base + 2 * np.arange(channels), saturate(values).astype(np.int16))
        return
    addresses = base + np.arange(channels)
    memories.check(addresses)
    memories.activation[:, addresses] = _clamp(values, operation)


def _check_overlap(operation: Operation, written: Int64Array, read: list[Int64Array]) -> None:
    """The order of reads and writes is free, so an element may be written only over its own operands.

    ``written`` is int64 ``(elements,)``, each array of ``read`` ``(elements, taps)``.
    """
    owner = np.full(int(max(written.max(), *(addresses.max() for addresses in read))) + 1, -1)
    owner[written] = np.arange(written.size)
    for addresses in read:
        owners = owner[addresses]
        if np.any((owners >= 0) & (owners != np.arange(written.size)[:, np.newaxis])):
            raise UnsoundProgramError(f"{operation.opcode.name} reads what it also writes, other than exactly in place")


def run_vector(memories: Memories, operation: Operation) -> None:
    """Execute a VECTOR. Raises :class:`ProgramError` and :class:`UnsoundProgramError`."""
    config, sources = memories.config, operation["sources"]
    lanes = config.requantize_lanes
    y, x, group = (np.arange(operation[f"{loop}_count"]) for loop in ("y", "x", "group"))
    groups = group[:, np.newaxis] * operation["group_step"]
    channels = (groups + np.arange(lanes)).reshape(-1)[: (group.size - 1) * lanes + operation["last_lanes"]]

    def elements(base: str, y_step: str, x_step: str, offsets: Int64Array) -> Int64Array:
        rows = operation[base] + y * operation[y_step]
        return ((rows[:, np.newaxis] + x * operation[x_step])[..., np.newaxis] + offsets).reshape(-1)

    def operand_addresses(base: str, suffix: str, *loops: str) -> Int64Array:
        """``(elements, taps)``; the first lane must lie in the memory, the others wrap at its end as they are read with
        it."""
        taps = _offsets(operation, *loops)
        steps = f"y_step{suffix}", f"x_step{suffix}"
        memories.check(elements(base, *steps, groups.reshape(-1))[:, np.newaxis] + taps)
        return (elements(base, *steps, channels)[:, np.newaxis] + taps) % config.activation_bytes

    read = []
    if sources >= 1:
        read.append(operand_addresses("source", "", "t1", "t0"))
    if sources == 2:
        read.append(operand_addresses("source1", "1"))
    written = elements("destination", "y_step_out", "x_step_out", channels)
    memories.check(written)
    if read:
        _check_overlap(operation, written, read)

    maximum = operation["combine"] == Combine.MAX
    values = np.full((len(memories.activation), written.size), LOWEST if maximum else 0, dtype=np.int32)
    for table, addresses in zip(memories.tables, read, strict=False):  # one table an operand
        operand = memories.activation[:, addresses]
        mapped = table[operand.view(np.uint8)] if operation["table"] else operand.astype(np.int32)
        values = np.maximum(values, mapped.max(axis=2)) if maximum else values + mapped.sum(axis=2, dtype=np.int32)
    values += np.int32(operation["bias"])
    if operation["requantize"]:
        values = _requantize(values, operation["multiplier"], operation["shift"], operation)
    memories.activation[:, written] = _clamp(values, operation)


def run_table(memories: Memories, operation: Operation) -> None:
    """Execute a TABLE. Raises :class:`ProgramError`."""
    tables = operation["tables"]
    memories.tables[:tables] = memories.weight_slice(operation["source"], tables * 1024).view("<i4").reshape(tables, 256)
