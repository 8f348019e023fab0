"""Vector unit: element-wise operators, pooling and fill on the activation memory, up to the output stage."""

from __future__ import annotations

from amaranth.hdl import Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_firmware.isa import Combine, ErrorCode, Opcode, Rounding
from systola_hdl.interfaces import ADDRESS_BITS, ERROR_CODE, ActivationRead
from systola_hdl.layouts import payload_layout
from systola_hdl.loop_nest import LoopNest
from systola_hdl.output_stage import output_item
from systola_hdl.tables import TABLE_WRITE, LookUpTables

__all__ = ["Vector"]


class Vector(Component):
    """Executes VECTOR: one operand of ``requantize_lanes`` bytes read a cycle, or one item filled a cycle.

    Design::

        loop nest ─▶ read port ─ ─ ─ ─ ▶ bytes ─▶ table ─▶ operand ─▶ combined ─▶ output stage
                └──▶ queue of what each read is for ─┘  1        2          3 cycles after the data

    Parameters
    ----------
    config:
        Engine.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress.
    instruction:
        Payload of the VECTOR; constant from ``start`` until the output stage is idle after ``finished``.
    finished:
        The last item has been reserved; low from the cycle after ``start``.
    error:
        Not :attr:`~systola_firmware.isa.ErrorCode.NONE`: the next read breaks a rule; stays until reset. Items before it are
        reserved.
    o, reserve, free:
        To the output stage.
    table_write:
        Entries for :class:`~systola_hdl.tables.LookUpTables`.
    activations:
        Read port of the activation memory.
    """

    #: Reads that may be under way; more than the memory's latency.
    reads = 16
    #: Cycles from ``activations.data_valid`` to ``o.valid``.
    latency = 3 + LookUpTables.latency

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "instruction": In(payload_layout(Opcode.VECTOR)),
                "finished": Out(1),
                "error": Out(ERROR_CODE),
                "o": Out(stream.Signature(output_item(config), always_ready=True)),
                "reserve": Out(1),
                "free": In(1),
                "table_write": In(stream.Signature(TABLE_WRITE, always_ready=True)),
                "activations": Out(ActivationRead(config)),
            }
        )
        #: What a read is for. The last three members matter with ``last`` only.
        self.purpose_layout = data.StructLayout(
            {
                "operand": 1,  # which operand, and so which table
                "first": 1,  # first of its item
                "last": 1,  # last of its item
                "address": signed(ADDRESS_BITS),  # of the destination
                "count": range(config.requantize_lanes + 1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.purposes = purposes = SyncFIFO(width=self.purpose_layout.size, depth=self.reads)
        self._build_reads(m, purposes)
        self._build_combination(m, purposes)
        return m

    def _build_reads(self, m: Module, purposes: SyncFIFO) -> None:
        """Walk the loops, request every operand and note what it is for."""
        instruction = self.instruction
        m.submodules.nest = nest = LoopNest(("y", "x", "group", "t1", "t0", "operand"), addresses=3)
        starting = Signal()
        begin = nest.start.payload
        m.d.sync += starting.eq(self.start)
        m.d.comb += nest.start.valid.eq(starting)
        for loop in ("y", "x", "group", "t1", "t0"):
            m.d.comb += begin.counts[loop].eq(instruction[f"{loop}_count"])
        m.d.comb += begin.counts.operand.eq(Mux(instruction.sources == 2, 2, 1))
        for number, base in enumerate(("source", "source1", "destination")):
            m.d.comb += begin.base[number].eq(instruction[base])
        for number, suffix in enumerate(("", "1", "_out")):
            m.d.comb += [
                begin.steps.y[number].eq(instruction[f"y_step{suffix}"]),
                begin.steps.x[number].eq(instruction[f"x_step{suffix}"]),
                begin.steps.group[number].eq(instruction.group_step),
            ]
        m.d.comb += [begin.steps.t1[0].eq(instruction.t1_step), begin.steps.t0[0].eq(instruction.t0_step)]

        item = nest.o.payload
        purpose = Signal(self.purpose_layout)
        m.d.comb += [
            purpose.operand.eq(~item.first.operand),
            purpose.first.eq(item.first.t1 & item.first.t0 & item.first.operand),
            purpose.last.eq(item.last.t1 & item.last.t0 & item.last.operand),
            purpose.address.eq(item.address[2]),
            purpose.count.eq(Mux(item.last.group, instruction.last_lanes, self.config.requantize_lanes)),
            purposes.w_data.eq(purpose),
        ]
        fills = instruction.sources == 0
        address = Mux(purpose.operand, item.address[1], item.address[0])
        outside = Signal()
        wanted = Signal()  # falls only after a transfer, so `activations.valid` does
        issue = Signal()
        m.d.comb += [
            outside.eq(~fills & ((address < 0) | (address + purpose.count > self.config.activation_bytes))),
            wanted.eq(nest.o.valid & purposes.w_rdy & (self.free | ~purpose.last)),
            self.activations.address.eq(address),
            self.activations.valid.eq(wanted & ~fills & ~outside),
            issue.eq(wanted & ~outside & (fills | self.activations.ready)),
            nest.o.ready.eq(issue),
            purposes.w_en.eq(issue),
            self.reserve.eq(issue & purpose.last),
            self.error.eq(Mux(nest.o.valid & outside, ErrorCode.ACTIVATION_ADDRESS, ErrorCode.NONE)),
        ]
        all_last = item.last.as_value().all()
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(issue & all_last):
            m.d.sync += self.finished.eq(1)

    def _build_combination(self, m: Module, purposes: SyncFIFO) -> None:
        """Map every operand through its table, combine those of an item, and hand the result over."""
        instruction = self.instruction
        lanes = self.config.requantize_lanes
        takes_maximum = instruction.combine == Combine.MAX
        fills = instruction.sources == 0
        identity = Mux(takes_maximum, -128, 0)

        m.submodules.tables = tables = LookUpTables(lanes)
        connect(m, tables.write, flipped(self.table_write))
        arrives = Signal()
        m.d.comb += [arrives.eq(purposes.r_rdy & (fills | self.activations.data_valid)), purposes.r_en.eq(arrives)]
        # cycle 1: bytes; cycle 2: table entries; cycle 3: operands; cycle 4: combined
        valid = [Signal(name=f"valid_{cycle}") for cycle in range(self.latency)]
        purpose = [Signal(self.purpose_layout, name=f"purpose_{cycle}") for cycle in range(self.latency)]
        m.d.comb += [valid[0].eq(arrives), purpose[0].eq(purposes.r_data)]
        for cycle in range(1, self.latency):
            m.d.sync += [valid[cycle].eq(valid[cycle - 1]), purpose[cycle].eq(purpose[cycle - 1])]

        output = self.o.payload
        m.d.sync += [
            self.o.valid.eq(valid[-1] & purpose[-1].last),
            output.address.eq(purpose[-1].address),
            output.count.eq(purpose[-1].count),
        ]
        m.d.comb += [tables.i_table.eq(purpose[1].operand)]
        # Without requantization the requantizers compute the identity.
        m.d.comb += output.rounding.eq(Mux(instruction.requantize, instruction.rounding, Rounding.SINGLE))
        for lane in range(lanes):
            byte = Signal(signed(8), name=f"byte{lane}")
            byte_beside = Signal(signed(8), name=f"byte_beside{lane}")
            operand = Signal(signed(32), name=f"operand{lane}")
            combined = Signal(signed(32), name=f"combined{lane}")
            so_far = Signal(signed(32), name=f"so_far{lane}")
            m.d.sync += [byte.eq(self.activations.data[lane]), byte_beside.eq(byte)]
            m.d.comb += tables.i_bytes[lane].eq(byte)
            with m.If(fills):
                m.d.sync += operand.eq(identity)
            with m.Else():
                m.d.sync += operand.eq(Mux(instruction.table, tables.o[lane], byte_beside))
            m.d.comb += so_far.eq(Mux(purpose[-1].first, identity, combined))
            with m.If(valid[-1]):
                with m.If(takes_maximum):
                    m.d.sync += combined.eq(Mux(operand > so_far, operand, so_far))
                with m.Else():
                    m.d.sync += combined.eq(so_far + operand)
            m.d.comb += [
                output.value[lane].eq(combined),
                output.bias[lane].eq(instruction.bias),
                output.factor[lane].multiplier.eq(Mux(instruction.requantize, instruction.multiplier, Const(1 << 30, 32))),
                output.factor[lane].shift.eq(Mux(instruction.requantize, instruction.shift, 1)),
            ]
