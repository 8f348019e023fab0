"""POST unit of the compact engine: executes POST, VECTOR and TABLE, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode
from systola_hdl.common.memory_ports import ActivationRead, WeightRead
from systola_hdl.compact.interfaces import AccumulatorDrain, ActivationWrite, UnitControl
from systola_hdl.compact.post.instruction import Instruction
from systola_hdl.compact.post.operands import Operands
from systola_hdl.compact.post.output import Output
from systola_hdl.compact.post.parameters import Parameters
from systola_hdl.compact.post.values import Values
from systola_hdl.compact.post.weight_address import WeightAddress

__all__ = ["PostUnit"]


@dataclass(frozen=True)
class _Parts:
    """The unit's components."""

    instruction: Instruction
    weight_address: WeightAddress
    parameters: Parameters
    values: Values
    operands: Operands
    output: Output


@dataclass(frozen=True)
class _Progress:
    """Registers and wires of the instruction that runs.

    ``position`` is that of the accumulators, ``reason`` the error so far. ``job_last``: the loops' item is the last of
    its job; ``group_last``, ``block_last``: the item taken last was the last of its group or of the instruction.
    ``idle``: nothing is under way.
    """

    position: Signal
    reason: Signal
    job_last: Signal
    group_last: Signal
    block_last: Signal
    idle: Signal
    source_outside: Signal
    destination_outside: Signal


