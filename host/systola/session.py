"""A model loaded on a device: run it, and look into it.

The session of a stateful program is a stream: its recurrent layers continue in each run where the run before left them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from systola.engine import Engine
from systola.errors import DeviceError, ProgramError
from systola.outcome import Mark, Outcome
from systola.profiles import LayerProfile, layer_at, profile_layers
from systola.tensors import Batch, Int8Array, dequantize, split_batch
from systola.transports.base import ProgramStopped
from systola_firmware.spec import isa
from systola_firmware.spec.memory_map import COUNTERS, Region
from systola_firmware.spec.program import Binding, LayerRecord, Program

if TYPE_CHECKING:
    Values = npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]]

__all__ = ["LayerProfile", "Session"]

#: Inputs of the inferences that the program runs at once, or of fewer: ``group[n][i]`` is input ``i`` of inference
#: ``n``.
Group = list[list[Int8Array]]


class Session:
    """``program`` on ``device``: program, weights and constants are written here, once, and the initial states.

    Raises :class:`~systola.errors.DeviceError` if ``verify`` is asked for and a memory does not hold what was written.

    Members
    -------
    counters:
        The hardware's counters of the last run, by name (``systola_firmware.spec.memory_map.COUNTERS``); empty before
        the first.
    """

    def __init__(self, device: Engine, program: Program, *, verify: bool = False) -> None:
        self.device = device
        self.program = program
        self.counters: dict[str, int] = {}
        self._marks: tuple[Mark, ...] = ()
        self._end_word = isa.encode_program([isa.Operation(isa.Opcode.END, {})])[0]
        self._write_program(verify)
        self.reset()

    def reset(self) -> None:
        """Give every recurrent layer its initial state: the next run begins a new stream. Nothing to do without
        states."""
        for state in self.program.states:
            self.device.transport.write(Region.ACTIVATION.base + state.address, _whole_words(state.initial))

    def states(self) -> dict[str, npt.NDArray[np.generic]]:
        """What the recurrent layers will continue from, by name: hidden states int8, cell states int16; empty without
        states."""
        return {
            state.name: np.frombuffer(region[: len(state.initial)], np.dtype(state.dtype).newbyteorder("<"))
            .astype(state.dtype)
            .reshape(state.shape)
            for state, region in zip(self.program.states, self._read_states(), strict=True)
        }

    def _read_states(self) -> list[bytes]:
        """The states as they are in memory, in whole words."""
        return [
            self.device.transport.read(Region.ACTIVATION.base + state.address, len(_whole_words(state.initial)))
            for state in self.program.states
        ]

    def _write_states(self, regions: list[bytes]) -> None:
        for state, region in zip(self.program.states, regions, strict=True):
            self.device.transport.write(Region.ACTIVATION.base + state.address, region)

    @property
    def inputs(self) -> tuple[Binding, ...]:
        """The model's inputs, in the shapes of one inference."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Binding, ...]:
        """The model's outputs as :meth:`run` returns them: where the driver runs a softmax, its output."""
        outputs = list(self.program.outputs)
        for step in self.program.softmax:
            outputs[step.output] = replace(
                outputs[step.output], name=step.name, scale=step.scale, zero_point=step.zero_point, index=step.index
            )
        return tuple(outputs)

    def run(self, x: Values, *, float_io: bool = False) -> npt.NDArray[np.generic] | dict[str, npt.NDArray[np.generic]]:
        """Run the model.

        As many inputs as the program's ``batch`` go through the device at once; the last group is filled up if need be.
        A stateful session continues from its present state: N stacked inputs are N consecutive intervals of one stream,
        run in order.

        Parameters
        ----------
        x:
            An int8 array of the model's input shape, or N of them stacked on a new leading axis. For a model with
            several inputs a mapping from tensor name to such an array; all with the same N.
        float_io:
            ``x`` is real values, quantized here by the input's scale; the answer is real values too.

        Returns the output, with the leading axis if ``x`` had it; a dictionary by tensor name if ``x`` was one or the
        model has several outputs. Raises :class:`~systola.errors.InputError` for a wrong name, shape or type, and
        :class:`~systola.errors.DeviceError` when the device stops; it stays usable.
        """
        batch = split_batch(x, self.inputs, float_io=float_io)
        columns = self._run_batch(batch)
        outputs = self.outputs
        shaped: dict[str, npt.NDArray[np.generic]] = {}
        for binding, column in zip(outputs, columns, strict=True):
            values = column if batch.stacked else column[0]
            shaped[binding.name] = dequantize(values, binding.scale, binding.zero_point) if float_io else values
        if len(outputs) == 1 and not isinstance(x, Mapping):
            return shaped[outputs[0].name]
        return shaped

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        """What each marked layer of the last run cost, in program order. Empty on a device without a clock.

        Units overlap: a layer's cycles are those from the end of the layer before to its own end.
        """
        if not self.device.has_cycles:
            return ()
        return profile_layers(self.program, self._marks)

    def run_until(self, layer: str | int, x: Values) -> Int8Array:
        """The output of ``layer`` (name or position in ``program.layers``) for one input ``x``, in the model's own
        shape.

        For tests and debugging: the program is cut short by an END behind the layer, and made whole again afterwards.
        Afterwards the states of a stateful session are what they were before. Raises
        :class:`~systola.errors.ProgramError` for a layer that does not exist.
        """
        batch = split_batch(x, self.inputs)
        record = self._layer(layer)
        states = self._read_states()
        self._write_inputs(batch.items[:1])
        try:
            return self._run_to(record)
        finally:
            self._write_states(states)

    def intermediates(self, x: Values) -> dict[str, Int8Array]:
        """Outputs of all layers for one input, by layer name; runs the program once for each layer.

        Afterwards the states of a stateful session are those after one run.
        """
        batch = split_batch(x, self.inputs)
        states = self._read_states()
        results = {}
        for record in self.program.layers:
            self._write_states(states)
            self._write_inputs(batch.items[:1])
            results[record.name] = self._run_to(record)
        return results

    def _write_program(self, verify: bool) -> None:
        words = np.asarray(self.program.words, dtype="<u4").tobytes()
        self._words = words
        regions = [(Region.PROGRAM.base, words), (Region.WEIGHT.base, _whole_words(self.program.weights))]
        regions += [(Region.ACTIVATION.base + address, _whole_words(data)) for address, data in self.program.constants]
        for address, data in regions:
            if data:
                self.device.transport.write(address, data)
        for address, data in regions if verify else ():
            if data and self.device.transport.read(address, len(data)) != data:
                raise DeviceError(f"{self.device} does not hold what was written to it at {address:#010x}")

    def _run_batch(self, batch: Batch) -> list[Int8Array]:
        """Each output of all inferences, stacked."""
        together = self.program.batch
        groups = [batch.items[first : first + together] for first in range(0, len(batch.items), together)]
        at_once = len(groups) > 1 and not self.program.stateful and self.device.transport.runs_batches
        try:
            answers = self._run_at_once(groups) if at_once else self._run_in_turn(groups)
        except ProgramStopped:  # one has failed: run in turn, it will say why
            answers = self._run_in_turn(groups)
        return [np.concatenate(column)[: len(batch.items)] for column in zip(*answers, strict=True)]

    def _run_in_turn(self, groups: list[Group]) -> list[list[Int8Array]]:
        return [self._run_group(group) for group in groups]

    def _run_at_once(self, groups: list[Group]) -> list[list[Int8Array]]:
        """All of ``groups`` together. Raises :class:`~systola.transports.base.ProgramStopped`."""
        packed = zip(*(self._pack_inputs(group) for group in groups), strict=True)
        inputs = [
            (binding.placement.start, np.stack([np.frombuffer(region, dtype=np.int8) for region in regions]))
            for binding, regions in zip(self.inputs, packed, strict=True)
        ]
        placements = [binding.placement for binding in self.program.outputs]
        columns = self.device.transport.run_batch(inputs, [(placement.start, placement.size) for placement in placements])
        if self.device.has_cycles:  # they are those of the last inference
            outcome = self.device.outcome()
            self.counters, self._marks = outcome.counters, outcome.marks
        else:
            self.counters, self._marks = dict.fromkeys(COUNTERS, 0), ()
        return [
            self._finish(
                [binding.unpack(column[n].tobytes()) for binding, column in zip(self.program.outputs, columns, strict=True)]
            )
            for n in range(len(groups))
        ]

    def _run_group(self, group: Group) -> list[Int8Array]:
        self._write_inputs(group)
        self._execute()
        return self._finish([self._read(binding) for binding in self.program.outputs])

    def _finish(self, raw: list[Int8Array]) -> list[Int8Array]:
        """The outputs of the model: those of the device, with a last softmax computed here."""
        for step in self.program.softmax:
            from systola_firmware.numerics.softmax import softmax

            raw[step.output] = softmax(raw[step.output], step.input_scale, step.beta)
        return raw

    def _pack_inputs(self, group: Group) -> list[bytes]:
        """The regions of the inputs for the inferences of ``group``; missing ones are filled with zero points."""
        absent = [np.full(binding.shape, binding.zero_point, np.int8) for binding in self.inputs]
        filled = group + [absent] * (self.program.batch - len(group))
        return [binding.pack(column) for binding, column in zip(self.inputs, zip(*filled, strict=True), strict=True)]

    def _write_inputs(self, group: Group) -> None:
        for binding, region in zip(self.inputs, self._pack_inputs(group), strict=True):
            self.device.transport.write(Region.ACTIVATION.base + binding.placement.start, region)

    def _read(self, binding: Binding) -> Int8Array:
        """The tensors of all inferences that run at once, stacked."""
        return binding.unpack(self.device.transport.read(Region.ACTIVATION.base + binding.placement.start, binding.placement.size))

    def _execute(self, predicted: int | None = None) -> None:
        total = sum(layer.predicted_cycles for layer in self.program.layers)
        outcome = self.device.execute(predicted_cycles=total if predicted is None else predicted)
        self.counters, self._marks = outcome.counters, outcome.marks
        if outcome.error is not isa.ErrorCode.NONE:
            raise DeviceError(self._error_sentence(outcome))

    def _error_sentence(self, outcome: Outcome) -> str:
        record = self._layer_at(outcome.address)
        where = f"in layer {record.name}" if record else "outside every layer"
        reason = isa.ERROR_WORDS[outcome.error]
        return f"{self.device} stopped {where}: {reason} ({outcome.error.name} at program word {outcome.address})"

    def _run_to(self, record: LayerRecord) -> Int8Array:
        address = Region.PROGRAM.base + 4 * record.end
        original = self._words[4 * record.end : 4 * record.end + 4]
        predicted = sum(layer.predicted_cycles for layer in self.program.layers if layer.end <= record.end)
        self.device.transport.write(address, self._end_word.to_bytes(4, "little"))
        try:
            self._execute(predicted)
            inference: Int8Array = self._read(record.output)[0]
            return inference
        finally:
            self.device.transport.write(address, original)

    def _layer(self, layer: str | int) -> LayerRecord:
        for position, record in enumerate(self.program.layers):
            if layer in (record.name, position):
                return record
        names = ", ".join(record.name for record in self.program.layers)
        raise ProgramError(f"the program has no layer {layer!r}: it has {names}")

    def _layer_at(self, address: int) -> LayerRecord | None:
        return layer_at(self.program, address)


def _whole_words(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
