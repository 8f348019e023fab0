"""Fetches descriptors from the ring in the host's memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from systola_firmware.spec.config import DMA_BEAT_BYTES
from systola_firmware.spec.dma import DESCRIPTOR_BYTES, DmaError
from systola_hdl.dma.layouts import DESCRIPTOR, JOB
from systola_hdl.host.host_port import HostMemory

__all__ = ["BATCH", "DEPTH", "RingReader"]

#: Most descriptors of one read.
BATCH = 4
#: Descriptors that are held: one batch is executed while the next comes.
DEPTH = 2 * BATCH

_BEATS = DESCRIPTOR_BYTES // DMA_BEAT_BYTES


class RingReader(Component):
    """Read what the doorbell announces, up to :data:`BATCH` descriptors at once, and present them in order.

    A batch ends at the ring's end. An invalid ring, a link that is down and a failed read are presented as a job with
    that error, after all descriptors before it; nothing follows until reset.

    Members
    -------
    enable: In(1)
        Reads may begin.
    link_up: In(1)
        The host's memory can be reached.
    doorbell, completed, ring_size: In(32), ring_address, record_address: In(64)
        The registers.
    read, read_data:
        The host's memory; ``read_data.ready`` is always high.
    o: Out(stream of JOB)
        Descriptors.
    """

    enable: In(1)
    link_up: In(1)
    doorbell: In(32)
    completed: In(32)
    ring_size: In(32)
    ring_address: In(64)
    record_address: In(64)
    read: Out(stream.Signature(HostMemory.TRANSFER))
    read_data: In(stream.Signature(HostMemory.READ_DATA))
    o: Out(stream.Signature(JOB))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = SyncFIFO(width=JOB.size, depth=DEPTH)
        outstanding = Signal(range(DEPTH + 1))
        failed = Signal()  # a job with an error has been presented
        m.d.comb += [self.o.valid.eq(queue.r_rdy), self.o.payload.eq(queue.r_data), queue.r_en.eq(self.o.ready)]
        job = data.View(JOB, queue.w_data)
        arrives = self._build_answer(m, queue, job, failed)
        requests = self._build_request(m, queue, job, outstanding, failed)
        m.d.sync += outstanding.eq(outstanding + requests - arrives)
        return m

    def _build_request(self, m: Module, queue: SyncFIFO, job: data.View, outstanding: Signal, failed: Signal) -> Value:
        """Ask for the next batch. Returns how many descriptors were asked for in this cycle."""
        fetched, ahead, left = Signal(32), Signal(32), Signal(32)
        slot, to_end, bad, room = Signal(32), Signal(32), Signal(), Signal()  # `slot`: index in the ring of the next batch
        count, error = Signal(range(BATCH + 1)), Signal.like(job.error_code)
        asked = Signal.like(count)
        size, mask = self.ring_size, Signal(32)
        m.d.sync += [
            ahead.eq(self.doorbell - self.completed),
            left.eq(self.doorbell - fetched),
            mask.eq(size - 1),
            room.eq(outstanding + queue.level <= DEPTH - BATCH),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.next = "LOOK"  # wait a cycle until `left` and `room` take account of the last request
            with m.State("LOOK"):
                m.d.sync += slot.eq(fetched & mask)
                with m.If((left != 0) & room & self.enable & ~failed):
                    m.next = "CHECK"
            with m.State("CHECK"):
                aligned = (self.ring_address[: exact_log2(DESCRIPTOR_BYTES)] == 0) & (self.record_address[:3] == 0)
                m.d.sync += [
                    bad.eq((size == 0) | ((size & mask) != 0) | (ahead > size) | ~aligned),
                    to_end.eq(size - slot),
                    self.read.payload.host_address.eq(self.ring_address + (slot << exact_log2(DESCRIPTOR_BYTES))),
                ]
                m.next = "COUNT"
            with m.State("COUNT"):
                available = Mux(left < BATCH, left[: len(count)], BATCH)
                m.d.sync += [
                    count.eq(Mux(to_end < available, to_end[: len(count)], available)),
                    error.eq(Mux(bad, DmaError.BAD_RING, DmaError.LINK_DOWN)),
                ]
                with m.If(bad | ~self.link_up):
                    m.next = "FAIL"
                with m.Elif(self.enable):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [self.read.valid.eq(1), self.read.payload.length.eq(count << exact_log2(DESCRIPTOR_BYTES))]
                with m.If(self.read.ready):
                    m.d.comb += asked.eq(count)
                    m.d.sync += fetched.eq(fetched + count)
                    m.next = "IDLE"
            with m.State("FAIL"):
                with m.If((outstanding == 0) & ~failed & queue.w_rdy):
                    m.d.comb += [queue.w_en.eq(1), job.error_code.eq(error)]
                    m.d.sync += failed.eq(1)
        return asked

    def _build_answer(self, m: Module, queue: SyncFIFO, job: data.View, failed: Signal) -> Value:
        """Assemble descriptors from beats. Returns whether a descriptor is complete in this cycle."""
        beat, kept = Signal(range(_BEATS)), Signal(DESCRIPTOR.size - 8 * DMA_BEAT_BYTES)
        arrives = Signal()
        came = self.read_data.payload
        descriptor = data.View(DESCRIPTOR, Cat(kept, came.data))
        m.d.comb += self.read_data.ready.eq(1)
        with m.If(self.read_data.valid & ~failed):
            m.d.comb += [
                job.kind.eq(descriptor.kind),
                job.flags.eq(descriptor.flags),
                job.length.eq(descriptor.length),
                job.device_address.eq(descriptor.device_address),
                job.host_address.eq(Cat(descriptor.host_low, descriptor.host_high)),
                job.error_code.eq(came.error_code),
            ]
            m.d.sync += [beat.eq(beat + 1), kept.eq(Cat(kept, came.data)[len(came.data) :])]
            m.d.comb += [arrives.eq((beat == _BEATS - 1) & ~came.error), queue.w_en.eq((beat == _BEATS - 1) | came.error)]
            m.d.sync += failed.eq(came.error)
        return arrives
