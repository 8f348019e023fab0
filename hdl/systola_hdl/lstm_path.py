"""LSTM path: brings gates, preactivations and cell states together in the LSTM cell and writes what comes out."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.config import Config
from systola_firmware.isa import ErrorCode, Opcode
from systola_hdl.interfaces import ADDRESS_BITS, ERROR_CODE, ActivationRead
from systola_hdl.layouts import payload_layout
from systola_hdl.loop_nest import LoopNest
from systola_hdl.lstm_cell import GATES, LstmCell
from systola_hdl.lstm_cell_serial import SerialLstmCell
from systola_hdl.output_stage import direct_item

__all__ = ["LstmPath"]


class LstmPath(Component):
    """Executes LSTM behind the output stage's requantizers: one *bundle* of hidden units after the other.

    A bundle is what one item of the requantizers makes, ``max(requantize_lanes / 4, 1)`` units; it takes ``4 / requantize_lanes``
    items if that is more than one. Design::

        drain ─▶ output stage's requantizers ─▶ queue of gates ────────────────┐
        loop nest ─┬─▶ read port ─ ─▶ preactivations and cell states, queue ───┼─▶ feeder ─▶ cell ─▶ writer ─▶ output stage's queue
                   └─▶ queue of where a bundle's results go ───────────────────│──────────────────────▶┘

    Reads of a time step begin when all of the one before is written, so the cell state comes back, and go ahead of the
    gates as far as the queue has room. A bundle takes one read for its cell states and one for its preactivations (two, if they
    are more than ``rows`` bytes), the feeder :attr:`period` cycles. From the last item of a time step to ``step_done`` it takes
    about ``OutputStage.gates_latency + LstmCell.latency + 10`` cycles.

    Errors are precise, by bundles: ``error`` is set when every bundle before is on its way, and no later one follows.

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
        No gates are under way, and the last that came have been taken.
    error:
        Not :attr:`~systola_firmware.isa.ErrorCode.NONE`: the next bundle breaks a rule; stays until reset.
    unit_done:
        A hidden unit leaves the cell.
    reserve_gates, free_gates:
        From and to the drain: ``reserve_gates`` for one cycle takes a place for an item's gates; allowed while ``free_gates``.
    gates:
        From the output stage.
    activations:
        Read port of the activation memory.
    o, reserve, free, output_idle:
        To and from the output stage.
    """

    #: Items of gates that may be under way; more than the drain's pipeline and the requantizers' together.
    gate_places = 16
    #: Bundles read ahead.
    bundle_places = 16
    #: Bundles between their cell state's read and their writes: those read ahead, and those that fill the output stage's queue.
    open_bundles = 32

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell = SerialLstmCell() if config.lstm_serial else LstmCell()
        gates = len(GATES)
        #: Columns of a bundle, and its hidden units.
        self.bundle_columns = max(config.requantize_lanes, gates)
        self.bundle_units = self.bundle_columns // gates
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
        #: Where the results of a bundle go.
        self.place_layout = data.StructLayout(
            {"cell": signed(ADDRESS_BITS), "hidden": signed(ADDRESS_BITS), "units": range(self.bundle_units + 1)}
        )
        #: A read: of a bundle's cell states or preactivations, and whether it is a time step's last and that is the last step.
        self.read_layout = data.StructLayout(
            {
                "valid": 1,
                "address": signed(ADDRESS_BITS),
                "outside": 1,
                "of_cell": 1,
                "step_last": 1,
                "final": 1,
                "place": self.place_layout,
            }
        )
        #: What is read for a bundle.
        self.operand_layout = data.StructLayout(
            {
                "preactivation": data.ArrayLayout(data.ArrayLayout(signed(16), gates), self.bundle_units),
                "cell": data.ArrayLayout(signed(16), self.bundle_units),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.places = places = SyncFIFO(width=self.place_layout.size, depth=self.open_bundles)
        m.submodules.operands = operands = SyncFIFO(width=self.operand_layout.size, depth=self.bundle_places)
        fed = Signal()  # the feeder takes a bundle
        bad_read = self._build_reads(m, places, operands, fed)
        gates, gates_ready = self._build_gates(m, fed)
        m.d.comb += self.error.eq(Mux(bad_read & gates_ready, ErrorCode.ACTIVATION_ADDRESS, ErrorCode.NONE))
        self._build_feeder(m, data.View(self.operand_layout, operands.r_data), operands.r_rdy & gates_ready, gates, fed)
        m.d.comb += operands.r_en.eq(fed)
        self._build_writer(m, places)
        return m

    def _build_reads(self, m: Module, places: SyncFIFO, operands: SyncFIFO, fed: Signal) -> Signal:
        """Walk the loops and queue each bundle's operands; return whether the oldest bundle not fed cannot be read."""
        config, instruction = self.config, self.instruction
        units, columns = self.bundle_units, self.bundle_columns
        reads = -(-2 * columns // config.rows)  # of preactivations
        m.submodules.nest = nest = LoopNest(("block", "group", "x", "bundle", "operand"), addresses=3)
        starting = Signal()
        begin = nest.start.payload
        m.d.sync += starting.eq(self.start)
        m.d.comb += [
            nest.start.valid.eq(starting),
            *(begin.counts[loop].eq(instruction[f"{loop}_count"]) for loop in ("block", "group", "x")),
            begin.counts.bundle.eq(config.columns // columns),
            begin.counts.operand.eq(reads + 1),
        ]
        # Addresses of preactivation, cell state and hidden state.
        steps = {
            "block": (instruction.block_step_preactivation, 0, instruction.block_step),
            "group": (2 * config.columns, config.columns // 2, config.columns // 4),
            "x": (instruction.x_step_preactivation, instruction.x_step_cell, instruction.x_step),
            "bundle": (2 * columns, 2 * units, units),
            "operand": (config.rows, 0, 0),
        }
        for number, base in enumerate(("preactivation", "cell", "hidden")):
            m.d.comb += begin.base[number].eq(instruction[base])
            m.d.comb += [begin.steps[loop][number].eq(step[number]) for loop, step in steps.items()]

        # Units of this bundle, none beyond those of the last group, and bytes that this read needs.
        item = nest.o.payload
        reads_cell = item.last.operand
        bundle = Signal(range(config.columns // columns))
        beyond = bundle * units
        group_units = Mux(item.last.group, instruction.last_units, config.columns // len(GATES))
        count = Signal(range(units + 1))
        with m.If(group_units >= beyond + units):
            m.d.comb += count.eq(units)
        with m.Elif(group_units > beyond):
            m.d.comb += count.eq(group_units - beyond)
        needed = Signal(range(config.rows + 1))
        with m.If(reads_cell):
            m.d.comb += needed.eq(count << 1)
        with m.Else():
            first, rest = (
                Array(min(max(8 * n - skipped, 0), config.rows) for n in range(units + 1)) for skipped in (0, config.rows)
            )
            m.d.comb += needed.eq(Mux(item.first.operand, first[count], rest[count]))

        # The next read, registered: the memory's port has little time.
        read = Signal(self.read_layout)
        read_address = Mux(reads_cell, item.address[1], item.address[0])
        issue = Signal()
        m.d.comb += nest.o.ready.eq(~read.valid | issue)
        with m.If(nest.o.ready):
            m.d.sync += [
                read.valid.eq(nest.o.valid),
                read.address.eq(Mux(needed == 0, 0, read_address)),
                read.outside.eq((needed != 0) & ((read_address < 0) | (read_address + needed > config.activation_bytes))),
                read.of_cell.eq(reads_cell),
                read.step_last.eq(Cat(item.last[loop] for loop in ("group", "x", "bundle", "operand")).all()),
                read.final.eq(item.last.block),
                read.place.cell.eq(item.address[1]),
                read.place.hidden.eq(item.address[2]),
                read.place.units.eq(count),
            ]
            with m.If(nest.o.valid & item.last.operand):
                m.d.sync += bundle.eq(Mux(item.last.bundle, 0, bundle + 1))

        # A time step's reads wait until the one before is written.
        waiting, ended, final = Signal(range(self.bundle_places + 1)), Signal(), Signal()
        present, skips, bundle_issue = Signal(), Signal(), Signal()
        m.d.comb += [
            present.eq(read.valid & ~ended),
            skips.eq(read.place.units == 0),
            self.activations.valid.eq(present & ~skips & ~read.outside & (~read.of_cell | (waiting != self.bundle_places))),
            self.activations.address.eq(read.address),
            issue.eq((self.activations.valid & self.activations.ready) | (present & skips)),
            bundle_issue.eq(issue & read.of_cell & ~skips),
            places.w_data.eq(read.place),
            places.w_en.eq(bundle_issue),
        ]
        m.d.sync += waiting.eq(waiting + bundle_issue - fed)

        # Answers come in order: preactivations, then cell states.
        arrived = Signal(range(reads + 1))
        held = [Signal(8 * config.rows, name=f"held_{index}") for index in range(reads)]
        operand = Signal(self.operand_layout)
        m.d.comb += [
            operand.preactivation.as_value().eq(Cat(held)),
            operand.cell.as_value().eq(self.activations.data.as_value()),
            operands.w_data.eq(operand),
            operands.w_en.eq(self.activations.data_valid & (arrived == reads)),
        ]
        with m.If(self.activations.data_valid):
            m.d.sync += arrived.eq(Mux(arrived == reads, 0, arrived + 1))
            for index, value in enumerate(held):
                with m.If(arrived == index):
                    m.d.sync += value.eq(self.activations.data)

        # The output stage has places reserved for every bundle that was fed, until it is written.
        complete = Signal()
        m.d.comb += [complete.eq(ended & (waiting == 0) & self.output_idle), self.step_done.eq(complete & ~final)]
        with m.If(issue & read.step_last):
            m.d.sync += [ended.eq(1), final.eq(read.final)]
        with m.Elif(complete):
            m.d.sync += ended.eq(0)
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(complete & final):
            m.d.sync += self.finished.eq(1)
        bad_read = Signal()
        m.d.comb += bad_read.eq(present & ~skips & read.outside & (waiting == 0))
        return bad_read

    def _build_gates(self, m: Module, fed: Signal) -> tuple[data.View, Signal]:
        """Queue the gates; return those of the oldest bundle, and whether they are all there."""
        lanes, items = self.config.requantize_lanes, self.bundle_items
        m.submodules.gate_queue = queue = SyncFIFO(width=16 * lanes, depth=self.gate_places)
        used = Signal(range(self.gate_places + 1))
        m.d.sync += used.eq(used + self.reserve_gates - queue.r_en)
        m.d.comb += [
            self.free_gates.eq(used != self.gate_places),
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
        held = Signal(16 * lanes * (items - 1))
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
        """Hand a bundle's units to the cell one by one, and reserve the places of its writes meanwhile."""
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

    def _build_writer(self, m: Module, places: SyncFIFO) -> None:
        """Collect a bundle's results and write them: cell states, then hidden states. Units beyond the last write nothing."""
        lanes, units, results = self.config.requantize_lanes, self.bundle_units, self.cell.o
        place = data.View(self.place_layout, places.r_data)
        number = Signal(range(units))
        collected_cells, collected_hidden = Signal(16 * (units - 1)), Signal(8 * (units - 1))
        all_cells, all_hidden = Cat(collected_cells, results.payload.cell), Cat(collected_hidden, results.payload.hidden)
        cells, hidden = Signal(8 * lanes * self.cell_writes), Signal(8 * units)
        target = Signal(self.place_layout)
        written, writing, complete = Signal(range(self.writes)), Signal(), Signal()
        m.d.comb += [
            self.unit_done.eq(results.valid & (number < place.units)),
            complete.eq(results.valid & (number == units - 1)),
            places.r_en.eq(complete),
        ]
        with m.If(results.valid):
            m.d.sync += number.eq(Mux(complete, 0, number + 1))
            m.d.sync += [collected_cells.eq(all_cells[16:]), collected_hidden.eq(all_hidden[8:])]
        # The next bundle's last unit comes no sooner than this one is written.
        with m.If(complete):
            m.d.sync += [cells.eq(all_cells), hidden.eq(all_hidden), target.eq(place), writing.eq(1), written.eq(0)]
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
