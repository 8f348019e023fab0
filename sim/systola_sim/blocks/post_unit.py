"""POST, VECTOR, TABLE and LSTM as the loops of :mod:`systola_firmware.spec.isa`, element group by element group.

:mod:`systola_sim.machine.datapath` computes whole instructions at once, for speed; this computes the same in the order
of the hardware, so it also shows what an instruction that stops with an error has written until then.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import GATES, Combine, ErrorCode, Opcode, Operation, Rounding, violations
from systola_sim.golden.lstm_cell import cell_step, preactivation, saturate
from systola_sim.golden.requantize import requantize, wrap32

__all__ = ["PostUnitModel"]

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


class _StoppedError(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def _require(condition: bool, code: ErrorCode = ErrorCode.BAD_FIELD) -> None:
    if not condition:
        raise _StoppedError(code)


def _indices(operation: Operation, *loops: str) -> itertools.product[tuple[int, ...]]:
    """Indices of nested loops, outermost first."""
    return itertools.product(*(range(operation[f"{loop}_count"]) for loop in loops))


@dataclass
class PostUnitModel:
    """``activation`` int8 (activation_bytes,), ``weights`` int8 (weight_bytes,), ``tables`` int32 (2, 256).

    ``steps`` has copies of ``activation`` as it was when each block of the last LSTM was complete, except its last
    block.
    """

    config: Config
    activation: Int8Array
    weights: Int8Array
    tables: Int32Array = field(default_factory=lambda: np.zeros((2, 256), np.int32))
    steps: list[Int8Array] = field(default_factory=list)

    def execute(self, operation: Operation, jobs: Sequence[Int32Array] = ()) -> ErrorCode:
        """Execute one instruction; return why it stopped, or NONE.

        ``jobs`` are the accumulators of a POST or LSTM: int32 (positions, columns) for each (block, group).
        """
        try:
            _require(next(violations(operation, self.config), None) is None)
            match operation.opcode:
                case Opcode.POST:
                    self._post(operation, jobs)
                case Opcode.VECTOR:
                    self._vector(operation)
                case Opcode.TABLE:
                    self._table(operation)
                case Opcode.LSTM:
                    self._lstm(operation, jobs)
                case Opcode.END | Opcode.MATMUL:
                    raise ValueError(f"{operation.opcode.name} is not POST's")
                case _:
                    assert_never(operation.opcode)
        except _StoppedError as stopped:
            return stopped.code
        return ErrorCode.NONE

    def _words(self, word: int, count: int) -> Int8Array:
        """``count`` words of the weight memory."""
        size = self.config.weight_word_bytes
        _require(word + count <= self.config.weight_words, ErrorCode.WEIGHT_ADDRESS)
        return self.weights[word * size : (word + count) * size]

    def _read(self, address: int, count: int) -> Int8Array:
        _require(address >= 0 and address + count <= self.config.activation_bytes, ErrorCode.ACTIVATION_ADDRESS)
        return self.activation[address : address + count]

    def _write(self, address: int, values: Int64Array, operation: Operation) -> None:
        """Zero point, clamp and write of one group of lanes."""
        self._write_bytes(address, np.clip(values + operation["zero_point"], operation["minimum"], operation["maximum"]))

    def _write_bytes(self, address: int, values: Int8Array | Int64Array) -> None:
        _require(address >= 0 and address + len(values) <= self.config.activation_bytes, ErrorCode.ACTIVATION_ADDRESS)
        self.activation[address : address + len(values)] = values

    def _post(self, operation: Operation, jobs: Sequence[Int32Array]) -> None:
        config, per_channel = self.config, bool(operation["per_channel"])
        outer, positions = list(_indices(operation, "block", "group")), list(_indices(operation, "y", "x"))
        words = config.channel_parameter_words if per_channel else config.bias_words
        for (block, group), accumulators in zip(outer, jobs, strict=True):
            parameters = self._words(operation["parameters"] + group * words, words)
            columns = config.columns
            bias = parameters[: 4 * columns].view("<i4")
            multiplier, shift = np.full(columns, operation["multiplier"]), np.full(columns, operation["shift"])
            if per_channel:
                multiplier, shift = parameters[4 * columns : 8 * columns].view("<i4"), parameters[8 * columns : 9 * columns]
            channels = operation["last_columns"] if group == operation["group_count"] - 1 else columns
            for number, (y, x) in enumerate(positions):
                _require(number < config.accumulator_depth)
                address = operation["destination"] + sum(
                    index * operation[f"{loop}_step"] for index, loop in ((block, "block"), (group, "group"), (y, "y"), (x, "x"))
                )
                if operation["wide"]:
                    values = wrap32(accumulators[number, :channels].astype(np.int64) + bias[:channels])
                    result = requantize(values, multiplier[:channels], shift[:channels], Rounding(operation["rounding"]))
                    written = saturate(result).astype("<i2").view(np.int8)
                    for first in range(0, 2 * channels, config.requantize_lanes):
                        self._write_bytes(address + first, written[first : first + config.requantize_lanes])
                    continue
                for first in range(0, channels, config.requantize_lanes):
                    lanes = slice(first, min(first + config.requantize_lanes, channels))
                    values = wrap32(accumulators[number, lanes].astype(np.int64) + bias[lanes])
                    result = requantize(values, multiplier[lanes], shift[lanes], Rounding(operation["rounding"]))
                    self._write(address + first, result.astype(np.int64), operation)

    def _vector(self, operation: Operation) -> None:
        lanes, sources = self.config.requantize_lanes, operation["sources"]
        items, taps = list(_indices(operation, "y", "x", "group")), list(_indices(operation, "t1", "t0"))
        for y, x, group in items:
            count = operation["last_lanes"] if group == operation["group_count"] - 1 else lanes
            across = group * operation["group_step"]
            addresses = []
            if sources >= 1:
                base = operation["source"] + y * operation["y_step"] + x * operation["x_step"] + across
                addresses += [(0, base + t1 * operation["t1_step"] + t0 * operation["t0_step"]) for t1, t0 in taps]
            if sources == 2:
                addresses += [(1, operation["source1"] + y * operation["y_step1"] + x * operation["x_step1"] + across)]
            maximum = operation["combine"] == Combine.MAX
            values = np.full(count, -128 if maximum else 0, np.int64)
            for table, address in addresses:
                operand = self._read(address, count)
                if operation["table"]:
                    operand = self.tables[table][operand.view(np.uint8)]
                values = np.maximum(values, operand) if maximum else wrap32(values + operand.astype(np.int64)).astype(np.int64)
            result = wrap32(values + operation["bias"])
            if operation["requantize"]:
                result = requantize(result, operation["multiplier"], operation["shift"], Rounding(operation["rounding"]))
            destination = operation["destination"] + y * operation["y_step_out"] + x * operation["x_step_out"] + across
            self._write(destination, result.astype(np.int64), operation)

    def _table(self, operation: Operation) -> None:
        tables = operation["tables"]
        words = tables * 1024 // self.config.weight_word_bytes
        self.tables[:tables] = self._words(operation["source"], words).view("<i4").reshape(tables, 256)

    def _lstm(self, operation: Operation, jobs: Sequence[Int32Array]) -> None:
        """Execute an LSTM, in bundles of as many hidden units as the requantizers finish at once, at least one."""
        config, gates = self.config, len(GATES)
        outer, sequences = list(_indices(operation, "block", "group")), operation["x_count"]
        self.steps = []
        factors = self._words(operation["parameters"], config.bias_words + 1)
        multiplier, shift = factors[: 4 * config.columns].view("<i4"), factors[4 * config.columns : 5 * config.columns]
        for (block, group), accumulators in zip(outer, jobs, strict=True):
            if group == 0 and block > 0:
                self.steps.append(self.activation.copy())
            bias = self._words(operation["parameters"] + 1 + (group + 1) * config.bias_words, config.bias_words).view("<i4")
            units = operation["last_units"] if group == operation["group_count"] - 1 else config.columns // gates
            size = max(config.requantize_lanes // gates, 1)
            for x, first in itertools.product(range(sequences), range(0, units, size)):
                count = min(size, units - first)
                columns = slice(gates * first, gates * (first + count))
                unit = group * (config.columns // gates) + first
                source = operation["preactivation"] + block * operation["block_step_preactivation"] + 2 * gates * unit
                cell = operation["cell"] + x * operation["x_step_cell"] + 2 * unit
                inputs = self._read(source + x * operation["x_step_preactivation"], 2 * gates * count).view("<i2")
                states = self._read(cell, 2 * count).view("<i2")
                sums = wrap32(accumulators[x, columns].astype(np.int64) + bias[columns])
                hidden, state = cell_step(
                    preactivation(inputs, sums, multiplier[columns], shift[columns]).reshape(count, gates),
                    states,
                    exponent=operation["cell_exponent"],
                    **{name: operation[name] for name in ("clip", "multiplier", "shift", "zero_point")},
                )
                self._write_bytes(cell, state.astype("<i2").view(np.int8))
                self._write_bytes(operation["hidden"] + block * operation["block_step"] + x * operation["x_step"] + unit, hidden)
