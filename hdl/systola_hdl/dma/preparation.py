"""Checks descriptors, and requests the host's data before the descriptors are executed."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.dma import LENGTH_BITS, DmaError, DmaFlag, DmaKind
from systola_firmware.spec.memory_map import REGION_SHIFT, Region, region_bytes
from systola_hdl.dma.layouts import JOB, MEMORIES
from systola_hdl.host.host_port import HostMemory

__all__ = ["Preparation"]


class Preparation(Component):
    """Pass descriptors on, each after a few cycles; one that must not be executed gets the error BAD_DESCRIPTOR.

    The read of a TO_DEVICE is requested before the descriptor is passed on. After a job with an error, nothing follows
    until reset.

    Members
    -------
    enable: In(1)
        Descriptors may be taken and reads may begin.
    quiet: In(1)
        Everything passed on is complete: FENCE is passed on only then.
    link_up: In(1)
        The host's memory can be reached. A TO_DEVICE that comes while it cannot gets the error LINK_DOWN.
    i, o: stream of JOB
        Descriptors as they were read, and as they may be executed.
    read: Out(stream of TRANSFER)
        The host's memory.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "quiet": In(1),
                "link_up": In(1),
                "i": In(stream.Signature(JOB)),
                "o": Out(stream.Signature(JOB)),
                "read": Out(stream.Signature(HostMemory.TRANSFER)),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        job = self.o.payload
        m.d.comb += [self.read.payload.host_address.eq(job.host_address), self.read.payload.length.eq(job.length)]
        bad = self._build_check(m, job)
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(self.enable)
                m.d.sync += job.eq(self.i.payload)
                with m.If(self.i.valid & self.enable):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "JUDGE"
            with m.State("JUDGE"):
                unreachable = (job.kind == DmaKind.TO_DEVICE) & ~self.link_up
                with m.If(job.error_code == DmaError.NONE):
                    m.d.sync += job.error_code.eq(
                        Mux(bad, DmaError.BAD_DESCRIPTOR, Mux(unreachable, DmaError.LINK_DOWN, DmaError.NONE))
                    )
                m.next = "ROUTE"
            with m.State("ROUTE"):
                with m.If((job.error_code != DmaError.NONE) | ((job.kind != DmaKind.TO_DEVICE) & (job.kind != DmaKind.FENCE))):
                    m.next = "PASS"
                with m.Elif(job.kind == DmaKind.FENCE):
                    with m.If(self.quiet):
                        m.next = "PASS"
                with m.Elif(self.enable):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "TAKE"
                    with m.If(job.error_code != DmaError.NONE):
                        m.next = "FAILED"
            with m.State("FAILED"):
                pass
        return m

    def _build_check(self, m: Module, job: data.View) -> Value:
        """Whether the descriptor must not be executed, a cycle after it was taken."""
        region, offset = job.device_address[REGION_SHIFT:], job.device_address[:REGION_SHIFT]
        end = Signal(REGION_SHIFT + 1)
        aligned, counted, is_transfer, flags_known, kind_known, record_aligned = (Signal() for _ in range(6))
        m.d.sync += [
            end.eq(offset + job.length),
            aligned.eq((offset[:2] == 0) & (job.length[:2] == 0)),
            counted.eq(job.length != 0),
            is_transfer.eq((job.kind == DmaKind.TO_DEVICE) | (job.kind == DmaKind.FROM_DEVICE)),
            flags_known.eq((job.flags & ~int(DmaFlag.OVERLAP)) == 0),
            kind_known.eq((job.kind >= min(DmaKind)) & (job.kind <= max(DmaKind))),
            record_aligned.eq((job.kind != DmaKind.RECORD) | (job.host_address[:3] == 0)),
        ]
        inside = Cat(
            (region == memory) & (end <= region_bytes(self._config, memory)) & (aligned | (memory is Region.ACTIVATION))
            for memory in MEMORIES
        ).any()
        return Mux(is_transfer, ~(inside & counted & flags_known), ~kind_known | (job.flags != 0) | ~record_aligned)


assert LENGTH_BITS < REGION_SHIFT  # so that the sum of offset and length does not wrap
