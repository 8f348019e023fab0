"""LSTM layers: one matrix product for the input part of all time steps, then the recurrence as one MATMUL and one LSTM.

Gates are interleaved over the columns: output channel ``4·unit + gate``, so that a group of ``columns`` channels is
``columns / 4`` whole hidden units, and the cell works on one group while the array computes the next.

1. *Input part.* MATMUL and a wide POST over all rows (sequences × time steps) leave sat16(REQ(b + Σ (x − z_x)·W)) in
   memory.
2. *Initial state*, before the POST: zero points where hidden states of the step before the first are read
   (``sharing.lead_rows``), zeros in the cells. A stateful program copies the kept hidden state there instead, and
   leaves its cells as they are.
3. *Recurrence.* A MATMUL whose blocks are time steps reads the hidden states of the step before, an LSTM writes those
   of the step and the cells. The hidden states are the layer's output and are written where that lies, whatever the
   order of batch and time.
4. A stateful program copies the last hidden state away.

If the input part of all steps is too large, 1 and 3 repeat for each interval of time. If there are more sequences than
accumulators, each part of the batch takes a pair of instructions. Nothing else adds instructions: a recurrence is as
long for one step as for thousands.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from systola_firmware.errors import UnsupportedModel
from systola_firmware.ir.layers import Convolution, Lstm, sequences_interleave
from systola_firmware.lowering.blocks import Axis, Work, cut_positions
from systola_firmware.lowering.fill import fill
from systola_firmware.lowering.matmul import (
    ChannelGroups,
    Reduction,
    dense_reduction,
    emit_pair,
    layer_parameters,
    loop_fields,
)
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.vector import Span, vectors
from systola_firmware.lowering.weights import WeightImage, cell_parameters, dense_tiles, fold_zero_point
from systola_firmware.memory.plan import GATES, LstmMemory, Plan, input_part_row
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode, Operation
from systola_firmware.spec.program import Placement


@dataclass(frozen=True)
class _Rows:
    """Bytes from sequence to sequence and from step to step in a buffer with one row of ``width`` bytes for each
    sequence and step."""

    sequence: int
    step: int


def _rows(layer: Lstm, width: int, steps: int) -> _Rows:
    """Rows of ``width`` bytes for ``steps`` time steps, in the order that the layer's input and output have."""
    if sequences_interleave(layer):
        return _Rows(width, layer.batch * width)
    return _Rows(steps * width, width)


def _by_unit(layer: Lstm, values: np.ndarray) -> np.ndarray:
    """``[4, hidden, …]`` as ``[4 · hidden, …]`` with the gates of a unit side by side."""
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(GATES * layer.hidden, *values.shape[2:])


def _product(layer: Lstm, weights: np.ndarray, bias: np.ndarray, requantization: Requantization) -> Convolution:
    """The product with the inputs or with the hidden states, for all gates, as a fully connected layer."""
    repeated = replace(
        requantization,
        multiplier=np.tile(requantization.multiplier, layer.hidden),
        shift=np.tile(requantization.shift, layer.hidden),
    )
    return Convolution(
        layer.name,
        layer.inputs,
        layer.output,
        weights=_by_unit(layer, weights)[:, np.newaxis, np.newaxis],
        bias=_by_unit(layer, bias),
        requantization=repeated,
        fully_connected=True,
    )


def lower_lstm(layer: Lstm, plan: Plan, image: WeightImage, config: Config) -> tuple[Stage, ...]:
    """All stages of an LSTM layer. Raises :class:`UnsupportedModel` for a configuration without the LSTM cell."""
    if not config.lstm:
        raise UnsupportedModel(f"{layer.name} needs the LSTM cell, which the configuration {config.name} does not have")
    return _Lowering(layer, plan, image, config).stages()


