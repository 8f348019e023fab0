"""POST unit: executes POST, VECTOR, TABLE and LSTM, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, ErrorCode, Opcode, Rounding, Unit, opcodes_of
from systola_hdl.common.field_rules import above, below, broken, outside
from systola_hdl.common.layouts import ERROR_CODE, payload_layout
from systola_hdl.common.memory_ports import ActivationRead, ActivationWrite, WeightRead
from systola_hdl.full.interfaces import AccumulatorDrain, UnitControl
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.lstm.cell import GATES
from systola_hdl.full.post.lstm.path import LstmPath
from systola_hdl.full.post.output_stage import OutputStage
from systola_hdl.full.post.tables import LookUpTables, TableLoader
from systola_hdl.full.post.vector import Vector

__all__ = ["PostUnit"]


class PostUnit(Component):
    """The post-processor: drain, vector unit, table loader and LSTM cell around one output stage.

    LSTM uses the drain and the requantizers, whose results go through the LSTM path and back to the output stage.
    Without ``config.lstm`` it is an illegal opcode.

    An instruction begins when the one before it is complete, four cycles after it is offered: it is taken, decoded and
    checked, judged, and started. Fields are checked before anything is done. Errors are precise: everything that the
    instruction writes before the access or item in error is written first, then ``control.error`` pulses, and nothing
    follows until reset.

    Throughput: see :class:`~systola_hdl.full.post.drain.Drain`, :class:`~systola_hdl.full.post.vector.Vector`,
    :class:`~systola_hdl.full.post.tables.TableLoader` and :class:`~systola_hdl.full.post.lstm.path.LstmPath`.

    Parameters
    ----------
    config:
        Sizes of the engine.
    accumulator_read_latency:
        That of the accumulators, at least 2.
    activation_write_latency:
        That of the activation memory: ``control.done`` waits for it, so that every read afterwards sees every byte.

    Attributes
    ----------
    control:
        From the sequencer. The instruction is taken when the unit is free.
    drain, activation_read, activation_write, weights:
        Ports of the memories.
    step_done:
        For one cycle: every read from now on sees what LSTM wrote in another time step (block) but the last.
    busy, cell_busy:
        An instruction is executing, and a hidden unit leaves the LSTM cell: the counters of these names.
    """

    def __init__(self, config: Config, *, accumulator_read_latency: int = 2, activation_write_latency: int = 1) -> None:
        self.config = config
        self.accumulator_read_latency = accumulator_read_latency
        self.activation_write_latency = activation_write_latency
        super().__init__(
            {
                "control": In(UnitControl(Unit.POST)),
                "drain": Out(AccumulatorDrain(config)),
                "activation_read": Out(ActivationRead(config)),
                "activation_write": Out(ActivationWrite(config)),
                "weights": Out(WeightRead(config)),
                "step_done": Out(1),
                "busy": Out(1),
                "cell_busy": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.drain_path = drain = Drain(self.config, read_latency=self.accumulator_read_latency)
        m.submodules.vector_path = vector = Vector(self.config)
        m.submodules.table_path = tables = TableLoader(self.config)
        m.submodules.output = output = OutputStage(self.config, write_latency=self.activation_write_latency)

        instruction = Signal(self.control.instruction.payload.shape())
        views = {
            opcode: data.View(payload_layout(opcode), instruction.words[: payload_layout(opcode).size])
            for opcode in opcodes_of(Unit.POST, self.config)
        }
        # The opcode is decoded a cycle after the instruction was taken.
        is_opcode = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in views}
        m.d.sync += [is_one.eq(instruction.opcode == opcode) for opcode, is_one in is_opcode.items()]
        m.d.comb += [
            drain.instruction.eq(views[Opcode.POST]),
            drain.free.eq(output.free),
            vector.instruction.eq(views[Opcode.VECTOR]),
            tables.address.eq(views[Opcode.TABLE].source),
            tables.tables.eq(views[Opcode.TABLE].tables),
        ]
        connect(m, drain.accumulators, flipped(self.drain))
        connect(m, output.write, flipped(self.activation_write))
        connect(m, tables.o, vector.table_write)
        drains: Value = is_opcode[Opcode.POST]
        readers: list[tuple[Value, Vector | LstmPath]] = [(is_opcode[Opcode.VECTOR], vector)]
        finished_by = {Opcode.POST: drain.finished, Opcode.VECTOR: vector.finished, Opcode.TABLE: tables.finished}
        errors: dict[Opcode, Value] = {
            Opcode.POST: drain.error,
            Opcode.VECTOR: vector.error,
            Opcode.TABLE: Mux(tables.outside, ErrorCode.WEIGHT_ADDRESS, ErrorCode.NONE),
        }
        reserves = [drain.reserve & is_opcode[Opcode.POST], vector.reserve]
        starts = {Opcode.VECTOR: vector.start, Opcode.TABLE: tables.start}
        rules = {opcode: self._broken(opcode, fields) for opcode, fields in views.items()} | {
            Opcode.POST: self._bad_post(views[Opcode.POST]),
            Opcode.VECTOR: self._bad_vector(views[Opcode.VECTOR]),
            Opcode.TABLE: self._broken(Opcode.TABLE, {"source": tables.address, "tables": tables.tables}),
        }
        if self.config.lstm:
            m.submodules.lstm_path = lstm = LstmPath(self.config)
            m.d.comb += lstm.instruction.eq(views[Opcode.LSTM])
            self._build_lstm(m, is_opcode[Opcode.LSTM], drain, lstm, output)
            drains |= is_opcode[Opcode.LSTM]
            readers.append((is_opcode[Opcode.LSTM], lstm))
            reserves.append(lstm.reserve)
            starts[Opcode.LSTM] = lstm.start
            finished_by[Opcode.LSTM] = drain.finished & lstm.finished
            # The drain's error is that of the oldest position once all gates before it have been taken.
            errors[Opcode.LSTM] = lstm.error | Mux(lstm.empty, drain.error, ErrorCode.NONE)
            rules[Opcode.LSTM] = self._bad_lstm(views[Opcode.LSTM])
        m.d.comb += output.reserve.eq(Cat(reserves).any())
        self._build_output_sharing(m, is_opcode[Opcode.VECTOR], drain, vector, output)
        self._build_read_sharing(m, readers)
        self._build_weight_sharing(m, ((drains, drain), (is_opcode[Opcode.TABLE], tables)))
        for name in ("zero_point", "minimum", "maximum"):
            m.d.comb += output.range[name].eq(
                Mux(is_opcode[Opcode.POST], views[Opcode.POST][name], views[Opcode.VECTOR][name]).as_signed()
            )

        # Completion and error of the instruction in progress.
        finished = Cat(is_one & finished_by[opcode] for opcode, is_one in is_opcode.items()).any()
        error = Signal(ERROR_CODE)
        for opcode, is_one in is_opcode.items():
            with m.If(is_one):
                m.d.sync += error.eq(errors[opcode])
        running, complete = Signal(), Signal()
        m.d.sync += complete.eq(running & finished & output.idle)
        is_bad = self._build_check(m, is_opcode, rules)

        reason = Signal(ERROR_CODE)
        settling = Signal(range(LookUpTables.write_latency + 1))
        m.d.comb += [self.busy.eq(self.control.busy), self.control.error_code.eq(reason)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.control.instruction.ready.eq(1)
                m.d.sync += instruction.eq(self.control.instruction.payload)
                with m.If(self.control.instruction.valid):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.control.busy.eq(1)
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.comb += self.control.busy.eq(1)
                m.next = "START"
                with m.If(~Cat(is_opcode.values()).any()):
                    m.d.sync += reason.eq(ErrorCode.ILLEGAL_OPCODE)
                    m.next = "ERROR"
                with m.Elif(is_bad):
                    m.d.sync += reason.eq(ErrorCode.BAD_FIELD)
                    m.next = "ERROR"
            with m.State("START"):
                m.d.comb += [
                    self.control.busy.eq(1),
                    drain.start.eq(drains),
                    *(start.eq(is_opcode[opcode]) for opcode, start in starts.items()),
                ]
                m.d.sync += settling.eq(Mux(is_opcode[Opcode.TABLE], LookUpTables.write_latency, 0))
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.control.busy.eq(1), running.eq(1)]
                with m.If(output.outside):
                    m.d.sync += reason.eq(ErrorCode.ACTIVATION_ADDRESS)
                    m.next = "ERROR"
                with m.Elif((error != ErrorCode.NONE) & output.idle):
                    m.d.sync += reason.eq(error)
                    m.next = "ERROR"
                with m.Elif(complete):
                    m.d.sync += settling.eq(settling - 1)
                    with m.If(settling == 0):
                        m.d.comb += self.control.done.eq(1)
                        m.next = "IDLE"
            with m.State("ERROR"):
                m.d.comb += [self.control.busy.eq(1), self.control.error.eq(1)]
                m.next = "STOPPED"
            with m.State("STOPPED"):
                pass  # until reset
        return m

    def _build_check(self, m: Module, is_opcode: dict[Opcode, Signal], rules: dict[Opcode, list[Value]]) -> Value:
        """Whether the instruction breaks a rule of its opcode; with the decoded opcodes."""
        broken = []
        for opcode, is_one in is_opcode.items():
            for number, rule in enumerate(rules[opcode]):
                breaks = Signal(name=f"breaks_{opcode.name.lower()}_{number}")
                m.d.sync += breaks.eq(rule)
                broken.append(is_one & breaks)
        return Cat(broken).any()

    def _build_output_sharing(self, m: Module, is_vector: Value, drain: Drain, vector: Vector, output: OutputStage) -> None:
        """The opcode in progress owns the output stage, which its items reach through a register."""
        m.d.sync += [
            output.i.valid.eq(Mux(is_vector, vector.o.valid, drain.o.valid)),
            output.i.payload.eq(Mux(is_vector, vector.o.payload, drain.o.payload)),
        ]
        m.d.comb += vector.free.eq(output.free)

    def _build_lstm(self, m: Module, is_lstm: Value, drain: Drain, lstm: LstmPath, output: OutputStage) -> None:
        """Run the drain for LSTM, as if it were a POST, and put the LSTM path behind the requantizers."""
        fields = lstm.instruction
        m.d.comb += [
            lstm.gates.valid.eq(output.gates.valid),
            lstm.gates.payload.eq(output.gates.payload),
            lstm.output_idle.eq(output.idle),
            lstm.free.eq(output.free),
            output.direct.valid.eq(lstm.o.valid),
            output.direct.payload.eq(lstm.o.payload),
            self.step_done.eq(lstm.step_done),
            self.cell_busy.eq(lstm.unit_done),
            drain.gates.eq(is_lstm),
        ]
        with m.If(is_lstm):
            same = ("x_count", "group_count", "block_count", "parameters")
            m.d.comb += [
                drain.instruction.eq(0),
                *(drain.instruction[name].eq(fields[name]) for name in same),
                drain.instruction.y_count.eq(1),
                drain.instruction.last_columns.eq(fields.last_units * len(GATES)),
                drain.instruction.rounding.eq(Rounding.DOUBLE),
                lstm.reserve_gates.eq(drain.reserve),
                drain.free.eq(lstm.free_gates),
            ]

    def _build_read_sharing(self, m: Module, readers: Sequence[tuple[Value, Vector | LstmPath]]) -> None:
        """The opcode in progress owns the activation memory's read port."""
        for owns, reader in readers:
            with m.If(owns):
                m.d.comb += [
                    self.activation_read.valid.eq(reader.activations.valid),
                    self.activation_read.address.eq(reader.activations.address),
                    reader.activations.ready.eq(self.activation_read.ready),
                    reader.activations.data_valid.eq(self.activation_read.data_valid),
                ]
            m.d.comb += reader.activations.data.eq(self.activation_read.data)

    def _build_weight_sharing(self, m: Module, owners: Sequence[tuple[Value, Drain | TableLoader]]) -> None:
        """The opcode in progress owns the weight memory's port."""
        for owns, owner in owners:
            with m.If(owns):
                m.d.comb += [
                    self.weights.valid.eq(owner.weights.valid),
                    self.weights.address.eq(owner.weights.address),
                    owner.weights.ready.eq(self.weights.ready),
                    owner.weights.data_valid.eq(self.weights.data_valid),
                ]
            m.d.comb += owner.weights.data.eq(self.weights.data)

    def _bad_post(self, fields: data.View) -> list[Value]:
        """Rules that a POST breaks."""
        return self._broken(Opcode.POST, fields, "x_count", "y_count", "group_count", "block_count")

    def _bad_lstm(self, fields: data.View) -> list[Value]:
        """Rules that an LSTM breaks."""
        config, counts = self.config, ("x_count", "group_count", "block_count")
        return [
            *(below(Opcode.LSTM, name, fields[name], config) for name in counts),
            above(Opcode.LSTM, "x_count", fields.x_count, config),
            *self._broken(Opcode.LSTM, fields, "last_units", "shift", apart=counts),
        ]

    def _bad_vector(self, fields: data.View) -> list[Value]:
        """Rules that a VECTOR breaks."""
        config = self.config
        rounding, shift = (outside(Opcode.VECTOR, name, fields[name], config) for name in ("rounding", "shift"))
        # The rule for the product of the tap counts: where it may be at most 1, each count must be 1.
        has_taps = (fields.t0_count != 1) | (fields.t1_count != 1)
        return [
            *self._broken(
                Opcode.VECTOR,
                fields,
                *("x_count", "y_count", "group_count", "t0_count", "t1_count", "last_lanes"),
                apart=("rounding", "shift"),
            ),
            (fields.sources != 1) & has_taps,
            (rounding | shift) & fields.requantize,
        ]

    def _broken(self, opcode: Opcode, fields: data.View | dict[str, Value], *names: str, apart: Sequence[str] = ()) -> list[Value]:
        """Whether each field breaks its rule: ``names`` first, then all others with a rule, but not those ``apart``."""
        layout = INSTRUCTIONS[opcode].fields
        known = {name: fields[name] for name in layout}
        others = [name for name, field in layout.items() if field.legal is not None and name not in (*names, *apart)]
        return [broken(opcode, name, known, self.config) for name in (*names, *others)]
