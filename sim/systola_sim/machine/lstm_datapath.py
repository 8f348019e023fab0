"""What the LSTM instruction does to the memories, one job at a time: the arithmetic is
:mod:`systola_sim.golden.lstm_cell`'s."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.isa import GATES, SHIFT_MAXIMUM, SHIFT_MINIMUM, Operation
from systola_sim.golden.lstm_cell import cell_step, preactivation
from systola_sim.machine.datapath import Memories, UnsoundProgramError

__all__ = ["check_lstm", "run_lstm_job"]

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def _addresses(operation: Operation, base: str, suffix: str, blocks: npt.ArrayLike, offsets: Int64Array) -> Int64Array:
    """Addresses of the hidden states, the cells or the preactivations of ``blocks``: ``(blocks, sequences,
    offsets)``."""
    block_steps = np.asarray(blocks) * (0 if base == "cell" else operation[f"block_step{suffix}"])
    sequences = np.arange(operation["x_count"]) * operation[f"x_step{suffix}"]
    result: Int64Array = operation[base] + block_steps[:, np.newaxis, np.newaxis] + sequences[:, np.newaxis] + offsets
    return result


def check_lstm(operation: Operation, columns: int) -> None:
    """Raise :class:`UnsoundProgramError` if an LSTM's hidden states, cells and preactivations overlap."""
    units = (operation["group_count"] - 1) * (columns // len(GATES)) + operation["last_units"]
    blocks = np.arange(operation["block_count"])
    # All blocks use the same cells, so these are taken once. Their addresses may not repeat, unlike the others': two
    # units with one cell would overlap.
    parts = (
        np.unique(_addresses(operation, "hidden", "", blocks, np.arange(units))),
        _addresses(operation, "cell", "_cell", [0], np.arange(2 * units)).reshape(-1),
        np.unique(_addresses(operation, "preactivation", "_preactivation", blocks, np.arange(2 * len(GATES) * units))),
    )
    used = np.concatenate(parts)
    if np.unique(used).size < used.size:
        raise UnsoundProgramError("LSTM: hidden states, cells and preactivations overlap")


def _parameters(memories: Memories, operation: Operation, group: int) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Biases of a group, multipliers and shifts of all groups, each int32 ``(COLUMNS,)``."""
    config = memories.config
    factors = memories.weight_slice(operation["parameters"], (config.bias_words + 1) * config.weight_word_bytes)
    multiplier, shift = np.split(factors[: 5 * config.columns], [4 * config.columns])
    bias = memories.weight_slice(operation["parameters"] + (group + 1) * config.bias_words + 1, 4 * config.columns)
    if shift.min() < SHIFT_MINIMUM or shift.max() > SHIFT_MAXIMUM:
        raise UnsoundProgramError(f"LSTM: a gate's shift is outside {SHIFT_MINIMUM}..{SHIFT_MAXIMUM}")
    return bias.view("<i4"), multiplier.view("<i4"), shift.astype(np.int32)


def run_lstm_job(memories: Memories, operation: Operation, job: int, half: int) -> None:
    """Drain accumulator half ``half`` as job number ``job`` of an LSTM.

    Raises :class:`~systola_sim.machine.datapath.ProgramError` and :class:`UnsoundProgramError`.
    """
    config, sequences = memories.config, operation["x_count"]
    if job == 0:
        check_lstm(operation, config.columns)
    block, group = divmod(job, operation["group_count"])
    group_units = config.columns // len(GATES)
    units = operation["last_units"] if group == operation["group_count"] - 1 else group_units
    lanes = units * len(GATES)
    bias, multiplier, shift = _parameters(memories, operation, group)

    unit = group * group_units + np.arange(units)
    lane_offsets = 2 * (group * config.columns + np.arange(lanes))
    input_part = memories.read_int16(_addresses(operation, "preactivation", "_preactivation", [block], lane_offsets)[0])
    cells = _addresses(operation, "cell", "_cell", [block], 2 * unit)[0]
    hidden = _addresses(operation, "hidden", "", [block], unit)[0]
    memories.check(hidden)

    sums = memories.accumulators[half, :, :sequences, :lanes] + bias[:lanes]  # int32 wraps
    pre = preactivation(input_part, sums, multiplier[:lanes], shift[:lanes])
    h, c = cell_step(
        pre.reshape(len(pre), sequences, units, len(GATES)),
        memories.read_int16(cells),
        exponent=operation["cell_exponent"],
        clip=operation["clip"],
        multiplier=operation["multiplier"],
        shift=operation["shift"],
        zero_point=operation["zero_point"],
    )
    memories.write_int16(cells, c)
    memories.activation[:, hidden] = h