class _Lowering:
    """Addresses and weights of one layer."""

    def __init__(self, layer: Lstm, plan: Plan, image: WeightImage, config: Config) -> None:
        self.layer = layer
        self.config = config
        self.image = image
        self.memory: LstmMemory = plan.lstms[layer.output.name]
        self.stateful = plan.stateful
        self.source: Placement = plan.placements[layer.inputs[0].name]
        self.output: Placement = plan.placements[layer.output.name]
        self.input_buffer = plan.buffers[layer.inputs[0].name]
        self.output_buffer = plan.buffers[layer.output.name]
        self.hidden_rows = _rows(layer, layer.hidden, layer.steps)
        #: Hidden state of the first sequence in the step before the first.
        self.initial = self.output.address - self.hidden_rows.step
        self.groups = -(-GATES * layer.hidden // config.columns)

        inputs = _product(layer, layer.input_weights, layer.bias, layer.input_requantization)
        self.inputs = inputs
        self.input_reduction, tiles = dense_reduction(inputs, self.source, config)
        self.input_weights = image.add(dense_tiles(tiles))
        sums = inputs.weights.sum(axis=(1, 2, 3), dtype=np.int64)
        self.input_parameters = image.add(layer_parameters(inputs, sums, config))

        recurrent = _product(layer, layer.recurrent_weights, np.zeros_like(layer.bias), layer.recurrent_requantization)
        self.recurrent_reduction, tiles = dense_reduction(recurrent, self.output, config)
        self.recurrent_weights = image.add(dense_tiles(tiles))
        sums = recurrent.weights.sum(axis=(1, 2, 3), dtype=np.int64)
        bias = fold_zero_point(recurrent.bias, sums, layer.output.zero_point)
        self.cell_parameters = image.add(cell_parameters(bias, layer.recurrent_requantization, config))

    def stages(self) -> tuple[Stage, ...]:
        result = []
        for first in range(0, self.layer.steps, self.memory.steps):
            steps = min(self.memory.steps, self.layer.steps - first)
            result += [self._input_part(first, steps), self._recurrence(first, steps)]
        # The array needs the first hidden states only in the second stage, so the fills run during its first product.
        result[0] = replace(result[0], fills=tuple(self._initial_state()), prepares=(self.output_buffer,))
        if self.stateful:
            last = self.output.address + (self.layer.steps - 1) * self.hidden_rows.step
            copy = self._copy_states(last, self.hidden_rows.sequence, self.memory.state, self.layer.hidden)
            result.append(Stage(tuple(copy)))
        return tuple(result)

    def _copy_states(self, source: int, source_step: int, destination: int, destination_step: int) -> list[Operation]:
        """Copy one hidden state of each sequence."""
        span = Span(self.layer.batch, (source_step, 0, destination_step))
        return vectors((source, 0, destination), [span], self.layer.hidden, {"sources": 1}, self.config)

    def _initial_state(self) -> list[Operation]:
        layer, rows = self.layer, self.hidden_rows
        if self.stateful:
            return self._copy_states(self.memory.state, layer.hidden, self.initial, rows.sequence)
        states = [Span(layer.batch, (0, 0, rows.sequence))]
        hidden = fill(self.initial, layer.hidden, layer.output.zero_point, self.config, states)
        return [*hidden, *fill(self.memory.cell, 2 * layer.batch * layer.hidden, 0, self.config)]

    def _input_part(self, first: int, steps: int) -> Stage:
        """The product with the inputs, of ``steps`` steps from ``first`` on."""
        layer, config = self.layer, self.config
        source = _rows(layer, self.source.pixel_pitch, layer.steps)
        target = _rows(layer, input_part_row(layer, config), steps)
        axes = [Axis(layer.batch, source.sequence, target.sequence), Axis(steps, source.step, target.step)]
        if sequences_interleave(layer):
            axes.reverse()
        groups = ChannelGroups(
            weights=self.input_weights,
            parameters=self.input_parameters,
            source=self.source.address + first * source.step,
            destination=self.memory.input_part,
            source_step=0,
            destination_step=2 * config.columns,
            channels=GATES * layer.hidden,
            wide=True,
        )
        tilings = cut_positions(axes, Work(self.input_reduction.passes, self.groups), config)
        pairs = [emit_pair(self.inputs, tiling, self.input_reduction, groups, config) for tiling in tilings]
        return Stage(tuple(itertools.chain(*pairs)), reads=(self.input_buffer,), mark=True)

    def _recurrence(self, first: int, steps: int) -> Stage:
        """The recurrence over ``steps`` steps from ``first`` on: a pair of instructions for ``accumulator_depth``
        sequences.

        The last sequences are done first, because their initial hidden states may lie where the sequence before them
        will have its last step.
        """
        pairs = [
            operation
            for sequence in reversed(range(0, self.layer.batch, self.config.accumulator_depth))
            for operation in self._recurrent_pair(first, steps, sequence)
        ]
        return Stage(tuple(pairs), reads=(self.output_buffer,), writes=(self.output_buffer,), mark=True)

    def _recurrent_pair(self, first: int, steps: int, sequence: int) -> list[Operation]:
        layer, config, rows = self.layer, self.config, self.hidden_rows
        sequences = min(config.accumulator_depth, layer.batch - sequence)
        before = self.initial + first * rows.step + sequence * rows.sequence
        part = _rows(layer, input_part_row(layer, config), steps)
        reduction: Reduction = self.recurrent_reduction
        x = loop_fields("x", sequences, rows.sequence)
        block = loop_fields("block", steps, rows.step)
        units = config.columns // GATES
        matmul = Operation(
            Opcode.MATMUL,
            {
                "source": before,
                "recurrent": 1,
                **x,
                **loop_fields("y", 1, 0),
                **loop_fields("k0", *reduction.k0),
                **loop_fields("k1", *reduction.k1),
                **loop_fields("k2", *reduction.k2),
                **loop_fields("group", self.groups, 0),
                **block,
                "weights": self.recurrent_weights,
            },
        )
        cell = Operation(
            Opcode.LSTM,
            {
                "hidden": before + rows.step,
                "last_units": layer.hidden - units * (self.groups - 1),
                "preactivation": self.memory.input_part + sequence * part.sequence,
                "cell": self.memory.cell + 2 * sequence * layer.hidden,
                "cell_exponent": layer.cell_exponent,
                **x,
                "x_step_preactivation": part.sequence if sequences > 1 else 0,
                "x_step_cell": 2 * layer.hidden if sequences > 1 else 0,
                "group_count": self.groups,
                **block,
                "block_step_preactivation": part.step if steps > 1 else 0,
                "parameters": self.cell_parameters,
                "zero_point": layer.output.zero_point,
                "shift": int(layer.hidden_requantization.shift[0]),
                "clip": layer.clip,
                "multiplier": int(layer.hidden_requantization.multiplier[0]),
            },
        )
        return [matmul, cell]
