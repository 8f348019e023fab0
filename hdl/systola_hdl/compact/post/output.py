"""Output of the compact post-processor: requantizer, destination addresses, and bytes gathered into words of the
memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, EnableInserter, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.compact.interfaces import ActivationWrite
from systola_hdl.compact.post.layouts import FACTOR, FIELDS, VALUE
from systola_hdl.compact.post.requantizer import Requantizer

__all__ = ["Output"]


class Output(Component):
    """Requantizes values one after the other and writes the results to consecutive bytes, a *row* at a time.

    The first value of a row takes its address from a queue; the others follow it. A word is written when its last byte
    is there, when a row begins, or on ``flush``; so a row that begins at a word's first byte costs one access for four
    outputs.

    The queue holds :attr:`capacity` addresses and does not look whether there is room: whoever pushes knows how many
    values are under way.

    For a fill, one value's result is kept instead (``keep``) and then written by ``fills``, up to four bytes a cycle.

    Attributes
    ----------
    fields:
        Of the instruction: :data:`~systola_hdl.compact.post.layouts.FIELDS`. With ``output.wide``, a value makes two
        bytes, low byte first. Every row of a VECTOR is one byte, so nothing waits for another one.
    rows:
        Address of a row, inside the memory, at least two cycles before its first value's transfer.
    i, begins, factor:
        Values (:data:`~systola_hdl.compact.post.layouts.VALUE`) and their factors; see :class:`Requantizer`.
    keep, kept:
        The next result is not written but kept; it has been since ``keep`` rose.
    fills:
        Addresses at which the kept byte is to be written, or, with ``fields.by_words``, to the whole word there.
    flush:
        Write what is gathered when nothing is under way, which must be so of values outside.
    outside:
        The next byte lies outside the memory; everything before it has been handed to the memory. Stays until reset.
    idle:
        No value is under way, and nothing is gathered.
    write:
        Port of the activation memory.
    """

    #: Addresses that the queue holds.
    capacity = 16

    def __init__(self, config: Config) -> None:
        self.config = config
        address_bits = ceil_log2(config.activation_bytes)
        super().__init__(
            {
                "fields": In(FIELDS),
                "rows": In(stream.Signature(address_bits, always_ready=True)),
                "i": In(stream.Signature(VALUE)),
                "begins": Out(1),
                "factor": In(FACTOR),
                "keep": In(1),
                "kept": Out(1),
                "fills": In(stream.Signature(address_bits)),
                "flush": In(1),
                "outside": Out(1),
                "idle": Out(1),
                "write": Out(ActivationWrite(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        address_bits = len(self.rows.payload)
        wide, fill = self.fields.output.wide, self.fills.payload
        flows = Signal()  # the requantizer may go on
        requantizer = Requantizer()
        m.submodules.requantizer = EnableInserter(flows)(requantizer)
        result = requantizer.o
        m.d.comb += [
            requantizer.factor.eq(self.factor),
            requantizer.output.eq(self.fields.output),
            requantizer.i.valid.eq(self.i.valid),
            requantizer.i.payload.eq(self.i.payload.value),
            self.i.ready.eq(requantizer.i.ready & flows),
            self.begins.eq(requantizer.begins & flows),
        ]
        first = Signal(Requantizer.latency)  # beside the requantizer's pipeline
        with m.If(flows):
            m.d.sync += first.eq(Cat(self.i.payload.first, first))
        row_begins = Signal()

        m.submodules.queue = queue = Memory(shape=address_bits, depth=self.capacity, init=[])
        enter, leave = queue.write_port(), queue.read_port()
        m.d.comb += [enter.en.eq(self.rows.valid), enter.data.eq(self.rows.payload), leave.en.eq(1)]
        m.d.sync += enter.addr.eq(enter.addr + self.rows.valid)

        # The byte to gather, and its address: the next one after the last byte's.
        second = Signal()  # byte of a wide result
        last_address = Signal(address_bits)
        address = Signal(address_bits)
        # The last byte is the memory's last, so the next is outside: a register, as the port's arbitration hangs on it.
        at_end, beyond = Signal(), Signal()
        gathered = Signal()  # there is something in the word
        complete = Signal()  # and nothing more fits
        taken = Signal()
        m.d.comb += [
            row_begins.eq(first[-1] & ~second),
            address.eq(Mux(row_begins, leave.data, last_address + 1)),
            beyond.eq(at_end & ~row_begins),
            self.outside.eq(result.valid & beyond & ~gathered & ~self.keep),
            taken.eq(result.valid & ~beyond & ~(gathered & (complete | row_begins)) & ~self.keep),
            flows.eq(~result.valid | self.keep | (taken & (~wide | second))),
        ]
        byte = Mux(second, result.payload[8:], result.payload[:8])
        lanes = Signal(32)
        mask = Signal(4)
        written = Signal()
        m.d.comb += [
            gathered.eq(mask.any()),
            self.write.valid.eq(
                self.fills.valid
                | (gathered & (complete | (self.flush & ~requantizer.busy) | (result.valid & (row_begins | beyond))))
            ),
            self.write.address.eq(Mux(self.keep, fill, last_address) >> 2),
            self.write.data.eq(lanes),
            written.eq(self.write.valid & self.write.ready),
            self.fills.ready.eq(self.write.ready),
        ]
        with m.If(self.keep):
            for lane in range(4):
                m.d.comb += self.write.mask[lane].eq(self.fields.by_words | (fill[:2] == lane))
        with m.Else():
            m.d.comb += self.write.mask.eq(mask)
        with m.If(written):
            m.d.sync += [mask.eq(0), complete.eq(0)]
        with m.If(taken):
            m.d.sync += [last_address.eq(address), at_end.eq(address.all())]
            m.d.sync += [complete.eq(self.fields.is_vector | (address[:2] == 3)), second.eq(wide & ~second)]
            with m.If(row_begins):
                m.d.sync += leave.addr.eq(leave.addr + 1)
        for lane in range(4):
            with m.If((taken & (address[:2] == lane)) | (result.valid & self.keep)):
                m.d.sync += lanes.word_select(lane, 8).eq(byte)
            with m.If(taken & (address[:2] == lane)):
                m.d.sync += mask[lane].eq(1)
        m.d.sync += self.kept.eq(self.keep & (self.kept | result.valid))
        m.d.comb += self.idle.eq(~(requantizer.busy | gathered))
        return m
