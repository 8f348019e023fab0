"""Writes status records to the host's memory."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import DMA_BEAT_BYTES
from systola_firmware.spec.dma import RECORD_BYTES, RECORD_WORDS
from systola_hdl.host.host_port import HostMemory

__all__ = ["RECORD", "RecordWriter"]

#: A status record as it lies in the host's memory.
RECORD = data.StructLayout(dict.fromkeys(RECORD_WORDS, 32))

_BEATS = RECORD_BYTES // DMA_BEAT_BYTES


class RecordWriter(Component):
    """Write one record: ``start`` is held high until ``done``. A beat takes two cycles.

    Members
    -------
    start: In(1), host_address: In(64), record: In(RECORD)
        What to write, and where; steady until ``done``.
    done: Out(1)
        For one cycle: the link has taken the last beat.
    write, write_data:
        The host's memory.
    """

    start: In(1)
    host_address: In(64)
    record: In(RECORD)
    done: Out(1)
    write: Out(stream.Signature(HostMemory.TRANSFER))
    write_data: Out(stream.Signature(HostMemory.WRITE_DATA))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        beat = Signal(range(_BEATS))
        m.d.comb += [self.write.payload.host_address.eq(self.host_address), self.write.payload.length.eq(RECORD_BYTES)]
        m.d.sync += self.write_data.payload.data.eq(self.record.as_value().word_select(beat, 8 * DMA_BEAT_BYTES))
        with m.FSM():
            with m.State("REQUEST"):
                m.d.comb += self.write.valid.eq(self.start)
                with m.If(self.start & self.write.ready):
                    m.next = "CHOOSE"
            with m.State("CHOOSE"):
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.write_data.valid.eq(1)
                with m.If(self.write_data.ready):
                    m.d.sync += beat.eq(beat + 1)
                    m.next = "CHOOSE"
                    with m.If(beat == _BEATS - 1):
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "REQUEST"
        return m
