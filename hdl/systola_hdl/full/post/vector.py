"""Vector unit: element-wise operators, pooling and fill on the activation memory, up to the output stage."""

from __future__ import annotations

from amaranth.hdl import Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Rounding
from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.credit_queue import CreditQueue
from systola_hdl.common.delay import delayed
from systola_hdl.common.layouts import ERROR_CODE, payload_layout
from systola_hdl.common.memory_ports import ADDRESS_BITS, ActivationRead
from systola_hdl.full.post.output_stage import output_item
from systola_hdl.full.post.tables import TABLE_WRITE, LookUpTables

__all__ = ["Vector"]

#: What a maximum begins with: the least int8.
_LEAST = -128


class Vector(Component):
    """Executes VECTOR: one operand of ``requantize_lanes`` bytes read a cycle, or one item filled a cycle.

    Design::

        loop nest ─▶ range check ─▶ queue ─┬▶ read port ─ ─ ▶ bytes ─▶ tables ─▶ operand ─▶ bounded ─▶ combined ─▶ o
                                           └▶ queue of purposes ┘  1         3          4          5           6

    A sum is collected in a register that is zero when the next item begins. A maximum is held in two registers, the
    latest operand and the maximum of those before it, and a flag says which of them is larger. The next operand is
    compared with both registers at once, and the flag chooses between the results, so that each feedback loop has one
    carry chain only. Maxima begin at -128; operands below that are replaced by it beforehand.

    Parameters
    ----------
    config:
        Sizes of the engine.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress.
    instruction:
        Payload of the VECTOR; constant from ``start`` until the output stage is idle after ``finished``.
    finished:
        The last item has been reserved; low from the cycle after ``start``.
    error:
        Not :attr:`~systola_firmware.spec.isa.ErrorCode.NONE`: the next read breaks a rule; stays until reset. Items
        before it are reserved.
    o, reserve, free:
        To the output stage.
    table_write:
        Entries for :class:`~systola_hdl.full.post.tables.LookUpTables`.
    activations:
        Read port of the activation memory.
    """

    #: Reads that may be in flight; more than the memory's latency and that of
    #: :class:`~systola_hdl.common.credit_queue.CreditQueue`.
    reads = 16
    #: Reads prepared ahead.
    ahead = 16
    #: Cycles from ``activations.data_valid`` to ``o.valid``.
    latency = 1 + LookUpTables.latency + 3

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
                "address": signed(ADDRESS_BITS),  # destination of the item
                "count": range(config.requantize_lanes + 1),
            }
        )
        #: A read before it is requested.
        self.read_layout = data.StructLayout(
            {
                "address": ceil_log2(config.activation_bytes),
                "outside": 1,  # it may not be requested
                "final": 1,  # the last read of the instruction
                "purpose": self.purpose_layout,
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.queue = queue = CreditQueue(self.read_layout, self.ahead)
        m.submodules.purposes = purposes = CreditQueue(self.purpose_layout, self.reads)
        self._build_reads(m, queue)
        self._build_requests(m, queue, purposes)
        self._build_combination(m, purposes)
        return m

    def _build_reads(self, m: Module, queue: CreditQueue) -> None:
        """Walk the loops, and prepare every operand's read and its purpose."""
        config, instruction = self.config, self.instruction
        m.submodules.nest = nest = AddressGenerator(("y", "x", "group", "t1", "t0", "operand"), addresses=3, held=True)
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

        # Cycle 1: the address, and the largest address at which all bytes lie inside the memory. Cycle 2: compared.
        item, read, checked = nest.o.payload, Signal(self.read_layout), queue.i.payload
        address, limit = Signal(signed(ADDRESS_BITS)), Signal(signed(ADDRESS_BITS))
        taken = Signal()
        limits = Signal(signed(ADDRESS_BITS)), Signal(signed(ADDRESS_BITS))  # indexed by whether it is the last group
        for last, count in enumerate((config.requantize_lanes, instruction.last_lanes)):
            m.d.sync += limits[last].eq(config.activation_bytes - count)
        m.d.comb += [nest.o.ready.eq(queue.free), queue.take.eq(nest.o.valid & queue.free)]
        purpose = read.purpose
        m.d.sync += [
            taken.eq(queue.take),
            address.eq(Mux(item.first.operand, item.address[0], item.address[1])),
            limit.eq(Mux(item.last.group, limits[1], limits[0])),
            read.final.eq(item.last.as_value().all()),
            purpose.operand.eq(~item.first.operand),
            purpose.first.eq(item.first.t1 & item.first.t0 & item.first.operand),
            purpose.last.eq(item.last.t1 & item.last.t0 & item.last.operand),
            purpose.address.eq(item.address[2]),
            purpose.count.eq(Mux(item.last.group, instruction.last_lanes, config.requantize_lanes)),
            queue.i.valid.eq(taken),
            checked.address.eq(address),
            checked.outside.eq((instruction.sources != 0) & ((address < 0) | (address > limit))),
            checked.final.eq(read.final),
            checked.purpose.eq(purpose),
        ]

    def _build_requests(self, m: Module, queue: CreditQueue, purposes: CreditQueue) -> None:
        """Request each read once there is a credit for its purpose and, if it is the last of an item, for the item."""
        fills = self.instruction.sources == 0
        read, port = queue.o.payload, self.activations
        load = Signal()
        m.d.comb += [
            load.eq(queue.o.valid & ~read.outside & purposes.free & (self.free | ~read.purpose.last) & (~port.valid | port.ready)),
            queue.o.ready.eq(load),
            purposes.take.eq(load),
            self.reserve.eq(load & read.purpose.last),
        ]
        m.d.sync += [purposes.i.valid.eq(load), purposes.i.payload.eq(read.purpose)]
        with m.If(~port.valid | port.ready):
            m.d.sync += [port.valid.eq(load & ~fills), port.address.eq(read.address)]
        m.d.sync += self.error.eq(Mux(queue.o.valid & read.outside, ErrorCode.ACTIVATION_ADDRESS, ErrorCode.NONE))
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(load & read.final):
            m.d.sync += self.finished.eq(1)

    def _build_combination(self, m: Module, purposes: CreditQueue) -> None:
        """Map every operand through its table, combine those of an item, and hand the result over."""
        instruction = self.instruction
        lanes = self.config.requantize_lanes
        # Constant during an instruction, and registered on their way to the lanes.
        takes_maximum, fills, takes_table = Signal(), Signal(), Signal()
        m.d.sync += [
            takes_maximum.eq(instruction.combine == Combine.MAX),
            fills.eq(instruction.sources == 0),
            takes_table.eq(instruction.table),
        ]

        m.submodules.tables = tables = LookUpTables(lanes)
        connect(m, tables.write, flipped(self.table_write))
        # Cycle 1: bytes, and their purpose.
        came = Signal()
        arrives = Signal()
        m.d.sync += came.eq(self.activations.data_valid)
        m.d.comb += [arrives.eq(purposes.o.valid & (fills | came)), purposes.o.ready.eq(arrives)]
        m.d.comb += tables.i_table.eq(purposes.o.payload.operand)
        # The purpose travels beside tables, operand and bounded operand.
        wait = LookUpTables.latency + 2
        valid = delayed(m, arrives, wait, "valid", init=0)
        purpose = data.View(self.purpose_layout, delayed(m, purposes.o.payload.as_value(), wait, "purpose"))

        output = self.o.payload
        m.d.sync += [
            self.o.valid.eq(valid & purpose.last),
            output.address.eq(purpose.address),
            output.count.eq(purpose.count),
        ]
        # Without requantization the requantizers compute the identity.
        m.d.comb += output.rounding.eq(Mux(instruction.requantize, instruction.rounding, Rounding.SINGLE))
        for lane in range(lanes):
            byte = delayed(m, self.activations.data[lane].as_signed(), 1, f"byte{lane}")
            byte_beside = delayed(m, byte, LookUpTables.latency, f"byte_beside{lane}")
            operand = Signal(signed(32), name=f"operand{lane}", reset_less=True)
            bounded = Signal(signed(32), name=f"bounded{lane}", reset_less=True)
            partial = Signal(signed(32), name=f"partial{lane}")
            total = Signal(signed(32), name=f"total{lane}", reset_less=True)
            latest = Signal(signed(32), name=f"latest{lane}", reset_less=True)
            earlier = Signal(signed(32), name=f"earlier{lane}", reset_less=True)  # the maximum of the operands before the latest
            takes_latest = Signal(name=f"takes_latest{lane}")
            maximum = Signal(signed(32), name=f"maximum{lane}")
            m.d.comb += maximum.eq(Mux(takes_latest, latest, earlier))
            m.d.comb += tables.i_bytes[lane].eq(byte)
            m.d.sync += operand.eq(Mux(fills, 0, Mux(takes_table, tables.o[lane], byte_beside)))
            m.d.sync += bounded.eq(Mux(takes_maximum & (fills | (operand < _LEAST)), _LEAST, operand))
            with m.If(valid):
                m.d.sync += [total.eq(partial + bounded), partial.eq(Mux(purpose.last, 0, partial + bounded))]
                m.d.sync += [latest.eq(bounded), earlier.eq(maximum)]
                m.d.sync += takes_latest.eq(purpose.first | Mux(takes_latest, bounded > latest, bounded > earlier))
            m.d.comb += [
                output.value[lane].eq(Mux(takes_maximum, maximum, total)),
                output.bias[lane].eq(instruction.bias),
                output.factor[lane].multiplier.eq(Mux(instruction.requantize, instruction.multiplier, Const(1 << 30, 32))),
                output.factor[lane].shift.eq(Mux(instruction.requantize, instruction.shift, 1)),
            ]