class PostUnit(Component):
    """The post-processor: one output every two cycles, one after the other; LSTM is an opcode it does not have.

    ::

        accumulators ─▶ four values ─▶ + bias ─▶ requantizer ─▶ bytes ─▶ words ─▶ activation memory
        activation memory ─▶ byte ─▶ table ─▶┘  └─▶ sum, maximum

    Parameters of a group are loaded while the last outputs of the group before are computed, or the array is waited
    for. Fields are checked as the words come. Errors are precise, as in :class:`systola_hdl.full.post.unit.PostUnit`.

    Throughput: an output every 2 cycles, or 3 if its sum has more than 23 bits, so a position of four takes 8 cycles,
    if the accumulators answer at once; a group costs some 15 more for its parameters, unless the array is waited for.
    VECTOR reads an operand a cycle within a window, and otherwise makes an output every 2 or 3 cycles; with tables, it
    waits for each operand's entry. A fill writes a word a cycle if all of it is aligned, else a byte.

    Attributes
    ----------
    control:
        From the sequencer.
    drain, activation_read, activation_write, weights:
        Ports of the memories.
    busy:
        An instruction is executing: the counter of this name.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "control": In(UnitControl()),
                "drain": Out(AccumulatorDrain(config)),
                "activation_read": Out(ActivationRead(config)),
                "activation_write": Out(ActivationWrite(config)),
                "weights": Out(WeightRead(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.instruction = instruction = Instruction(self.config)
        m.submodules.weight_address = weight_address = WeightAddress()
        m.submodules.parameters = parameters = Parameters(self.config)
        m.submodules.values = values = Values(self.config)
        m.submodules.operands = operands = Operands(self.config)
        m.submodules.output = output = Output(self.config)
        parts = _Parts(instruction, weight_address, parameters, values, operands, output)
        connect(m, values.o, output.i)
        connect(m, operands.o, values.operands)
        connect(m, operands.read, flipped(self.activation_read))
        connect(m, output.write, flipped(self.activation_write))
        self._connect_parts(m, parts)
        self._connect_weights(m, parts)
        outside = self._connect_items(m, parts)
        run = self._build_progress(m, parts, *outside)
        with m.FSM():
            self._build_begin(m, parts, run)
            self._build_post(m, parts, run)
            self._build_vector(m, parts, run)
            self._build_end(m, parts, run)
        return m

    def _connect_parts(self, m: Module, parts: _Parts) -> None:
        """What the parts tell each other, but for their streams."""
        instruction, parameters, values, operands, output = (
            parts.instruction,
            parts.parameters,
            parts.values,
            parts.operands,
            parts.output,
        )
        fields = instruction.fields
        for decoder in (instruction, parts.weight_address, parameters):
            m.d.comb += [
                decoder.words.valid.eq(self.control.words.valid),
                decoder.words.payload.eq(self.control.words.payload),
                decoder.opcode.eq(self.control.opcode),
            ]
        for block in (parameters, values, operands, output):
            m.d.comb += block.fields.eq(fields)
        m.d.comb += [
            instruction.start.eq(self.control.start),
            parameters.next_channel.eq(values.taken),
            parameters.choose.eq(output.begins),
            values.bias.eq(parameters.bias),
            values.load.valid.eq(self.drain.data_valid),
            values.load.payload.accumulators.eq(self.drain.data),
            values.load.payload.columns.eq(
                Mux(instruction.items.payload.last[2], fields.last_columns, self.config.columns),
            ),
            operands.values_taken.eq(values.taken & fields.is_vector),
            operands.value_waits.eq(values.o.valid),
            output.factor.eq(parameters.factor),
        ]

    def _connect_weights(self, m: Module, parts: _Parts) -> None:
        """The weight memory's port: of parameters or of tables; and the address of either."""
        weight_address, parameters, operands = parts.weight_address, parts.parameters, parts.operands
        fields = parts.instruction.fields
        m.d.comb += [
            weight_address.is_post.eq(fields.is_post),
            weight_address.advance.eq(parameters.advance),
            weight_address.table_number.eq(operands.table_number),
            parameters.address.eq(weight_address.address),
            operands.table_address.eq(weight_address.kept),
            parameters.weights.ready.eq(self.weights.ready),
            parameters.weights.data.eq(self.weights.data),
            parameters.weights.data_valid.eq(self.weights.data_valid),
            operands.weights.ready.eq(self.weights.ready & fields.is_vector),
            operands.weights.data.eq(self.weights.data),
            operands.weights.data_valid.eq(self.weights.data_valid & fields.is_vector),
            self.weights.valid.eq(parameters.weights.valid | operands.weights.valid),
            self.weights.address.eq(Mux(fields.is_vector, operands.weights.address, parameters.weights.address)),
        ]

    def _connect_items(self, m: Module, parts: _Parts) -> tuple[Signal, Signal]:
        """Where the loops' item is read and written, as far as it does not depend on the state; whether source and
        destination are outside."""
        instruction, operands, output = parts.instruction, parts.operands, parts.output
        fields, address = instruction.fields, instruction.items.payload.address
        bits = ceil_log2(self.config.activation_bytes)
        second = Signal()  # of a VECTOR's two sources, the next request is about the second
        with m.If(operands.requests.ready):
            m.d.sync += second.eq(fields.two_sources & ~second)
        source = Mux(second, address[1], address[0])
        destination = Mux(fields.is_post, address[0], address[2])
        source_outside, destination_outside = Signal(), Signal()
        request = operands.requests.payload
        m.d.comb += [
            source_outside.eq(source[bits:].any()),
            destination_outside.eq(destination[bits:].any()),
            request.address.eq(source[:bits]),
            request.second.eq(second),
            request.first.eq(instruction.first_tap),
            request.last.eq(instruction.last_tap),
            output.rows.payload.eq(destination[:bits]),
            output.fills.payload.eq(destination[:bits]),
        ]
        return source_outside, destination_outside

    def _build_progress(self, m: Module, parts: _Parts, source_outside: Signal, destination_outside: Signal) -> _Progress:
        """What is remembered of an instruction while it runs, and what does not depend on the state."""
        values, operands, output = parts.values, parts.operands, parts.output
        control = self.control
        position = Signal(range(self.config.accumulator_depth + 1))
        reason = Signal(ErrorCode)
        job_last, group_last, block_last = Signal(), Signal(), Signal()
        idle = Signal()
        m.d.comb += [
            idle.eq(~(values.occupied | values.o.valid | operands.under_way) & output.idle),
            control.error_code.eq(reason),
            control.busy.eq(1),
            self.busy.eq(1),
            self.drain.position.eq(position),
            job_last.eq(parts.instruction.items.payload.last[:2].all()),
        ]
        return _Progress(position, reason, job_last, group_last, block_last, idle, source_outside, destination_outside)

    def _build_begin(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Wait for an instruction, refuse it or send it on its way; a TABLE only says where its tables are."""
        instruction, weight_address, parameters, operands = (
            parts.instruction,
            parts.weight_address,
            parts.parameters,
            parts.operands,
        )
        fields, control, config = instruction.fields, self.control, self.config
        table_end = Mux(fields.tables[0], config.weight_words - 256, config.weight_words - 512)
        with m.State("IDLE"):
            m.d.comb += [control.busy.eq(0), self.busy.eq(0)]
            m.d.sync += [run.position.eq(0), run.reason.eq(ErrorCode.NONE)]
            with m.If(control.start):
                m.next = "BEGIN"
        with m.State("BEGIN"):
            m.d.comb += instruction.begin.eq(~instruction.bad & (fields.is_post | fields.is_vector))
            with m.If(instruction.bad):
                m.d.sync += run.reason.eq(ErrorCode.BAD_FIELD)
                m.next = "ERROR"
            with m.Elif(fields.is_post):
                m.d.comb += [parameters.load.eq(1), weight_address.remember.eq(1)]
                m.next = "LOAD"
            with m.Elif(fields.is_vector):
                m.next = "VECTOR"
                with m.If(fields.fills):
                    m.d.comb += operands.inject.eq(1)
                    m.next = "FILL"
            with m.Else():
                m.next = "FINISH"
                with m.If(weight_address.address > table_end):
                    m.d.sync += run.reason.eq(ErrorCode.WEIGHT_ADDRESS)
                with m.Else():
                    m.d.comb += weight_address.set_table.eq(1)
                    m.next = "TABLE"

        with m.State("TABLE"):  # the second one follows the first
            m.d.comb += [weight_address.set_table.eq(fields.tables[1]), weight_address.is_second_table.eq(1)]
            m.next = "FINISH"

    def _build_post(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Position by position, as the array hands accumulators over."""
        parameters, values, output = parts.parameters, parts.values, parts.output
        items, config = parts.instruction.items, self.config
        all_last = items.payload.last.all()
        with m.State("LOAD"):
            with m.If(parameters.outside):
                m.d.sync += run.reason.eq(ErrorCode.WEIGHT_ADDRESS)
                m.next = "FINISH"
            with m.Elif(~parameters.loading):
                m.next = "POSITION"
        with m.State("POSITION"):
            with m.If(output.outside):
                m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                m.next = "ERROR"
            with m.Elif(items.valid):
                with m.If(run.position == config.accumulator_depth):
                    m.d.sync += run.reason.eq(ErrorCode.BAD_FIELD)
                    m.next = "FINISH"
                with m.Elif(run.destination_outside):
                    m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                    m.next = "FINISH"
                with m.Else():
                    m.d.comb += self.drain.valid.eq(self.drain.full & values.empties)
                    with m.If(self.drain.valid & self.drain.ready):
                        m.next = "CAPTURE"
        with m.State("CAPTURE"):
            with m.If(self.drain.data_valid):
                m.d.comb += [
                    parameters.restart.eq(1),
                    parameters.swap.eq(run.position == 0),
                    output.rows.valid.eq(1),
                    items.ready.eq(1),
                ]
                m.d.sync += [
                    run.position.eq(run.position + 1),
                    run.group_last.eq(items.payload.last[2]),
                    run.block_last.eq(all_last),
                ]
                m.next = "POSITION"
                with m.If(run.job_last):
                    m.next = "RELEASE"
        with m.State("RELEASE"):
            m.d.comb += self.drain.release.eq(1)
            m.d.sync += run.position.eq(0)
            m.next = "EMPTY"
            with m.If(run.block_last):
                m.next = "FINISH"
        with m.State("EMPTY"):  # a set of parameters may be overwritten when the one after it is used
            with m.If(output.outside):
                m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                m.next = "ERROR"
            with m.Elif(values.empties):
                m.d.comb += [parameters.load.eq(1), parts.weight_address.recall.eq(run.group_last)]
                m.next = "LOAD"

    def _build_vector(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Tap by tap, or one value again and again."""
        instruction, operands, output = parts.instruction, parts.operands, parts.output
        items, requests, fills = instruction.items, operands.requests, output.fills
        item_taken = requests.ready & (requests.payload.second | ~instruction.fields.two_sources)
        all_last = items.payload.last.all()
        with m.State("VECTOR"):
            m.d.comb += requests.valid.eq(items.valid & ~run.source_outside & ~run.destination_outside)
            with m.If(items.valid & ~requests.valid):
                m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                m.next = "FINISH"
            m.d.comb += [
                items.ready.eq(item_taken),
                output.rows.valid.eq(item_taken & instruction.last_tap),
            ]
            with m.If(items.ready & all_last):
                m.next = "FINISH"

        with m.State("FILL"):  # the value is made once
            m.d.comb += output.keep.eq(1)
            with m.If(output.kept & items.valid):
                m.d.comb += fills.valid.eq(~run.destination_outside)
                m.d.comb += items.ready.eq(fills.valid & fills.ready)
                with m.If(run.destination_outside):
                    m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                    m.next = "FINISH"
                with m.Elif(items.ready & all_last):
                    m.next = "FINISH"

    def _build_end(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Wait for what is under way, then say how the instruction ended."""
        values, operands, output = parts.values, parts.operands, parts.output
        control = self.control
        with m.State("FINISH"):
            m.d.comb += output.flush.eq(~(values.occupied | values.o.valid | operands.under_way))
            with m.If(output.outside):
                m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                m.next = "ERROR"
            with m.Elif(run.idle):
                m.next = "ERROR"
                with m.If(run.reason == ErrorCode.NONE):
                    m.d.comb += control.done.eq(1)
                    m.next = "IDLE"
        with m.State("ERROR"):
            m.d.comb += control.error.eq(1)
            m.next = "STOPPED"
        with m.State("STOPPED"):
            m.d.comb += self.busy.eq(0)  # until reset
