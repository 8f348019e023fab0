"""Executes descriptors in order, counts those that are complete, and stops at the first error."""

import enum

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.dma import DmaError, DmaFlag, DmaKind
from systola_hdl.dma.layouts import JOB, MOVE
from systola_hdl.host.host_port import DMA_ERROR, HostMemory

__all__ = ["Control"]

#: Descriptors that may be executed and not yet complete.
_PENDING = 4


class _Awaits(enum.IntEnum):
    """What an executed descriptor's completion waits for."""

    NOTHING = 0
    WRITE = 1
    PROGRAM = 2


class Control(Component):
    """Start each job as soon as it may begin; count completions in the order of the jobs.

    A mover works on one transfer at a time. A transfer to the host is complete when its write is answered, which the
    next job does not wait for. A program is complete when it has ended; until then, of the transfers only those with
    OVERLAP begin. FENCE, RECORD and INTERRUPT wait until every job before them is complete.

    Members
    -------
    job: In(stream of JOB)
        What to execute.
    doorbell: In(32), record_address: In(64), link_up: In(1), reset: In(1)
        Registers, the link's state, and whether the host asks for a reset in this cycle.
    reads_idle: In(1)
        Every read of the host's memory is answered.
    inbound, outbound: Out(stream of MOVE), inbound_done, outbound_done: In(1), inbound_error: In(8)
        The movers.
    record_start: Out(1), record_done: In(1), record_to: Out(64), record_completed: Out(32)
        The writer of records: where to, and the count of completed descriptors to write.
    write_done: In(stream of WRITE_DONE)
        Answers of the host's memory to the writes.
    engine_start: Out(1), engine_start_address: Out(32), engine_busy, engine_error: In(1)
        The engine; ``engine_busy`` in the cycle after ``engine_start``.
    enable: Out(1)
        The ring may be read, and reads may begin.
    drain: Out(1)
        Answers to reads are discarded.
    clear: Out(1)
        For one cycle: everything starts afresh.
    quiet: Out(1)
        Every job taken is complete.
    completed: Out(32), busy, stopped: Out(1), error_code: Out(8)
        State for the host.
    interrupt: Out(1)
        For one cycle an event.
    """

    job: In(stream.Signature(JOB))
    doorbell: In(32)
    record_address: In(64)
    link_up: In(1)
    reset: In(1)
    reads_idle: In(1)
    inbound: Out(stream.Signature(MOVE))
    inbound_done: In(1)
    inbound_error: In(DMA_ERROR)
    outbound: Out(stream.Signature(MOVE))
    outbound_done: In(1)
    record_start: Out(1)
    record_done: In(1)
    record_to: Out(64)
    record_completed: Out(32)
    write_done: In(stream.Signature(HostMemory.WRITE_DONE))
    engine_start: Out(1)
    engine_start_address: Out(32)
    engine_busy: In(1)
    engine_error: In(1)
    enable: Out(1)
    drain: Out(1)
    clear: Out(1)
    quiet: Out(1)
    completed: Out(32)
    busy: Out(1)
    stopped: Out(1)
    error_code: Out(DMA_ERROR)
    interrupt: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.pending = pending = SyncFIFO(width=2, depth=_PENDING)
        resetting, running, recording = Signal(), Signal(), Signal()
        failed = Signal()  # an error has been recorded
        with m.If(self.reset):
            m.d.sync += resetting.eq(1)
        m.d.comb += [
            self.enable.eq(~failed & ~resetting),
            self.busy.eq(resetting | (~self.stopped & (failed | (self.doorbell != self.completed)))),
        ]
        self._build_completion(m, pending, running, recording, failed)
        self._build_execution(m, pending, running, recording=recording, failed=failed, resetting=resetting)
        with m.If(self.clear):
            m.d.sync += [failed.eq(0), resetting.eq(0), self.stopped.eq(0), self.error_code.eq(0), self.completed.eq(0)]
        return m

    def _fail(self, m: Module, failed: Signal, code: Value | int) -> None:
        """Record an error; the first one is kept."""
        m.d.sync += failed.eq(1)
        with m.If(~failed):
            m.d.sync += self.error_code.eq(code)

    def _build_completion(self, m: Module, pending: SyncFIFO, running: Signal, recording: Signal, failed: Signal) -> None:
        """The oldest executed descriptor: count it once it is complete."""
        answer = self.write_done.payload
        is_complete, is_good = Signal(), Signal()
        with m.Switch(pending.r_data):
            with m.Case(_Awaits.NOTHING):
                m.d.comb += [is_complete.eq(pending.r_rdy), is_good.eq(1)]
            with m.Case(_Awaits.WRITE):
                m.d.comb += [is_complete.eq(pending.r_rdy & self.write_done.valid), is_good.eq(~answer.error)]
            with m.Case(_Awaits.PROGRAM):
                m.d.comb += [is_complete.eq(pending.r_rdy & ~self.engine_busy), is_good.eq(~self.engine_error)]
                with m.If(is_complete):
                    m.d.sync += running.eq(0)
        m.d.comb += [
            pending.r_en.eq(is_complete),
            self.write_done.ready.eq(recording | (pending.r_rdy & (pending.r_data == _Awaits.WRITE))),
        ]
        with m.If(is_complete & is_good & ~failed):
            m.d.sync += self.completed.eq(self.completed + 1)
        with m.If(is_complete & ~is_good):
            self._fail(m, failed, Mux(pending.r_data == _Awaits.WRITE, answer.error_code, DmaError.PROGRAM_FAILED))

    def _build_execution(
        self, m: Module, pending: SyncFIFO, running: Signal, *, recording: Signal, failed: Signal, resetting: Signal
    ) -> None:
        job, answer = self.job.payload, self.write_done
        settled, may_move = Signal(), Signal()
        final, interrupts = Signal(), Signal()
        inbound_failure = Signal(DMA_ERROR)

        def complete(awaits: _Awaits) -> None:
            """The job is executed; its completion waits for ``awaits``."""
            m.d.comb += [self.job.ready.eq(1), pending.w_en.eq(1), pending.w_data.eq(awaits)]

        for move in (self.inbound.payload, self.outbound.payload):
            m.d.comb += [getattr(move, name).eq(getattr(job, name)) for name in MOVE.members]
        m.d.comb += [
            settled.eq(~pending.r_rdy),
            may_move.eq(pending.w_rdy & ((job.flags & DmaFlag.OVERLAP).any() | (~running & ~self.engine_busy))),
            interrupts.eq(final | (job.kind == DmaKind.INTERRUPT)),
            self.record_to.eq(Mux(interrupts, self.record_address, job.host_address)),
            # A record's count includes its own descriptor; the final record, after an error, belongs to no descriptor.
            self.record_completed.eq(self.completed + ~final),
            self.engine_start_address.eq(job.device_address),
        ]
        with m.FSM() as machine:
            m.d.comb += self.quiet.eq(machine.ongoing("TAKE") & ~self.job.valid & settled)
            with m.State("TAKE"):
                m.d.sync += final.eq(0)
                with m.If(failed | resetting):
                    m.next = "DRAIN"
                with m.Elif(self.job.valid & (job.error_code != DmaError.NONE)):
                    with m.If(settled):
                        self._fail(m, failed, job.error_code)
                with m.Elif(self.job.valid):
                    with m.Switch(job.kind):
                        with m.Case(DmaKind.TO_DEVICE):
                            m.d.comb += self.inbound.valid.eq(may_move)
                            with m.If(may_move & self.inbound.ready):
                                m.next = "INBOUND"
                        with m.Case(DmaKind.FROM_DEVICE):
                            m.d.comb += self.outbound.valid.eq(may_move)
                            with m.If(may_move & self.outbound.ready):
                                m.next = "OUTBOUND"
                        with m.Case(DmaKind.RUN):
                            with m.If(~running & ~self.engine_busy & pending.w_rdy):
                                m.d.comb += self.engine_start.eq(1)
                                m.d.sync += running.eq(1)
                                complete(_Awaits.PROGRAM)
                        with m.Case(DmaKind.FENCE):
                            with m.If(settled):
                                complete(_Awaits.NOTHING)
                        with m.Case(DmaKind.RECORD, DmaKind.INTERRUPT):
                            with m.If(settled):
                                m.next = "CHOOSE"
            with m.State("INBOUND"):
                with m.If(self.inbound_done & (self.inbound_error == DmaError.NONE)):
                    complete(_Awaits.NOTHING)
                    m.next = "TAKE"
                with m.Elif(self.inbound_done):
                    m.d.sync += inbound_failure.eq(self.inbound_error)
                    m.next = "BLAME"
            with m.State("BLAME"):  # a descriptor before this one may fail as well: its error goes first
                with m.If(settled):
                    self._fail(m, failed, inbound_failure)
                    m.next = "DRAIN"
            with m.State("OUTBOUND"):
                with m.If(self.outbound_done):
                    complete(_Awaits.WRITE)
                    m.next = "TAKE"
            with m.State("CHOOSE"):
                m.next = "RECORD"
                with m.If(interrupts & (self.record_address == 0)):
                    m.next = "NOTIFY"
            with m.State("RECORD"):
                m.d.comb += self.record_start.eq(1)
                with m.If(self.record_done):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += recording.eq(1)
                with m.If(answer.valid):
                    m.next = "NOTIFY"
                    with m.If(answer.payload.error & ~final):
                        self._fail(m, failed, answer.payload.error_code)
                        m.next = "DRAIN"
            with m.State("NOTIFY"):
                m.d.comb += self.interrupt.eq(interrupts)
                m.next = "STOPPED"
                with m.If(~final):
                    complete(_Awaits.NOTHING)
                    m.next = "TAKE"
            with m.State("DRAIN"):
                m.d.comb += self.drain.eq(1)
                with m.If(self.reads_idle & settled & ~self.engine_busy):
                    m.d.sync += final.eq(1)
                    m.next = "CLEAR"
                    with m.If(~resetting):
                        m.d.sync += self.stopped.eq(1)
                        m.next = "CHOOSE"
                        with m.If(~self.link_up | (self.error_code == DmaError.LINK_DOWN)):
                            m.next = "NOTIFY"
            with m.State("STOPPED"):
                with m.If(resetting):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.next = "TAKE"
