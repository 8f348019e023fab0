"""Drain: walks the accumulators of a POST or LSTM and hands their values to the output stage."""

from __future__ import annotations

import itertools

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode
from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.credit_queue import CreditQueue
from systola_hdl.common.layouts import ERROR_CODE, payload_layout
from systola_hdl.common.memory_ports import ADDRESS_BITS, WeightRead
from systola_hdl.full.interfaces import AccumulatorDrain
from systola_hdl.full.post.output_stage import OutputForm, output_item
from systola_hdl.full.post.parameters import ParameterLoader

__all__ = ["Drain"]


class Drain(Component):
    """Executes POST up to the output stage: ``columns / requantize_lanes`` items a position (wide: twice as many), one
    a cycle.

    For LSTM it does the same, but items have the form GATES and no address, and take credits of the LSTM path.

    Design::

        loop nest ─▶ position, chunk, count ─▶ queue ─▶ issue ─┬▶ accumulators ─ ─ ▶ o
                                                              └▶ address and count ─┘

    A job (block, group) begins when its half of the accumulators is full and its parameters are loaded. Between two
    jobs that are ready, :attr:`job_gap` cycles are lost, because ``full`` refers to the next half only after
    ``release``, and is registered. Chunks of the last group that lie wholly beyond ``last_columns`` take no cycle of
    the output stage, but one of the loop.

    Parameters
    ----------
    config:
        Sizes of the engine.
    read_latency:
        Cycles from ``accumulators.address`` to ``accumulators.data``; the swap of the parameters is timed by it.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress.
    instruction:
        Payload of the POST; constant from ``start`` until ``finished``. For LSTM, a POST with the same loops and
        columns.
    gates:
        The instruction is LSTM: items have the form GATES, and parameters the layout of LSTM. Constant like
        ``instruction``.
    finished:
        The last item has been reserved; low from the cycle after ``start``.
    error:
        Not :attr:`~systola_firmware.spec.isa.ErrorCode.NONE`: the next item breaks a rule; stays until reset. Items
        before it are reserved.
    o, reserve, free:
        To the output stage.
    accumulators, weights:
        Ports of the accumulators and of the weight memory.
    """

    #: Cycles between the last item of a job and the first of the next.
    job_gap = 2
    #: Items prepared ahead.
    ahead = 16

    def __init__(self, config: Config, *, read_latency: int = ParameterLoader.swap_latency) -> None:
        swap = read_latency - ParameterLoader.swap_latency
        if not 0 <= swap <= ParameterLoader.swap_within:
            least, most = ParameterLoader.swap_latency, ParameterLoader.swap_latency + ParameterLoader.swap_within
            raise ValueError(f"read_latency must be from {least} to {most}, not {read_latency}")
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
        #: What is prepared of an item before its job may begin.
        self.item_layout = data.StructLayout(
            {
                "address": signed(ADDRESS_BITS),
                "position": range(config.accumulator_depth),
                "too_far": 1,  # the position lies beyond the accumulators
                "chunk": ceil_log2(config.columns // config.requantize_lanes),  # of the columns
                "high": 1,  # the second half of the bytes of a wide chunk
                "count": range(config.requantize_lanes + 1),
                "writes": 1,  # the count is not 0
                "job_first": 1,
                "job_last": 1,
                "final": 1,  # the last item of the instruction
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.parameters = parameters = ParameterLoader(self.config)
        m.submodules.queue = queue = CreditQueue(self.item_layout, self.ahead)
        instruction = self.instruction
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
        self._build_items(m, queue)
        issue = self._build_issue(m, queue, parameters)
        self._build_output(m, issue, queue.o.payload, parameters)
        return m

    def _build_items(self, m: Module, queue: CreditQueue) -> None:
        """Walk the loops and prepare of every item what does not depend on when it is issued."""
        config, instruction = self.config, self.instruction
        lanes = config.requantize_lanes
        chunks = config.columns // lanes
        # The innermost loop goes through the columns of a position, in chunks that are written at once.
        m.submodules.nest = nest = AddressGenerator(("block", "group", "y", "x", "chunk"), held=True)
        starting = Signal()
        begin = nest.start.payload
        m.d.sync += starting.eq(self.start)
        m.d.comb += [nest.start.valid.eq(starting), begin.base[0].eq(instruction.destination)]
        for loop in ("block", "group", "y", "x"):
            m.d.comb += [begin.counts[loop].eq(instruction[f"{loop}_count"]), begin.steps[loop][0].eq(instruction[f"{loop}_step"])]
        m.d.comb += [begin.counts.chunk.eq(Mux(instruction.wide, 2 * chunks, chunks)), begin.steps.chunk[0].eq(lanes)]

        # Number of bytes of each chunk that belong to channels, in the last group; in other groups it is all of them.
        counts = [Signal(range(lanes + 1), name=f"count_{chunk}") for chunk in range(2 * chunks)]
        channels = Signal(range(2 * config.columns + 1))
        m.d.sync += channels.eq(Mux(instruction.wide, instruction.last_columns << 1, instruction.last_columns))
        writes = Signal(2 * chunks)
        for chunk, count in enumerate(counts):
            above = (chunk + 1) * lanes
            m.d.sync += count.eq(Mux(channels >= above, lanes, Mux(channels > above - lanes, channels - (above - lanes), 0)))
            m.d.sync += writes[chunk].eq(channels > above - lanes)

        item, prepared = nest.o.payload, queue.i.payload
        take = Signal()
        position = Signal(range(config.accumulator_depth + 1))
        chunk = Signal(range(2 * chunks))
        job_last = item.last.y & item.last.x & item.last.chunk
        m.d.comb += [nest.o.ready.eq(queue.free), take.eq(nest.o.valid & queue.free), queue.take.eq(take)]
        m.d.sync += [
            queue.i.valid.eq(take),
            prepared.address.eq(item.address[0]),
            prepared.position.eq(position),
            prepared.too_far.eq(position[-1]),
            prepared.chunk.eq(Mux(instruction.wide, chunk >> 1, chunk)),
            prepared.high.eq(chunk[0]),
            prepared.count.eq(Mux(item.last.group, Array(counts)[chunk], lanes)),
            prepared.writes.eq(~item.last.group | writes.bit_select(chunk, 1)),
            prepared.job_first.eq(item.first.y & item.first.x & item.first.chunk),
            prepared.job_last.eq(job_last),
            prepared.final.eq(job_last & item.last.group & item.last.block),
        ]
        with m.If(take):
            m.d.sync += chunk.eq(Mux(item.last.chunk, 0, chunk + 1))
            m.d.sync += position.eq(Mux(job_last, 0, position + item.last.chunk))

    def _build_issue(self, m: Module, queue: CreditQueue, parameters: ParameterLoader) -> Signal:
        """Read the accumulators for one item after the other; return whether an item is issued in this cycle."""
        item = queue.o.payload
        issue, begins = Signal(), Signal()
        may_begin = Signal()  # the next job may begin
        in_job = Signal()  # from a job's first item until `full` refers to the next job's half
        release = Signal()
        m.d.comb += [
            issue.eq(queue.o.valid & self.free & ~item.too_far & (may_begin | ~item.job_first)),
            begins.eq(issue & item.job_first),
            queue.o.ready.eq(issue),
            self.reserve.eq(issue & item.writes),
            self.accumulators.address.eq(item.position),
            self.accumulators.release.eq(release),
        ]
        m.d.sync += [
            release.eq(issue & item.job_last),
            # `claim` is a cycle late, and so is the fall of `available`; meanwhile `in_job` holds the next job back.
            parameters.claim.eq(begins),
            may_begin.eq(self.accumulators.full & parameters.available & ~in_job & ~begins),
            self.error.eq(ErrorCode.NONE),
        ]
        with m.If(begins):
            m.d.sync += in_job.eq(1)
        with m.Elif(release):
            m.d.sync += in_job.eq(0)
        with m.If(queue.o.valid & item.job_first & parameters.outside):
            m.d.sync += self.error.eq(ErrorCode.WEIGHT_ADDRESS)
        with m.Elif(queue.o.valid & item.too_far):
            m.d.sync += self.error.eq(ErrorCode.BAD_FIELD)
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(issue & item.final):
            m.d.sync += self.finished.eq(1)
        return issue

    def _build_output(self, m: Module, issue: Signal, item: data.View, parameters: ParameterLoader) -> None:
        """Hand the accumulators' data over to the output stage, with its item's address, form and parameters."""
        instruction = self.instruction
        stages = [Signal(1 + self.item_layout.size, name=f"read_{cycle}") for cycle in range(self.read_latency + 1)]
        m.d.comb += stages[0].eq(Cat(issue, item))
        for earlier, later in itertools.pairwise(stages):
            m.d.sync += later.eq(earlier)
        valid = [stage[0] for stage in stages]
        items = [data.View(self.item_layout, stage[1:]) for stage in stages]
        # The parameters are swapped when the data of a job's first item arrives.
        swap = self.read_latency - ParameterLoader.swap_latency
        m.d.comb += parameters.swap.eq(valid[swap] & items[swap].job_first)

        arrived = items[-1]
        output = self.o.payload
        m.d.comb += [
            self.o.valid.eq(valid[-1] & arrived.writes),
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
