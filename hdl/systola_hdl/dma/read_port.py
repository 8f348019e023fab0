"""Shares the host's memory between two readers: of the ring, and of the data of jobs."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.host.host_port import HostMemory

__all__ = ["OUTSTANDING", "ReadPort"]

#: Reads requested and not yet answered, at most.
OUTSTANDING = 8


class ReadPort(Component):
    """Take requests, those of the ring first, and pass each answer to the reader that asked for it. A request takes a
    cycle longer than without this port.

    Members
    -------
    ring_read, job_read: In(stream of TRANSFER), ring_data, job_data: Out(stream of READ_DATA)
        The two readers.
    read, read_data:
        The host's memory.
    drain: In(1)
        Answers are discarded.
    idle: Out(1)
        Every request, also one still offered, is answered.
    """

    ring_read: In(stream.Signature(HostMemory.TRANSFER))
    job_read: In(stream.Signature(HostMemory.TRANSFER))
    ring_data: Out(stream.Signature(HostMemory.READ_DATA))
    job_data: Out(stream.Signature(HostMemory.READ_DATA))
    read: Out(stream.Signature(HostMemory.TRANSFER))
    read_data: In(stream.Signature(HostMemory.READ_DATA))
    drain: In(1)
    idle: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.owners = owners = SyncFIFO(width=1, depth=OUTSTANDING)
        is_job, free = Signal(), Signal()
        m.d.comb += [
            free.eq(~self.read.valid & owners.w_rdy),
            self.ring_read.ready.eq(free),
            self.job_read.ready.eq(free & ~self.ring_read.valid),
            owners.w_en.eq(self.read.valid & self.read.ready),
            owners.w_data.eq(is_job),
            self.idle.eq(~(self.ring_read.valid | self.job_read.valid | self.read.valid | owners.r_rdy)),
        ]
        with m.If(self.read.ready):
            m.d.sync += self.read.valid.eq(0)
        with m.If(free):
            m.d.sync += [
                self.read.valid.eq(self.ring_read.valid | self.job_read.valid),
                self.read.payload.eq(Mux(self.ring_read.valid, self.ring_read.payload, self.job_read.payload)),
                is_job.eq(~self.ring_read.valid),
            ]
        answer, taken = self.read_data, Signal()
        m.d.comb += [
            self.ring_data.payload.eq(answer.payload),
            self.job_data.payload.eq(answer.payload),
            self.ring_data.valid.eq(answer.valid & owners.r_rdy & ~owners.r_data & ~self.drain),
            self.job_data.valid.eq(answer.valid & owners.r_rdy & owners.r_data & ~self.drain),
            answer.ready.eq(owners.r_rdy & (self.drain | Mux(owners.r_data, self.job_data.ready, self.ring_data.ready))),
            taken.eq(answer.valid & answer.ready),
            owners.r_en.eq(taken & answer.payload.last),
        ]
        return m
