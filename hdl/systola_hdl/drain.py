"""Drain: walks the accumulators of a POST or LSTM and hands their values to the output stage."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.config import Config
from systola_firmware.isa import ErrorCode, Opcode
from systola_hdl.interfaces import ADDRESS_BITS, ERROR_CODE, AccumulatorDrain, WeightRead
from systola_hdl.layouts import payload_layout
from systola_hdl.loop_nest import LoopNest
from systola_hdl.output_stage import OutputForm, output_item
from systola_hdl.parameters import ParameterLoader

__all__ = ["Drain"]


class Drain(Component):
    """Executes POST up to the output stage: ``columns / requantize_lanes`` items a position (wide: twice as many), one a cycle.

    For LSTM it does the same with the form GATES, which reserve places of the cell unit and have no address.

    A job (block, group) begins when its half of the accumulators is full and its parameters are loaded. Between two jobs that are
    ready, one cycle is lost: ``full`` speaks of the next half only after ``release``. Chunks of the last group that lie wholly
    beyond ``last_columns`` take no cycle of the output stage, but one of the loop.

    Parameters
    ----------
    config:
        Engine.
    read_latency:
        Cycles from ``accumulators.address`` to ``accumulators.data``, at least 2.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress.
    instruction:
        Payload of the POST; constant from ``start`` until ``finished``. For LSTM, a POST with the same loops and columns.
    gates:
        The instruction is LSTM, which also means the layout of its parameters; constant like ``instruction``.
    finished:
        The last item has been reserved; low from the cycle after ``start``.
    error:
        Not :attr:`~systola_firmware.isa.ErrorCode.NONE`: the next item breaks a rule; stays until reset. Items before it are
        reserved.
    o, reserve, free:
        To the output stage.
    accumulators, weights:
        Ports of the accumulators and of the weight memory.
    """

    def __init__(self, config: Config, *, read_latency: int = 2) -> None:
        if read_latency < 2:
            raise ValueError(f"read_latency must be at least 2, not {read_latency}")
        self.config = config
        self.read_latency = read_latency
        super().__init__(
            {
                "start": In(1),
                "instruction": In(payload_layout(Opcode.POST)),
                "gates": In(1),
                "finished": Out(1),
                "error": Out(ERROR_CODE),
                "o": Out(stream.Signature(output_item(config), always_ready=True)),
                "reserve": Out(1),
                "free": In(1),
                "accumulators": Out(AccumulatorDrain(config)),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        lanes = config.requantize_lanes
        chunks = config.columns // lanes
        instruction = self.instruction

        m.submodules.parameters = parameters = ParameterLoader(config)
        connect(m, parameters.weights, flipped(self.weights))
        m.d.comb += [
            parameters.start.eq(self.start),
            parameters.address.eq(instruction.parameters),
            parameters.group_count.eq(instruction.group_count),
            parameters.block_count.eq(instruction.block_count),
            parameters.per_channel.eq(instruction.per_channel),
            parameters.shared.eq(self.gates),
            parameters.factor.multiplier.eq(instruction.multiplier),
            parameters.factor.shift.eq(instruction.shift),
        ]

        # The innermost loop goes through the columns of a position, by what is written at once.
        m.submodules.nest = nest = LoopNest(("block", "group", "y", "x", "chunk"))
        starting = Signal()
        begin = nest.start.payload
        m.d.sync += starting.eq(self.start)
        m.d.comb += [nest.start.valid.eq(starting), begin.base[0].eq(instruction.destination)]
        for loop in ("block", "group", "y", "x"):
            m.d.comb += [begin.counts[loop].eq(instruction[f"{loop}_count"]), begin.steps[loop][0].eq(instruction[f"{loop}_step"])]
        m.d.comb += [begin.counts.chunk.eq(Mux(instruction.wide, 2 * chunks, chunks)), begin.steps.chunk[0].eq(lanes)]

        item = nest.o.payload
        job_first = item.first.y & item.first.x & item.first.chunk
        job_last = item.last.y & item.last.x & item.last.chunk
        position = Signal(range(config.accumulator_depth + 1))
        chunk = Signal(range(2 * chunks))
        release = Signal()
        ready = Signal()  # the item's job may go on
        issue = Signal()
        m.d.comb += ready.eq(~job_first | (self.accumulators.full & parameters.available & ~release))
        with m.If(nest.o.valid & job_first & parameters.outside):
            m.d.comb += self.error.eq(ErrorCode.WEIGHT_ADDRESS)
        with m.Elif(nest.o.valid & (position == config.accumulator_depth)):
            m.d.comb += self.error.eq(ErrorCode.BAD_FIELD)
        with m.Else():
            m.d.comb += issue.eq(nest.o.valid & ready & self.free)

        # Bytes of this chunk that belong to channels; none beyond those of the last group.
        beyond = chunk * lanes
        columns = Mux(item.last.group, instruction.last_columns, config.columns)
        channels = Mux(instruction.wide, columns << 1, columns)
        count = Signal(range(lanes + 1))
        with m.If(channels >= beyond + lanes):
            m.d.comb += count.eq(lanes)
        with m.Elif(channels > beyond):
            m.d.comb += count.eq(channels - beyond)

        m.d.comb += [
            nest.o.ready.eq(issue),
            self.reserve.eq(issue & (count != 0)),
            parameters.claim.eq(issue & job_first),
            self.accumulators.address.eq(position),
            self.accumulators.release.eq(release),
        ]
        m.d.sync += release.eq(issue & job_last)
        with m.If(issue):
            m.d.sync += chunk.eq(Mux(item.last.chunk, 0, chunk + 1))
            m.d.sync += position.eq(Mux(job_last, 0, position + item.last.chunk))
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(issue & job_last & item.last.group & item.last.block):
            m.d.sync += self.finished.eq(1)

        # Beside the accumulators' read.
        travel = data.StructLayout(
            {
                "valid": 1,
                "job_first": 1,
                "chunk": ceil_log2(chunks),  # of the columns
                "high": 1,  # the second half of a wide one
                "address": ADDRESS_BITS,
                "count": range(lanes + 1),
            }
        )
        stages = [Signal(travel, name=f"read_{cycle}") for cycle in range(self.read_latency + 1)]
        m.d.comb += [
            stages[0].valid.eq(issue),
            stages[0].job_first.eq(job_first),
            stages[0].chunk.eq(Mux(instruction.wide, chunk >> 1, chunk)),
            stages[0].high.eq(chunk[0]),
            stages[0].address.eq(item.address[0]),
            stages[0].count.eq(count),
        ]
        for cycle in range(self.read_latency):
            m.d.sync += stages[cycle + 1].eq(stages[cycle])
        # The parameters change as the first item of a job reaches the data.
        m.d.comb += parameters.swap.eq(stages[-2].valid & stages[-2].job_first)

        arrived = stages[-1]
        output = self.o.payload
        m.d.comb += [
            self.o.valid.eq(arrived.valid & (arrived.count != 0)),
            output.rounding.eq(instruction.rounding),
            output.form.eq(
                Mux(
                    self.gates,
                    OutputForm.GATES,
                    Mux(instruction.wide, Mux(arrived.high, OutputForm.INT16_HIGH, OutputForm.INT16_LOW), OutputForm.INT8),
                )
            ),
            output.address.eq(arrived.address),
            output.count.eq(arrived.count),
        ]
        for name, source in (("value", self.accumulators.data), ("bias", parameters.bias), ("factor", parameters.factors)):
            target = output[name].as_value()
            m.d.comb += target.eq(source.as_value().word_select(arrived.chunk, len(target)))
        return m
