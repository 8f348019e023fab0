"""A program for one LSTM layer, laid out by hand from the words of ``docs/isa.md``: a second witness beside the
compiler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.layers import Lstm
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode, Operation, encode_program

Int8Array = npt.NDArray[np.int8]
GATES = 4


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


@dataclass(frozen=True)
class LstmProgram:
    """The program, its weight memory, and where things are in the activation memory.

    The input is time-major: the features of sequence ``b`` at step ``t`` start at ``source + (t*batch +
    b)*source_pitch``. The hidden state is likewise at ``hidden + (t*batch + b)*hidden_pitch``, where t = 0 is the
    initial one; the cell of unit u, int16, at ``cell + b*cell_pitch + 2*u``.
    """

    config: Config
    layer: Lstm
    words: list[int]
    weights: Int8Array
    source: int
    source_pitch: int
    hidden: int
    hidden_pitch: int
    cell: int
    cell_pitch: int

    def activation(self, x: Int8Array) -> Int8Array:
        """The activation memory before START for inputs int8 ``(n, steps, batch, features)``, one row of memory for
        each n."""
        memory = np.full((len(x), self.config.activation_bytes), 99, np.int8)
        steps, batch = self.layer.steps, self.layer.batch
        rows = memory[:, self.source :][:, : steps * batch * self.source_pitch].reshape(len(x), steps, batch, self.source_pitch)
        rows[..., : self.layer.features] = x
        memory[:, self.hidden :][:, : batch * self.hidden_pitch] = self.layer.output.zero_point
        memory[:, self.cell :][:, : batch * self.cell_pitch] = 0
        return memory

    def hidden_states(self, memory: Int8Array) -> Int8Array:
        """int8 ``(n, steps, batch, hidden)`` after the program."""
        steps, batch = self.layer.steps, self.layer.batch
        rows = memory[:, self.hidden + batch * self.hidden_pitch :][:, : steps * batch * self.hidden_pitch]
        return rows.reshape(len(memory), steps, batch, self.hidden_pitch)[..., : self.layer.hidden]

    def cell_states(self, memory: Int8Array) -> npt.NDArray[np.int16]:
        """int16 ``(n, batch, hidden)``, after the last step."""
        rows = memory[:, self.cell :][:, : self.layer.batch * self.cell_pitch].reshape(len(memory), self.layer.batch, -1)
        return np.ascontiguousarray(rows[..., : 2 * self.layer.hidden]).view("<i2")


def _tiles(weights: Int8Array, config: Config) -> bytes:
    """``[4, hidden, inputs]`` as tiles of the groups: column 4u + k is gate k of the group's unit u, row r input r of
    the chunk."""
    gates, units, inputs = weights.shape
    group = config.columns // GATES
    whole = np.zeros((gates, _up(units, group), _up(inputs, config.rows)), np.int8)
    whole[:, :units, :inputs] = weights
    blocks = whole.reshape(gates, -1, group, whole.shape[2] // config.rows, config.rows)
    return np.ascontiguousarray(blocks.transpose(1, 3, 4, 2, 0)).tobytes()


def _folded_bias(bias: npt.NDArray[np.int64], weights: Int8Array, zero_point: int, config: Config) -> npt.NDArray[np.int32]:
    """``bias - zero_point * Σ weights``, ``(groups, columns)``; wraps at 32 bits."""
    sums = bias - zero_point * weights.astype(np.int64).sum(axis=2)
    whole = np.zeros((GATES, _up(sums.shape[1], config.columns // GATES)), np.int64)
    whole[:, : sums.shape[1]] = sums
    return whole.T.reshape(-1, config.columns).astype(np.int32)


def _factors(requantization: Requantization, config: Config) -> bytes:
    """A multiplier for each column, then a shift for each in a whole word."""
    repeat = config.columns // GATES
    multipliers = np.tile(requantization.multiplier, repeat).astype("<i4").tobytes()
    return multipliers + np.tile(requantization.shift, repeat).astype(np.int8).tobytes().ljust(config.weight_word_bytes, b"\0")


def assemble_lstm(layer: Lstm, config: Config) -> LstmProgram:
    """The program; two MATMULs, a wide POST and an LSTM."""
    columns, batch, steps = config.columns, layer.batch, layer.steps
    group_units = columns // GATES
    groups = _up(layer.hidden, group_units) // group_units
    input_tiles, recurrent_tiles = (_tiles(w, config) for w in (layer.input_weights, layer.recurrent_weights))
    input_bias = _folded_bias(layer.bias.astype(np.int64), layer.input_weights, layer.inputs[0].zero_point, config)
    recurrent_bias = _folded_bias(np.zeros_like(layer.bias, np.int64), layer.recurrent_weights, layer.output.zero_point, config)
    input_factors = _factors(layer.input_requantization, config)
    post = b"".join(bias.astype("<i4").tobytes() + input_factors for bias in input_bias)
    cell = _factors(layer.recurrent_requantization, config) + recurrent_bias.astype("<i4").tobytes()
    image, starts = b"", []
    for blob in (input_tiles, recurrent_tiles, post, cell):
        starts.append(len(image) // config.weight_word_bytes)
        image += blob
    weights = np.zeros(config.weight_bytes, np.int8)
    weights[: len(image)] = np.frombuffer(image, np.int8)

    source_pitch, hidden_pitch = _up(layer.features, 4), _up(layer.hidden, 4)
    pre_pitch, cell_pitch = 2 * groups * columns, _up(2 * layer.hidden, 4)
    source = 0
    hidden = _up(source + steps * batch * source_pitch, config.rows)
    pre = _up(hidden + (steps + 1) * batch * hidden_pitch, config.rows)
    state = pre + steps * batch * pre_pitch
    assert state + batch * cell_pitch <= config.activation_bytes
    one = {"y_count": 1, "k1_count": 1, "k2_count": 1, "group_count": groups}
    operations = [
        Operation(
            Opcode.MATMUL,
            {
                **one,
                **{"source": source, "weights": starts[0]},
                **{"k0_count": _up(layer.features, config.rows) // config.rows, "k0_step": config.rows},
                **{"x_count": batch, "x_step": source_pitch, "block_count": steps, "block_step": batch * source_pitch},
            },
        ),
        Operation(
            Opcode.POST,
            {
                **{"destination": pre, "parameters": starts[2], "per_channel": 1, "wide": 1, "last_columns": columns},
                **{"y_count": 1, "group_count": groups, "group_step": 2 * columns},
                **{"x_count": batch, "x_step": pre_pitch, "block_count": steps, "block_step": batch * pre_pitch},
            },
        ),
        Operation(
            Opcode.MATMUL,
            {
                **one,
                **{"source": hidden, "weights": starts[1], "recurrent": 1},
                **{"k0_count": _up(layer.hidden, config.rows) // config.rows, "k0_step": config.rows},
                **{"x_count": batch, "x_step": hidden_pitch, "block_count": steps, "block_step": batch * hidden_pitch},
            },
        ),
        Operation(
            Opcode.LSTM,
            {
                **{"hidden": hidden + batch * hidden_pitch, "preactivation": pre, "cell": state, "parameters": starts[3]},
                **{"last_units": layer.hidden - (groups - 1) * group_units, "group_count": groups},
                **{"x_count": batch, "x_step": hidden_pitch, "x_step_preactivation": pre_pitch, "x_step_cell": cell_pitch},
                **{"block_count": steps, "block_step": batch * hidden_pitch, "block_step_preactivation": batch * pre_pitch},
                **{"cell_exponent": layer.cell_exponent, "clip": layer.clip, "zero_point": layer.output.zero_point},
                "multiplier": int(layer.hidden_requantization.multiplier[0]),
                "shift": int(layer.hidden_requantization.shift[0]),
            },
        ),
        Operation(Opcode.END, {}),
    ]
    words = encode_program(operations)
    return LstmProgram(config, layer, words, weights, source, source_pitch, hidden, hidden_pitch, state, cell_pitch)
