"""Where everything is in the activation memory: tensors, and what an LSTM needs beside its input and output.

An LSTM keeps int16 cell states, and for the time of its layer the *input part* of its preactivations: int16, for all
time steps, ``8 · hidden`` bytes a step and sequence and so the largest buffer of many models. When it does not fit,
time is cut into intervals, as few as possible, which use the same buffer one after the other.

A stateful program keeps cell and last hidden states between runs: they have their own memory for the whole program.
"""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.errors import DoesNotFit
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm, Softmax
from systola_firmware.ir.tensor import Tensor
from systola_firmware.memory.allocation import Buffer, allocate
from systola_firmware.memory.layout import TensorLayout, plan_layouts, round_up
from systola_firmware.memory.sharing import share_buffers
from systola_firmware.spec import isa
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, Opcode
from systola_firmware.spec.program import Placement

#: Gates of a hidden unit, and columns of the array that it takes.
GATES = len(isa.GATES)
#: Most time steps that one instruction counts.
STEP_LIMIT = INSTRUCTIONS[Opcode.LSTM].fields["block_count"].maximum


@dataclass(frozen=True)
class LstmMemory:
    """Addresses of an LSTM's own memory, and the time steps that are done at once.

    ``state`` is the last hidden state that a stateful program keeps, -1 in another.
    """

    input_part: int
    cell: int
    state: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """Where every stored tensor is, by name: layout, buffer (the name of the first tensor in the same memory) and
    placement.

    ``lstms`` has the memory of every LSTM by the name of its output. ``used`` is the bytes used from address 0.
    """

    layouts: dict[str, TensorLayout]
    buffers: dict[str, str]
    placements: dict[str, Placement]
    lstms: dict[str, LstmMemory]
    stateful: bool
    used: int


