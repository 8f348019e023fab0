"""LSTM path: brings gates, preactivations and cell states together in the LSTM cell and writes the results."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode
from systola_hdl.common.layouts import ERROR_CODE, payload_layout
from systola_hdl.common.memory_ports import ActivationRead
from systola_hdl.full.post.lstm.cell import GATES, LstmCell
from systola_hdl.full.post.lstm.cell_serial import SerialLstmCell
from systola_hdl.full.post.lstm.reads import LstmReads, bundle_units, destination_layout, operand_layout
from systola_hdl.full.post.output_stage import direct_item

__all__ = ["LstmPath"]


class LstmPath(Component):
    """Executes LSTM behind the output stage's requantizers: one *bundle* of hidden units after the other.

    A bundle is the hidden units whose gates are in one item of the requantizers: ``requantize_lanes / 4`` units or, if
    that is less than one, one unit of ``4 / requantize_lanes`` items. Design::

        drain ─▶ output stage's requantizers ─▶ queue of gates ────────────────┐
        loop nest ─┬─▶ read port ─ ─▶ preactivations and cell states, queue ───┼─▶ feeder ─▶ cell ─▶ writer ─▶ output
                   └─▶ queue of destinations of the results ───────────────────│──────────────────────▶┘

    The reads of a time step begin when all results of the step before are written, because they read the cell state
    back. They run ahead of the gates as far as the queue has entries. A bundle takes one read for its cell states and
    one for its preactivations (two, if they are more than ``rows`` bytes), the feeder :attr:`period` cycles. From the
    last item of a time step to ``step_done`` it takes about ``OutputStage.gates_latency + LstmCell.latency + 10``
    cycles.

    Errors are precise to the bundle: ``error`` is set when the cell has taken every bundle before the bad one, and none
    follows.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress; the drain starts with it.
    instruction:
        Payload of the LSTM; constant from ``start`` until the output stage is idle after ``finished``.
    finished:
        The last time step is written; low from the cycle after ``start``.
    step_done:
        For one cycle: every read from now on sees all of another time step, which is not the last.
    empty:
        No gates are in flight, and the last that came have been taken.
    error:
        Not :attr:`~systola_firmware.spec.isa.ErrorCode.NONE`: the next bundle breaks a rule; stays until reset.
    unit_done:
        A hidden unit leaves the cell.
    reserve_gates, free_gates:
        From and to the drain: ``reserve_gates`` for one cycle takes a credit for an item's gates; allowed while
        ``free_gates``.
    gates:
        From the output stage.
    activations:
        Read port of the activation memory.
    o, reserve, free, output_idle:
        To and from the output stage.
    """

    #: Entries of the queue of gates, and so its credits; more than the stages of drain and requantizers together.
    gate_entries = 16
    #: Bundles whose cell states are requested and whose results are not yet collected, at most: those read ahead, and
    #: those whose writes fill the output stage's queue.
    open_bundles = 32

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell = SerialLstmCell() if config.lstm_serial else LstmCell()
        gates = len(GATES)
        #: Columns of a bundle, and its hidden units.
        self.bundle_units = bundle_units(config)
        self.bundle_columns = self.bundle_units * gates
        #: Items of gates a bundle.
        self.bundle_items = self.bundle_columns // config.requantize_lanes
        #: Writes a bundle: cell states, hidden states.
        self.cell_writes = -(-2 * self.bundle_units // config.requantize_lanes)
        self.writes = self.cell_writes + 1
        #: Cycles that the feeder takes for a bundle.
        self.period = max(self.bundle_units * self.cell.interval, self.writes)
        super().__init__(
            {
                "start": In(1),
                "instruction": In(payload_layout(Opcode.LSTM)),
                "finished": Out(1),
                "step_done": Out(1),
                "empty": Out(1),
                "error": Out(ERROR_CODE),
                "unit_done": Out(1),
                "reserve_gates": In(1),
                "free_gates": Out(1),
                "gates": In(stream.Signature(data.ArrayLayout(signed(16), config.requantize_lanes), always_ready=True)),
                "activations": Out(ActivationRead(config)),
                "o": Out(stream.Signature(direct_item(config), always_ready=True)),
                "reserve": Out(1),
                "free": In(1),
                "output_idle": In(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        destination_shape, operand_shape = destination_layout(self.config), operand_layout(self.config)
        m.submodules.places = destinations = SyncFIFO(width=destination_shape.size, depth=self.open_bundles)
        m.submodules.operands = operands = SyncFIFO(width=operand_shape.size, depth=LstmReads.bundle_entries)
        m.submodules.reads = reads = LstmReads(self.config)
        connect(m, reads.activations, flipped(self.activations))
        fed = Signal()  # the feeder takes a bundle
        m.d.comb += [
            reads.start.eq(self.start),
            reads.instruction.eq(self.instruction),
            reads.output_idle.eq(self.output_idle),
            reads.fed.eq(fed),
            self.finished.eq(reads.finished),
            self.step_done.eq(reads.step_done),
            destinations.w_data.eq(reads.place),
            destinations.w_en.eq(reads.place_valid),
            operands.w_data.eq(reads.operand),
            operands.w_en.eq(reads.operand_valid),
        ]
        gates, gates_ready = self._build_gates(m, fed)
        m.d.comb += self.error.eq(Mux(reads.bad & gates_ready, ErrorCode.ACTIVATION_ADDRESS, ErrorCode.NONE))
        self._build_feeder(m, data.View(operand_shape, operands.r_data), operands.r_rdy & gates_ready, gates, fed)
        m.d.comb += operands.r_en.eq(fed)
        self._build_writer(m, destinations)
        return m

    def _build_gates(self, m: Module, fed: Signal) -> tuple[data.View, Signal]:
        """Queue the gates; return those of the oldest bundle, and whether all of them have come."""
        lanes, items = self.config.requantize_lanes, self.bundle_items
        m.submodules.gate_queue = queue = SyncFIFO(width=16 * lanes, depth=self.gate_entries)
        used = Signal(range(self.gate_entries + 1))
        m.d.sync += used.eq(used + self.reserve_gates - queue.r_en)
        m.d.comb += [
            self.free_gates.eq(used != self.gate_entries),
            self.empty.eq(used == 0),
            queue.w_data.eq(self.gates.payload),
            queue.w_en.eq(self.gates.valid),
        ]
        ready = Signal()
        gates = Signal(data.ArrayLayout(data.ArrayLayout(signed(16), len(GATES)), self.bundle_units))
        if items == 1:
            m.d.comb += [gates.as_value().eq(queue.r_data), ready.eq(queue.r_rdy), queue.r_en.eq(fed)]
            return gates, ready
        index = Signal(range(items))
        held = Signal(16 * lanes * (items - 1), reset_less=True)
        m.d.comb += [
            gates.as_value().eq(Cat(held, queue.r_data)),
            ready.eq(queue.r_rdy & (index == items - 1)),
            queue.r_en.eq(fed | (queue.r_rdy & (index != items - 1))),
        ]
        with m.If(fed):
            m.d.sync += index.eq(0)
        with m.Elif(queue.r_rdy & ~ready):
            m.d.sync += [index.eq(index + 1), held.eq(Cat(held, queue.r_data) >> 16 * lanes)]
        return gates, ready

    def _build_feeder(self, m: Module, operand: data.View, ready: Signal, gates: data.View, fed: Signal) -> None:
        """Hand a bundle's units to the cell one by one, and take the credits for its writes at the same time."""
        instruction, interval = self.instruction, self.cell.interval
        m.submodules.cell = cell = self.cell
        phase = Signal(range(self.period))
        reserves, advance = Signal(), Signal()
        m.d.comb += [
            cell.constants.exponent.eq(instruction.cell_exponent),
            cell.constants.clip.eq(instruction.clip),
            cell.constants.factor.multiplier.eq(instruction.multiplier),
            cell.constants.factor.shift.eq(instruction.shift),
            cell.constants.zero_point.eq(instruction.zero_point),
            reserves.eq(phase < self.writes),
            advance.eq(ready & (self.free | ~reserves)),
            self.reserve.eq(advance & reserves),
            fed.eq(advance & (phase == self.period - 1)),
        ]
        with m.If(advance):
            m.d.sync += phase.eq(Mux(fed, 0, phase + 1))
        unit = cell.i.payload
        for number in range(self.bundle_units):
            with m.If(phase == number * interval):
                m.d.comb += [
                    cell.i.valid.eq(advance),
                    *(unit.recurrent[gate].eq(gates[number][gate]) for gate in range(len(GATES))),
                    unit.preactivation.eq(operand.preactivation[number]),
                    unit.cell.eq(operand.cell[number]),
                ]

    def _build_writer(self, m: Module, destinations: SyncFIFO) -> None:
        """Collect a bundle's results and write them: cell states, then hidden states. Units beyond the group's last one
        are not written."""
        lanes, units, results = self.config.requantize_lanes, self.bundle_units, self.cell.o
        destination = data.View(destination_layout(self.config), destinations.r_data)
        number = Signal(range(units))
        collected_cells, collected_hidden = Signal(16 * (units - 1), reset_less=True), Signal(8 * (units - 1), reset_less=True)
        all_cells, all_hidden = Cat(collected_cells, results.payload.cell), Cat(collected_hidden, results.payload.hidden)
        cells, hidden = Signal(8 * lanes * self.cell_writes, reset_less=True), Signal(8 * units, reset_less=True)
        target = Signal(destination_layout(self.config), reset_less=True)
        written, writing, complete = Signal(range(self.writes)), Signal(), Signal()
        m.d.comb += [
            self.unit_done.eq(results.valid & (number < destination.units)),
            complete.eq(results.valid & (number == units - 1)),
            destinations.r_en.eq(complete),
        ]
        with m.If(results.valid):
            m.d.sync += number.eq(Mux(complete, 0, number + 1))
            m.d.sync += [collected_cells.eq(all_cells[16:]), collected_hidden.eq(all_hidden[8:])]
        # The next bundle's last unit leaves the cell no sooner than this bundle is written.
        with m.If(complete):
            m.d.sync += [cells.eq(all_cells), hidden.eq(all_hidden), target.eq(destination), writing.eq(1), written.eq(0)]
        with m.Elif(writing):
            m.d.sync += written.eq(written + 1)
            with m.If(written == self.writes - 1):
                m.d.sync += writing.eq(0)
        output = self.o.payload
        m.d.comb += self.o.valid.eq(writing)
        with m.If(written == self.cell_writes):
            m.d.comb += [output.data.eq(hidden), output.address.eq(target.hidden), output.count.eq(target.units)]
        with m.Else():
            # More than one write is needed only for the single unit of a single lane.
            m.d.comb += [
                output.data.eq(cells.word_select(written, 8 * lanes)),
                output.address.eq(target.cell + written * lanes),
                output.count.eq(target.units << 1 if self.cell_writes == 1 else 1),
            ]
