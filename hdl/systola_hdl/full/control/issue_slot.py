"""One instruction held for a unit until the unit takes it, and the record of those it is executing."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import MAX_PAYLOAD_WORDS, WORD_BITS, Unit
from systola_hdl.common.layouts import ERROR_CODE, HEADER
from systola_hdl.full.interfaces import UnitControl
from systola_hdl.host.trace import ADDRESS_BITS

__all__ = ["IN_FLIGHT", "IssueSlot"]

#: Instructions that a unit has taken and not completed, at most.
IN_FLIGHT = 2

_RECORD = data.StructLayout({"signal": len(Unit), "mark": 1, "address": ADDRESS_BITS})


class IssueSlot(Component):
    """Collect an instruction's words, offer it when it may start, and remember what to do when it completes.

    Members
    -------
    free: Out(1)
        An instruction may be opened.
    open: In(1), header: In(HEADER), length: In, address: In(17)
        Open one with ``length`` payload words.
    push: In(1), word: In(32)
        The next payload word.
    pending: Out(1)
        A complete instruction waits to be taken.
    wait: Out(4), available: In(1)
        The tokens it waits for, and whether all are available; once available, they stay so until ``taken``.
    mark_room: In(1)
        The trace can take two marks more than are outstanding now (one for each of the units deciding in one cycle).
    taken: Out(1)
        The unit takes it in this cycle, and its tokens.
    finished: Out(1), finished_signal: Out(4), finished_mark: Out(1)
        The oldest instruction completes in this cycle.
    oldest: Out(17)
        Address of the oldest instruction not completed, taken or not.
    active: Out(1)
        A complete instruction is held, or one is executing.
    starved: Out(1)
        The unit has nothing else to do and would take the instruction, but its tokens are not there.
    error: Out(1), error_code: Out(8)
        The unit's error, of the oldest instruction.
    control: Out(UnitControl(unit))
        The unit. What it reports is registered, and takes effect :attr:`latency` cycles later. The instruction is
        offered a cycle after its words, its tokens and room for its mark are all available.
    """

    latency = 1

    def __init__(self, unit: Unit) -> None:
        self._words = MAX_PAYLOAD_WORDS[unit]
        super().__init__(
            {
                "free": Out(1),
                "open": In(1),
                "header": In(HEADER),
                "length": In(range(self._words + 1)),
                "address": In(ADDRESS_BITS),
                "push": In(1),
                "word": In(WORD_BITS),
                "pending": Out(1),
                "wait": Out(len(Unit)),
                "available": In(1),
                "mark_room": In(1),
                "taken": Out(1),
                "finished": Out(1),
                "finished_signal": Out(len(Unit)),
                "finished_mark": Out(1),
                "oldest": Out(ADDRESS_BITS),
                "active": Out(1),
                "starved": Out(1),
                "error": Out(1),
                "error_code": Out(ERROR_CODE),
                "control": Out(UnitControl(unit)),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        instruction = self.control.instruction
        done, busy = Signal(), Signal()
        m.d.sync += [
            done.eq(self.control.done),
            busy.eq(self.control.busy),
            self.error.eq(self.control.error),
            self.error_code.eq(self.control.error_code),
        ]
        push, word = Signal(), Signal(WORD_BITS, reset_less=True)
        m.d.sync += [push.eq(self.push), word.eq(self.word)]
        # One-hot over the payload words: the one that the next push fills, and the one that the registered push fills.
        turn, takes = Signal(self._words), Signal(self._words)
        m.d.sync += takes.eq(Mux(self.push, turn, 0))
        held, missing = Signal(), Signal(range(self._words + 1))
        record, granted = Signal(_RECORD), Signal()
        offered = Signal()
        opcode, words = Signal(8), Signal(data.ArrayLayout(WORD_BITS, self._words), reset_less=True)
        flight, count = Signal(data.ArrayLayout(_RECORD, IN_FLIGHT)), Signal(range(IN_FLIGHT + 1))
        allowed = Signal()

        m.d.comb += [
            self.free.eq(~held),
            self.pending.eq(held & (missing == 0)),
            allowed.eq(self.pending & (count != IN_FLIGHT)),
            instruction.valid.eq(offered),
            instruction.payload.opcode.eq(opcode),
            instruction.payload.words.eq(words),
            self.taken.eq(instruction.valid & instruction.ready),
            self.starved.eq(allowed & instruction.ready & ~self.available & ~self.control.busy),
        ]
        # All that the offer depends on is known the cycle before the unit may take it, and an offer is never withdrawn.
        m.d.sync += offered.eq(allowed & self.available & (~record.mark | granted) & ~self.taken)
        with m.If(self.open):
            m.d.sync += [held.eq(1), missing.eq(self.length), turn.eq(1), granted.eq(0)]
            m.d.sync += [opcode.eq(self.header.opcode), self.wait.eq(self.header.wait)]
            m.d.sync += [record.signal.eq(self.header.signal), record.mark.eq(self.header.mark), record.address.eq(self.address)]
        with m.If(push):
            m.d.sync += missing.eq(missing - 1)
        with m.If(self.push):
            m.d.sync += turn.eq(turn << 1)
        for index in range(self._words):
            with m.If(takes[index]):
                m.d.sync += words[index].eq(word)
        # Room for the mark, once there, is kept for this instruction, so that `valid` does not fall before `ready`.
        with m.If(held & self.mark_room):
            m.d.sync += granted.eq(1)

        m.d.comb += [
            self.finished.eq(done & (count != 0)),
            self.finished_signal.eq(Mux(self.finished, flight[0].signal, 0)),
            self.finished_mark.eq(self.finished & flight[0].mark),
            self.oldest.eq(Mux(count != 0, flight[0].address, record.address)),
            self.active.eq(self.pending | (count != 0) | busy),
        ]
        # The taken instruction's index among those in flight.
        place = Signal(range(IN_FLIGHT))
        m.d.comb += place.eq(count - self.finished)
        with m.If(self.finished):
            m.d.sync += flight[0].eq(flight[1])
        with m.If(self.taken):
            m.d.sync += [held.eq(0), flight[place].eq(record)]
        m.d.sync += count.eq(count + self.taken - self.finished)
        return m
