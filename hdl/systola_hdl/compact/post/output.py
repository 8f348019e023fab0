"""Output of the compact post-processor: requantizer, destination addresses, and bytes gathered into words of the
memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, EnableInserter, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.compact.interfaces import ActivationWrite
from systola_hdl.compact.post.requantizer import EXPONENT, Requantizer

__all__ = ["Output"]


class Output(Component):
    """Requantizes values one after the other and writes the results to consecutive bytes, a *row* at a time.

    The first value of a row takes its address from a queue; the others follow it. A word is written when its last byte
    is there, when a row begins, or on ``flush``; so a row that begins at a word's first byte costs one access for four
    outputs.

    The queue holds :attr:`rows` addresses and does not look whether there is room: whoever pushes knows how many values
    are under way.

    For a fill, one value's result is kept instead (``keep``) and then written by ``fill``, up to four bytes a cycle.

    Attributes
    ----------
    row_valid, row:
        Address of a row, inside the memory, at least two cycles before its first value's transfer.
    i_valid, i_ready, i_value, i_first, begins:
        A value, the first of its row or not; see :class:`Requantizer`.
    multiplier, exponent, is_double, is_single, zero_point, minimum, maximum, wide:
        To the requantizer. With ``wide``, a value makes two bytes, low byte first.
    single:
        Every row is one byte, so it need not be waited for another. Constant.
    keep, kept:
        The next result is not written but kept; it has been since ``keep`` rose.
    fill_valid, fill_ready, fill, fill_word:
        Write the kept byte at address ``fill``, or, if ``fill_word``, to the whole word there.
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
    rows = 16

    def __init__(self, config: Config) -> None:
        self.config = config
        address_bits = ceil_log2(config.activation_bytes)
        super().__init__(
            {
                "row_valid": In(1),
                "row": In(address_bits),
                "i_valid": In(1),
                "i_ready": Out(1),
                "i_value": In(signed(32)),
                "i_first": In(1),
                "begins": Out(1),
                "multiplier": In(31),
                "exponent": In(EXPONENT),
                "is_double": In(1),
                "is_single": In(1),
                "zero_point": In(signed(8)),
                "minimum": In(signed(8)),
                "maximum": In(signed(8)),
                "wide": In(1),
                "single": In(1),
                "keep": In(1),
                "kept": Out(1),
                "fill_valid": In(1),
                "fill_ready": Out(1),
                "fill": In(address_bits),
                "fill_word": In(1),
                "flush": In(1),
                "outside": Out(1),
                "idle": Out(1),
                "write": Out(ActivationWrite(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        address_bits = len(self.row)
        flows = Signal()  # the requantizer may go on
        requantizer = Requantizer()
        m.submodules.requantizer = EnableInserter(flows)(requantizer)
        for name in ("multiplier", "exponent", "is_double", "is_single", "zero_point", "minimum", "maximum", "wide"):
            m.d.comb += getattr(requantizer, name).eq(getattr(self, name))
        m.d.comb += [
            requantizer.i_valid.eq(self.i_valid),
            requantizer.i_value.eq(self.i_value),
            self.i_ready.eq(requantizer.i_ready & flows),
            self.begins.eq(requantizer.begins & flows),
        ]
        first = Signal(Requantizer.latency)  # beside the requantizer's pipeline
        with m.If(flows):
            m.d.sync += first.eq(Cat(self.i_first, first))
        row_begins = Signal()

        m.submodules.queue = queue = Memory(shape=address_bits, depth=self.rows, init=[])
        enter, leave = queue.write_port(), queue.read_port()
        m.d.comb += [enter.en.eq(self.row_valid), enter.data.eq(self.row), leave.en.eq(1)]
        m.d.sync += enter.addr.eq(enter.addr + self.row_valid)

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
            self.outside.eq(requantizer.o_valid & beyond & ~gathered & ~self.keep),
            taken.eq(requantizer.o_valid & ~beyond & ~(gathered & (complete | row_begins)) & ~self.keep),
            flows.eq(~requantizer.o_valid | self.keep | (taken & (~self.wide | second))),
        ]
        byte = Mux(second, requantizer.o[8:], requantizer.o[:8])
        lanes = Signal(32)
        mask = Signal(4)
        written = Signal()
        m.d.comb += [
            gathered.eq(mask.any()),
            self.write.valid.eq(
                self.fill_valid
                | (gathered & (complete | (self.flush & ~requantizer.busy) | (requantizer.o_valid & (row_begins | beyond))))
            ),
            self.write.address.eq(Mux(self.keep, self.fill, last_address) >> 2),
            self.write.data.eq(lanes),
            written.eq(self.write.valid & self.write.ready),
            self.fill_ready.eq(self.write.ready),
        ]
        with m.If(self.keep):
            for lane in range(4):
                m.d.comb += self.write.mask[lane].eq(self.fill_word | (self.fill[:2] == lane))
        with m.Else():
            m.d.comb += self.write.mask.eq(mask)
        with m.If(written):
            m.d.sync += [mask.eq(0), complete.eq(0)]
        with m.If(taken):
            m.d.sync += [last_address.eq(address), at_end.eq(address.all())]
            m.d.sync += [complete.eq(self.single | (address[:2] == 3)), second.eq(self.wide & ~second)]
            with m.If(row_begins):
                m.d.sync += leave.addr.eq(leave.addr + 1)
        for lane in range(4):
            with m.If((taken & (address[:2] == lane)) | (requantizer.o_valid & self.keep)):
                m.d.sync += lanes.word_select(lane, 8).eq(byte)
            with m.If(taken & (address[:2] == lane)):
                m.d.sync += mask[lane].eq(1)
        m.d.sync += self.kept.eq(self.keep & (self.kept | requantizer.o_valid))
        m.d.comb += self.idle.eq(~(requantizer.busy | gathered))
        return m