def input_part_row(layer: Lstm, config: Config) -> int:
    """Bytes of the input part of one sequence at one time step: whole groups of columns."""
    return 2 * config.columns * -(-GATES * layer.hidden // config.columns)


def _interval(layer: Lstm, intervals: int) -> int:
    return -(-layer.steps // intervals)


def plan_memory(graph: Graph, config: Config, *, keep_tensors: bool = False, stateful: bool = False) -> Plan:
    """Layouts, buffers and addresses of everything.

    Raises :class:`DoesNotFit` with the layer that needs most, and as
    :func:`~systola_firmware.memory.layout.plan_layouts` does.
    """
    layouts = plan_layouts(graph)
    failure: DoesNotFit | None = None
    for in_place in (False,) if keep_tensors else (True, False):
        planner = _Planner(graph, config, layouts, in_place=in_place, keep_tensors=keep_tensors, stateful=stateful)
        try:
            return planner.plan()
        except DoesNotFit as error:
            if failure is None or error.needed < failure.needed:
                failure = error
    assert failure is not None
    raise failure


@dataclass
class _Life:
    size: int
    first: int
    last: int


class _Planner:
    """One way of sharing memory: sizes and lifetimes, then addresses."""

    def __init__(
        self, graph: Graph, config: Config, layouts: dict[str, TensorLayout], *, in_place: bool, keep_tensors: bool, stateful: bool
    ) -> None:
        self.graph = graph
        self.config = config
        self.layouts = layouts
        self.stateful = stateful
        self.names = {index: f"layer {layer.name}" for index, layer in enumerate(graph.layers)}
        self.shares = share_buffers(graph, layouts, in_place=in_place)
        self.lstms = {index: layer for index, layer in enumerate(graph.layers) if isinstance(layer, Lstm)}
        lives = self._lifetimes()
        if keep_tensors:
            for life in lives.values():
                life.first, life.last = 0, len(graph.layers)
        self.requests = [Buffer(name, life.size, life.first, life.last) for name, life in lives.items()]
        for index, layer in self.lstms.items():
            first, last = (0, len(graph.layers)) if stateful else (index, index)
            states = layer.batch * layer.hidden
            self.requests.append(Buffer(_cell(layer), round_up(2 * states, config.rows), first, last))
            if stateful:
                self.requests.append(Buffer(_state(layer), round_up(states, config.rows), first, last))

    def plan(self) -> Plan:
        """Addresses, with the fewest intervals of time with which all fits."""
        intervals = {index: self._fewest_intervals(index, layer) for index, layer in self.lstms.items()}
        while True:
            inputs = {index: self._input_part(layer, intervals[index], index) for index, layer in self.lstms.items()}
            try:
                starts = allocate([*self.requests, *inputs.values()], self.config.activation_bytes, self.names)
                break
            except DoesNotFit:
                # The sum of the sizes fits, but no order of the buffers does: make the largest input part smaller.
                larger = [index for index, layer in self.lstms.items() if _interval(layer, intervals[index]) > 1]
                if not larger:
                    raise
                index = max(larger, key=lambda candidate: inputs[candidate].size)
                intervals[index] = _next_count(self.lstms[index].steps, intervals[index])
        return self._assembled(starts, intervals, [*self.requests, *inputs.values()])

    def _assembled(self, starts: dict[str, int], intervals: dict[int, int], requests: list[Buffer]) -> Plan:
        placements = {}
        for name, layout in self.layouts.items():
            share = self.shares[name]
            size = layout.size if share.offset else round_up(layout.size, self.config.rows)
            placements[name] = layout.placed_at(starts[share.buffer] + share.offset, size)
        lstms = {
            layer.output.name: LstmMemory(
                input_part=starts[_input(layer)],
                cell=starts[_cell(layer)],
                state=starts[_state(layer)] if self.stateful else -1,
                steps=_interval(layer, intervals[index]),
            )
            for index, layer in self.lstms.items()
        }
        used = max((starts[request.name] + request.size for request in requests), default=0)
        buffers = {name: share.buffer for name, share in self.shares.items()}
        return Plan(self.layouts, buffers, placements, lstms, self.stateful, used)

    def _input_part(self, layer: Lstm, intervals: int, index: int) -> Buffer:
        size = layer.batch * _interval(layer, intervals) * input_part_row(layer, self.config)
        return Buffer(_input(layer), round_up(size, self.config.rows), index, index)

    def _fewest_intervals(self, index: int, layer: Lstm) -> int:
        """The least number of intervals such that the input part of one fits beside everything else that the layer
        needs."""
        others = sum(request.size for request in self.requests if request.first <= index <= request.last)
        room = (self.config.activation_bytes - others) // (layer.batch * input_part_row(layer, self.config))
        steps = max(1, min(room, layer.steps, STEP_LIMIT))
        return -(-layer.steps // steps)

    def _lifetimes(self) -> dict[str, _Life]:
        """Size, first and last layer of every tensor's buffer. Inputs are there before all layers, outputs after."""
        lives: dict[str, _Life] = {}
        end = len(self.graph.layers)

        def use(tensor: Tensor, step: int) -> None:
            if tensor.name not in self.shares:
                return  # computed by the driver
            share = self.shares[tensor.name]
            life = lives.setdefault(share.buffer, _Life(0, step, step))
            life.size = max(life.size, round_up(share.offset + self.layouts[tensor.name].size, self.config.rows))
            life.first, life.last = min(life.first, step), max(life.last, step)
            if tensor.constant is not None:
                life.first, life.last = 0, end

        for tensor in self.graph.inputs:
            use(tensor, 0)
        for step, layer in enumerate(self.graph.layers):
            for tensor in layer.inputs:
                use(tensor, end if isinstance(layer, Softmax) else step)
            use(layer.output, step)
        for tensor in self.graph.outputs:
            use(tensor, end)
        return lives


def _next_count(steps: int, intervals: int) -> int:
    """The next larger number of intervals with which the longest of them is shorter."""
    return -(-steps // (-(-steps // intervals) - 1))


def _input(layer: Lstm) -> str:
    return f"{layer.output.name}: input part"


def _cell(layer: Lstm) -> str:
    return f"{layer.output.name}: cell"


def _state(layer: Lstm) -> str:
    return f"{layer.output.name}: state"
