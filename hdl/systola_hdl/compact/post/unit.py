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
from systola_hdl.compact.post.output import Output
from systola_hdl.compact.post.parameters import Parameters
from systola_hdl.compact.post.values import Values
from systola_hdl.compact.post.vector import Operands

__all__ = ["PostUnit"]


@dataclass(frozen=True)
class _Parts:
    """The unit's components."""

    instruction: Instruction
    parameters: Parameters
    values: Values
    operands: Operands
    output: Output


@dataclass(frozen=True)
class _Progress:
    """Registers and wires of the instruction that runs.

    ``position`` is that of the accumulators, ``reason`` the error so far; the others tell of the walker's item: the
    last of its job, of its group (a position ago), of its block; ``idle``: nothing is under way.
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
        m.submodules.parameters = parameters = Parameters()
        m.submodules.values = values = Values(self.config)
        m.submodules.operands = operands = Operands(self.config)
        m.submodules.output = output = Output(self.config)
        parts = _Parts(instruction, parameters, values, operands, output)
        connect(m, output.write, flipped(self.activation_write))
        self._connect_parts(m, parts)
        self._connect_weights(m, parts)
        outside = self._connect_reads(m, parts)
        run = self._build_progress(m, parts, *outside)
        with m.FSM():
            self._build_begin(m, parts, run)
            self._build_post(m, parts, run)
            self._build_vector(m, parts, run)
            self._build_end(m, parts, run)
        return m

    def _connect_parts(self, m: Module, parts: _Parts) -> None:
        """What the parts tell each other."""
        instruction, parameters, values, operands, output = (
            parts.instruction,
            parts.parameters,
            parts.values,
            parts.operands,
            parts.output,
        )
        control = self.control
        is_post, is_vector = parts.instruction.is_post, parts.instruction.is_vector
        for component in (instruction, parameters):
            m.d.comb += [
                getattr(component, name).eq(getattr(control, name)) for name in ("word_valid", "word", "word_index", "opcode")
            ]
        m.d.comb += instruction.start.eq(control.start)

        m.d.comb += [
            parameters.per_channel.eq(instruction.per_channel),
            parameters.identity.eq(instruction.identity),
            parameters.in_set.eq(is_post),
            parameters.next_channel.eq(values.taken),
            parameters.choose.eq(output.begins),
            values.bias.eq(parameters.bias),
            values.is_post.eq(is_post),
            values.takes_maximum.eq(instruction.takes_maximum),
            values.operand.eq(operands.operand),
            values.operand_valid.eq(operands.operand_valid),
            values.operand_first.eq(operands.operand_first),
            values.operand_last.eq(operands.operand_last),
            values.accumulators.eq(self.drain.data),
            values.o_ready.eq(output.i_ready),
            output.i_valid.eq(values.o_valid),
            output.i_value.eq(values.o),
            output.i_first.eq(values.o_first),
            output.single.eq(is_vector),
            output.multiplier.eq(parameters.multiplier),
            output.exponent.eq(parameters.exponent),
            *(getattr(output, name).eq(getattr(instruction, name)) for name in ("is_double", "is_single", "wide")),
            *(getattr(output, name).eq(getattr(instruction, name)) for name in ("zero_point", "minimum", "maximum")),
        ]

    def _connect_weights(self, m: Module, parts: _Parts) -> None:
        """The weight memory's port: parameters or tables, and the address of the next parameter word."""
        instruction, parameters, operands = parts.instruction, parts.parameters, parts.operands
        config = self.config
        is_vector = parts.instruction.is_vector
        m.d.comb += [
            parameters.inside.eq(instruction.place < config.weight_words),
            parameters.weights_ready.eq(self.weights.ready),
            parameters.weights_data.eq(self.weights.data.as_value()),
            parameters.weights_data_valid.eq(self.weights.data_valid),
            instruction.advance.eq(parameters.moved),
            operands.weights_ready.eq(self.weights.ready & is_vector),
            operands.weights_data.eq(self.weights.data.as_value()),
            operands.weights_data_valid.eq(self.weights.data_valid & is_vector),
            self.weights.valid.eq(parameters.weights_valid | operands.weights_valid),
            self.weights.address.eq(Mux(is_vector, operands.weights_address, instruction.place)),
        ]

    def _connect_reads(self, m: Module, parts: _Parts) -> tuple[Signal, Signal]:
        """The activation memory's read port, and where the loops are; whether source and destination are outside."""
        instruction, values, operands, output = parts.instruction, parts.values, parts.operands, parts.output
        walker = parts.instruction.walker
        config = self.config
        is_post, is_vector = parts.instruction.is_post, parts.instruction.is_vector
        bits = ceil_log2(config.activation_bytes)
        source = Mux(operands.second, walker.address[1], walker.address[0])
        destination = Mux(is_post, walker.address[0], walker.address[2])
        source_outside, destination_outside = Signal(), Signal()
        m.d.comb += [
            source_outside.eq(source[bits:].any()),
            destination_outside.eq(destination[bits:].any()),
            operands.first.eq(instruction.first_tap),
            operands.last.eq(instruction.last_tap),
            operands.taps.eq(instruction.has_taps),
            operands.two.eq(instruction.two_sources),
            operands.table.eq(instruction.table),
            operands.identity_maximum.eq(instruction.takes_maximum),
            operands.values_taken.eq(values.taken & is_vector),
            operands.value_waits.eq(values.o_valid),
            operands.address.eq(source[:bits]),
            self.activation_read.valid.eq(operands.read_valid),
            self.activation_read.address.eq(operands.read_address),
            operands.read_ready.eq(self.activation_read.ready),
            operands.read_data.eq(self.activation_read.data.as_value()),
            operands.read_data_valid.eq(self.activation_read.data_valid),
            output.row.eq(destination[:bits]),
            output.fill.eq(destination[:bits]),
            output.fill_word.eq(instruction.by_words),
        ]
        return source_outside, destination_outside

    def _build_progress(self, m: Module, parts: _Parts, source_outside: Signal, destination_outside: Signal) -> _Progress:
        """What is remembered of an instruction while it runs, and what does not depend on the state."""
        instruction, values, operands, output = parts.instruction, parts.values, parts.operands, parts.output
        walker = parts.instruction.walker
        control = self.control
        config = self.config
        position = Signal(range(config.accumulator_depth + 1))
        reason = Signal(ErrorCode)
        job_last, group_last, block_last = Signal(), Signal(), Signal()
        idle = Signal()
        m.d.comb += [
            idle.eq(~(values.occupied | values.o_valid | operands.under_way) & output.idle),
            control.error_code.eq(reason),
            control.busy.eq(1),
            self.busy.eq(1),
        ]

        m.d.comb += [
            self.drain.position.eq(position),
            values.columns.eq(Mux(walker.last[2], instruction.last_columns, config.columns)),
            values.load.eq(self.drain.data_valid),
            job_last.eq(walker.last[:2].all()),
            instruction.table_number.eq(operands.table_number),
            operands.table_place.eq(instruction.kept),
        ]
        return _Progress(position, reason, job_last, group_last, block_last, idle, source_outside, destination_outside)

    def _build_begin(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Wait for an instruction, refuse it or send it on its way; a TABLE only says where its tables are."""
        instruction, parameters, operands = parts.instruction, parts.parameters, parts.operands
        walker = parts.instruction.walker
        control = self.control
        config = self.config
        is_post, is_vector = parts.instruction.is_post, parts.instruction.is_vector
        table_end = Mux(instruction.tables[0], config.weight_words - 256, config.weight_words - 512)
        with m.State("IDLE"):
            m.d.comb += [control.busy.eq(0), self.busy.eq(0)]
            m.d.sync += [run.position.eq(0), run.reason.eq(ErrorCode.NONE)]
            with m.If(control.start):
                m.next = "BEGIN"
        with m.State("BEGIN"):
            m.d.comb += walker.start.eq(~instruction.bad & (is_post | is_vector))
            with m.If(instruction.bad):
                m.d.sync += run.reason.eq(ErrorCode.BAD_FIELD)
                m.next = "ERROR"
            with m.Elif(is_post):
                m.d.comb += [parameters.load.eq(1), instruction.remember.eq(1)]
                m.next = "LOAD"
            with m.Elif(is_vector):
                m.next = "VECTOR"
                with m.If(instruction.fills):
                    m.d.comb += operands.inject.eq(1)
                    m.next = "FILL"
            with m.Else():
                m.next = "FINISH"
                with m.If(instruction.place > table_end):
                    m.d.sync += run.reason.eq(ErrorCode.WEIGHT_ADDRESS)
                with m.Else():
                    m.d.comb += instruction.set_table.eq(1)
                    m.next = "TABLE"

        with m.State("TABLE"):  # the second one follows the first
            m.d.comb += [instruction.set_table.eq(instruction.tables[1]), instruction.is_second_table.eq(1)]
            m.next = "FINISH"

    def _build_post(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Position by position, as the array hands accumulators over."""
        instruction, parameters, values, output = parts.instruction, parts.parameters, parts.values, parts.output
        walker = parts.instruction.walker
        config = self.config
        all_last = walker.last.all()
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
            with m.Elif(walker.o_valid):
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
                    output.row_valid.eq(1),
                    walker.o_ready.eq(1),
                ]
                m.d.sync += [run.position.eq(run.position + 1), run.group_last.eq(walker.last[2]), run.block_last.eq(all_last)]
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
                m.d.comb += [parameters.load.eq(1), instruction.recall.eq(run.group_last)]
                m.next = "LOAD"

    def _build_vector(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Tap by tap, or one value again and again."""
        instruction, operands, output = parts.instruction, parts.operands, parts.output
        walker = parts.instruction.walker
        all_last = walker.last.all()
        with m.State("VECTOR"):
            m.d.comb += operands.valid.eq(walker.o_valid & ~run.source_outside & ~run.destination_outside)
            with m.If(walker.o_valid & ~operands.valid):
                m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                m.next = "FINISH"
            m.d.comb += [
                walker.o_ready.eq(operands.item_taken),
                output.row_valid.eq(operands.item_taken & instruction.last_tap),
            ]
            with m.If(walker.o_ready & all_last):
                m.next = "FINISH"

        with m.State("FILL"):  # the value is made once
            m.d.comb += output.keep.eq(1)
            with m.If(output.kept & walker.o_valid):
                m.d.comb += output.fill_valid.eq(~run.destination_outside)
                m.d.comb += walker.o_ready.eq(output.fill_valid & output.fill_ready)
                with m.If(run.destination_outside):
                    m.d.sync += run.reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                    m.next = "FINISH"
                with m.Elif(walker.o_ready & all_last):
                    m.next = "FINISH"

    def _build_end(self, m: Module, parts: _Parts, run: _Progress) -> None:
        """Wait for what is under way, then say how the instruction ended."""
        values, operands, output = parts.values, parts.operands, parts.output
        control = self.control
        with m.State("FINISH"):
            m.d.comb += output.flush.eq(~(values.occupied | values.o_valid | operands.under_way))
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
