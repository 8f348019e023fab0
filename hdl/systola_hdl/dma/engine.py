"""The DMA engine: ring, checks, movers, records."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import COUNTERS, region_bytes
from systola_hdl.common.memory_ports import BeatRead, BeatWrite
from systola_hdl.dma.control import Control
from systola_hdl.dma.inbound import Inbound
from systola_hdl.dma.layouts import JOB, MEMORIES
from systola_hdl.dma.outbound import Outbound
from systola_hdl.dma.preparation import Preparation
from systola_hdl.dma.read_port import ReadPort
from systola_hdl.dma.record_writer import RecordWriter
from systola_hdl.dma.registers import DmaRegisters
from systola_hdl.dma.ring_reader import RingReader
from systola_hdl.host.bus import Bus
from systola_hdl.host.counters import COUNTER_LAYOUT
from systola_hdl.host.host_port import HostMemory

__all__ = ["ENGINE_STATE", "DmaEngine"]

#: State of the engine that status records contain.
ENGINE_STATE = data.StructLayout({"status": 32, "error_address": 32, "marks": 32, "counters": COUNTER_LAYOUT})

#: Jobs that are prepared ahead of the one being executed.
_AHEAD = 4


class DmaEngine(Component):
    """Executes descriptors as :mod:`systola_firmware.spec.dma` describes them.

        ring reader ─▶ preparation ─▶ queue ─▶ control ─▶ inbound, outbound, engine, record writer
             └───────────┴─▶ read port ─▶ host memory

    Members
    -------
    registers: In(Bus())
        The host's access to the DMA region.
    host: In(HostMemory())
        The link; the DMA engine is its target.
    write_program, write_activation, write_weight: Out(BeatWrite), read_program, read_activation, read_weight:
    Out(BeatRead)
        The engine's memories.
    start: Out(1), start_address: Out(32)
        Start the program; ``busy`` is high from the next cycle on.
    busy, error: In(1)
        A program runs; the last one stopped with an error.
    state: In(ENGINE_STATE)
        For records; steady while no program runs.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "registers": In(Bus()),
                "host": In(HostMemory()),
                **{f"write_{memory.name.lower()}": Out(BeatWrite(region_bytes(config, memory))) for memory in MEMORIES},
                **{f"read_{memory.name.lower()}": Out(BeatRead(region_bytes(config, memory))) for memory in MEMORIES},
                "start": Out(1),
                "start_address": Out(32),
                "busy": In(1),
                "error": In(1),
                "state": In(ENGINE_STATE),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        host = self.host
        m.submodules.registers = registers = DmaRegisters()
        m.submodules.control = control = Control()
        reader, preparation = RingReader(), Preparation(self._config)
        ahead = SyncFIFO(width=JOB.size, depth=_AHEAD)
        m.submodules.reader = ResetInserter(control.clear)(reader)
        m.submodules.preparation = ResetInserter(control.clear)(preparation)
        m.submodules.ahead = ResetInserter(control.clear)(ahead)
        m.submodules.read_port = read_port = ReadPort()
        m.submodules.inbound = inbound = Inbound(self._config)
        m.submodules.outbound = outbound = Outbound(self._config)
        connect(m, flipped(self.registers), registers.host)
        connect(m, reader.read, read_port.ring_read)
        connect(m, read_port.ring_data, reader.read_data)
        connect(m, preparation.read, read_port.job_read)
        connect(m, read_port.job_data, inbound.i)
        connect(m, read_port.read, flipped(host.read))
        connect(m, flipped(host.read_data), read_port.read_data)
        connect(m, reader.o, preparation.i)
        connect(m, control.inbound, inbound.start)
        connect(m, control.outbound, outbound.start)
        connect(m, flipped(host.write_done), control.write_done)
        for memory in MEMORIES:
            name = memory.name.lower()
            connect(m, getattr(inbound, name), flipped(getattr(self, f"write_{name}")))
            connect(m, getattr(outbound, name), flipped(getattr(self, f"read_{name}")))
        m.d.comb += [
            registers.clear.eq(control.clear),
            registers.completed.eq(control.completed),
            registers.busy.eq(control.busy),
            registers.stopped.eq(control.stopped),
            registers.link_up.eq(host.link_up),
            registers.error_code.eq(control.error_code),
            reader.enable.eq(control.enable),
            reader.link_up.eq(host.link_up),
            reader.doorbell.eq(registers.doorbell),
            reader.completed.eq(control.completed),
            reader.ring_size.eq(registers.ring_size),
            reader.ring_address.eq(registers.ring_address),
            reader.record_address.eq(registers.record_address),
            preparation.enable.eq(control.enable),
            preparation.link_up.eq(host.link_up),
            preparation.quiet.eq(control.quiet & ~ahead.r_rdy),
            ahead.w_en.eq(preparation.o.valid),
            ahead.w_data.eq(preparation.o.payload),
            preparation.o.ready.eq(ahead.w_rdy),
            control.job.valid.eq(ahead.r_rdy),
            control.job.payload.eq(ahead.r_data),
            ahead.r_en.eq(control.job.ready),
            read_port.drain.eq(control.drain),
            control.doorbell.eq(registers.doorbell),
            control.record_address.eq(registers.record_address),
            control.link_up.eq(host.link_up),
            control.reset.eq(registers.reset),
            control.reads_idle.eq(read_port.idle),
            control.inbound_done.eq(inbound.done),
            control.inbound_error.eq(inbound.error_code),
            control.outbound_done.eq(outbound.done),
            control.engine_busy.eq(self.busy),
            control.engine_error.eq(self.error),
            self.start.eq(control.engine_start),
            self.start_address.eq(control.engine_start_address),
            host.interrupt.eq(control.interrupt),
        ]
        self._build_writes(m, registers, control, outbound)
        return m

    def _build_writes(self, m: Module, registers: DmaRegisters, control: Control, outbound: Outbound) -> None:
        """Outbound mover and record writer never write at the same time, so their streams share the port without an
        arbiter."""
        m.submodules.record_writer = writer = RecordWriter()
        sequence = Signal(32, init=1)
        with m.If(writer.done):
            m.d.sync += sequence.eq(sequence + 1)
        with m.If(control.clear):
            m.d.sync += sequence.eq(1)
        values = {
            "completed": control.record_completed,
            "status": registers.status,
            "engine_status": self.state.status,
            "error_address": self.state.error_address,
            "marks": self.state.marks,
            "doorbell": registers.doorbell,
            "sequence": sequence,
            **{f"counter_{name}": self.state.counters[name] for name in COUNTERS},
        }
        m.d.comb += [writer.record[name].eq(value) for name, value in values.items()]
        m.d.comb += [
            writer.start.eq(control.record_start),
            writer.host_address.eq(control.record_to),
            control.record_done.eq(writer.done),
        ]
        for name in ("write", "write_data"):
            target = getattr(self.host, name)
            ours, theirs = getattr(writer, name), getattr(outbound, name)
            m.d.comb += [
                target.valid.eq(ours.valid | theirs.valid),
                target.payload.eq(Mux(control.record_start, ours.payload, theirs.payload)),
                ours.ready.eq(target.ready & control.record_start),
                theirs.ready.eq(target.ready & ~control.record_start),
            ]
