"""Fetch, decode and issue: programs run in order within a unit, units overlap and synchronise by tokens."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, MAX_PAYLOAD_WORDS, WATCHDOG_CYCLES, ErrorCode, Unit
from systola_hdl.common.layouts import ERROR_CODE, HEADER
from systola_hdl.full.control.fetcher import Fetcher
from systola_hdl.full.control.issue_slot import IN_FLIGHT, IssueSlot
from systola_hdl.full.control.tokens import EXECUTING, Tokens
from systola_hdl.full.interfaces import UnitControl
from systola_hdl.host.trace import ADDRESS_BITS, MARK_LAYOUT, QUEUE_DEPTH

__all__ = ["RESET_CYCLES", "Sequencer"]

#: Cycles for which the units are held in reset after an error: longer than any memory takes to answer a read that was
#: in flight.
RESET_CYCLES = 32

#: Level of the trace's queue up to which an instruction with a mark may start: the remaining entries hold the marks of
#: all instructions that execute or are about to.
_MARK_LEVEL = QUEUE_DEPTH - len(EXECUTING) * (IN_FLIGHT + 1)


class Sequencer(Component):
    """Run a program from ``start`` to END or an error.

    Words are fetched ahead, and a header takes a cycle more than another word. An instruction is collected in the
    :class:`~systola_hdl.full.control.issue_slot.IssueSlot` of its unit and offered once it is complete and its tokens
    are there; fetching stops at an instruction whose issue slot is occupied. An unknown opcode or the end of the store
    is reported, as END is, after everything before has completed. A unit's error is reported at its oldest instruction
    that is not complete. TIMEOUT is reported at the oldest instruction of the first unit that has one, ABORTED at the
    instruction being fetched. A program stops two cycles after the event that stops it.

    Members
    -------
    start: In(1), start_address: In(32)
        Run from this word; ignored while ``busy``.
    abort: In(1)
        Stop with ABORTED; ignored unless a program runs.
    fetch_enable, fetch_address, fetch_data:
        The program store.
    matmul, post: Out(UnitControl)
        The units.
    progress: In(1)
        A unit makes progress: restarts the watchdog, which otherwise stops the program after ``watchdog_cycles``.
    mark_level: In, trace_idle: In(1)
        State of the trace.
    marks: Out(MARK_LAYOUT)
        Marked instructions that complete in this cycle.
    clear: Out(1)
        A program starts in the next cycle: zero counters and marks.
    counting: Out(1)
        The program runs. This is a register apart from the state machine's, because blocks all over the chip read it.
    busy, done, error: Out(1), error_code: Out(8), error_address: Out(17)
        State for the host.
    unit_reset: Out(1)
        Reset of all units, held for :data:`RESET_CYCLES` cycles after an error.
    wait_token: Out(1)
        The MATMUL unit is idle and could start its instruction, but for its tokens.
    """

    def __init__(self, config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> None:
        if watchdog_cycles < 1:
            raise ValueError(f"watchdog_cycles must be at least 1, not {watchdog_cycles}")
        self._config = config
        self._watchdog_cycles = watchdog_cycles
        super().__init__(
            {
                "start": In(1),
                "start_address": In(32),
                "abort": In(1),
                "fetch_enable": Out(1),
                "fetch_address": Out(ceil_log2(config.program_words)),
                "fetch_data": In(32),
                **{unit.name.lower(): Out(UnitControl(unit)) for unit in EXECUTING},
                "progress": In(1),
                "mark_level": In(range(QUEUE_DEPTH + 1)),
                "trace_idle": In(1),
                "marks": Out(MARK_LAYOUT),
                "clear": Out(1),
                "counting": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(1),
                "error_code": Out(ERROR_CODE),
                "error_address": Out(ADDRESS_BITS),
                "unit_reset": Out(1),
                "wait_token": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self._config)
        restart = Signal()
        # A cycle after `clear`, but before the first word comes.
        m.d.sync += restart.eq(self.clear | self.unit_reset)
        tokens = Tokens()
        m.submodules.tokens = ResetInserter(restart)(tokens)
        slots = {unit: IssueSlot(unit) for unit in EXECUTING}
        for unit, slot in slots.items():
            m.submodules[f"slot_{unit.name.lower()}"] = ResetInserter(restart)(slot)
            connect(m, slot.control, flipped(getattr(self, unit.name.lower())))
            self._connect_tokens(m, unit, slot, tokens)
        m.d.comb += [
            fetcher.start.eq(self.clear),
            fetcher.start_address.eq(self.start_address),
            fetcher.run.eq(self.counting),
            fetcher.fetch_data.eq(self.fetch_data),
            self.fetch_enable.eq(fetcher.fetch_enable),
            self.fetch_address.eq(fetcher.fetch_address),
            self.wait_token.eq(slots[Unit.MATMUL].starved),
        ]
        failure, happens = self._build_failure(m, fetcher, slots, tokens)
        self._build_control(m, fetcher, slots, tokens, failure, happens=happens)
        return m

    def _connect_tokens(self, m: Module, unit: Unit, slot: IssueSlot, tokens: Tokens) -> None:
        name = unit.name.lower()
        m.d.comb += [
            getattr(tokens, f"give_{name}").eq(slot.finished_signal),
            getattr(tokens, f"wait_{name}").eq(slot.wait),
            getattr(tokens, f"take_{name}").eq(slot.taken),
            slot.available.eq(getattr(tokens, f"available_{name}")),
            slot.mark_room.eq(self.mark_level <= _MARK_LEVEL),
            self.marks[unit].valid.eq(slot.finished_mark),
            self.marks[unit].address.eq(slot.oldest),
        ]

    def _build_failure(self, m: Module, fetcher: Fetcher, slots: dict[Unit, IssueSlot], tokens: Tokens) -> tuple[data.View, Signal]:
        """The event, other than the program's own words, that stopped the running program two cycles before: ``code``
        (NONE: there was none) and ``address``.

        And whether there was such an event in the cycle before.
        """
        happens = Signal()
        failure = Signal(data.StructLayout({"code": ERROR_CODE, "address": ADDRESS_BITS}))
        header_at = self.error_address  # while a program runs: of the instruction being fetched
        watchdog, moves, expired = Signal(range(self._watchdog_cycles + 1)), Signal(), Signal()
        m.d.sync += moves.eq(
            Cat(self.progress, fetcher.consume, *(Cat(slot.taken, slot.finished) for slot in slots.values())).any() | ~self.counting
        )
        m.d.sync += [watchdog.eq(watchdog + 1), expired.eq(watchdog == self._watchdog_cycles - 1)]
        with m.If(moves):
            m.d.sync += [watchdog.eq(0), expired.eq(0)]

        # Cycle 1: events and their addresses in registers. Cycle 2: one of them; the last assignment that applies wins.
        is_expired, is_aborted = Signal(), Signal()
        fetched_at = Signal(ADDRESS_BITS)
        m.d.sync += [is_expired.eq(expired & self.counting), is_aborted.eq(self.abort & self.counting), fetched_at.eq(header_at)]
        oldest, is_active, overflows, errors, codes = {}, {}, {}, {}, {}
        for unit, slot in slots.items():
            name = unit.name.lower()
            oldest[unit] = Signal(ADDRESS_BITS, name=f"oldest_{name}")
            is_active[unit] = Signal(name=f"is_active_{name}")
            overflows[unit] = Signal(name=f"overflows_{name}")
            errors[unit] = Signal(name=f"errors_{name}")
            codes[unit] = Signal(ERROR_CODE, name=f"code_{name}")
            m.d.sync += [
                oldest[unit].eq(slot.oldest),
                is_active[unit].eq(slot.active),
                overflows[unit].eq(getattr(tokens, f"overflow_{name}") & self.counting),
                errors[unit].eq(slot.error & self.counting),
                codes[unit].eq(slot.error_code),
            ]
        m.d.sync += [failure.code.eq(ErrorCode.NONE), failure.address.eq(fetched_at)]
        with m.If(is_expired):
            m.d.sync += failure.code.eq(ErrorCode.TIMEOUT)
            for unit in reversed(slots):
                with m.If(is_active[unit]):
                    m.d.sync += failure.address.eq(oldest[unit])
        with m.If(is_aborted):
            m.d.sync += [failure.code.eq(ErrorCode.ABORTED), failure.address.eq(fetched_at)]
        for unit in reversed(slots):
            with m.If(overflows[unit]):
                m.d.sync += [failure.code.eq(ErrorCode.TOKEN_OVERFLOW), failure.address.eq(oldest[unit])]
        for unit in reversed(slots):
            with m.If(errors[unit]):
                m.d.sync += [failure.code.eq(codes[unit]), failure.address.eq(oldest[unit])]
        m.d.comb += happens.eq(Cat(is_expired, is_aborted, *overflows.values(), *errors.values()).any())
        with m.If(~self.counting):
            m.d.sync += failure.code.eq(ErrorCode.NONE)
        return failure, happens

    def _build_control(
        self, m: Module, fetcher: Fetcher, slots: dict[Unit, IssueSlot], tokens: Tokens, failure: data.View, *, happens: Signal
    ) -> None:
        header = data.View(HEADER, fetcher.word)
        collecting, missing = Signal(len(Unit)), Signal(range(max(MAX_PAYLOAD_WORDS.values()) + 1))
        final = Signal(HEADER)  # header of END
        fault = Signal(ERROR_CODE)  # error in the program's words, reported when all before it has completed
        resetting = Signal(range(RESET_CYCLES))
        idle = Signal()
        # The last instruction may complete and, in doing so, stop the program: not idle while such an event is under
        # way.
        m.d.comb += idle.eq(~Cat(happens, *(slot.active for slot in slots.values())).any())
        free = Cat(slot.free & collecting[unit] for unit, slot in slots.items()).any()
        for slot in slots.values():
            m.d.comb += [
                slot.header.eq(header),
                slot.length.eq(missing),
                slot.word.eq(fetcher.word),
                slot.address.eq(fetcher.address),
            ]
        m.d.comb += [
            tokens.wait_sequencer.eq(final.wait),
            self.marks[Unit.SEQUENCER].address.eq(self.error_address),
        ]

        def stop_on_failure() -> None:
            with m.If(failure.code != ErrorCode.NONE):
                m.d.sync += [self.error_code.eq(failure.code), self.error_address.eq(failure.address), self.counting.eq(0)]
                m.next = "RESET"

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += [
                        self.busy.eq(1),
                        self.done.eq(0),
                        self.error.eq(0),
                        self.error_code.eq(0),
                        self.error_address.eq(0),
                    ]
                    m.d.sync += [self.counting.eq(1), fault.eq(ErrorCode.NONE), final.eq(0)]
                    m.next = "HEADER"
            with m.State("HEADER"):
                with m.If(fetcher.valid):
                    # While a program runs, this is the address of the instruction being fetched.
                    m.d.sync += self.error_address.eq(fetcher.address)
                with m.If(fetcher.valid & fetcher.overrun):
                    m.d.sync += fault.eq(ErrorCode.PROGRAM_OVERRUN)
                    m.next = "FINISH"
                with m.Elif(fetcher.valid):
                    m.d.sync += [collecting.eq(0), missing.eq(0)]
                    with m.Switch(header.opcode):
                        for definition in INSTRUCTIONS.values():
                            with m.Case(definition.opcode):
                                m.d.sync += [collecting.eq(1 << definition.unit), missing.eq(len(definition.words))]
                    m.next = "OPEN"
                stop_on_failure()
            with m.State("OPEN"):
                with m.If(collecting[Unit.SEQUENCER]):
                    m.d.sync += final.eq(header)
                    m.next = "FINISH"
                with m.Elif(~collecting.any()):
                    m.d.sync += fault.eq(ErrorCode.ILLEGAL_OPCODE)
                    m.next = "FINISH"
                with m.Elif(free):
                    m.d.comb += fetcher.consume.eq(1)
                    for unit, slot in slots.items():
                        m.d.comb += slot.open.eq(collecting[unit])
                    m.next = "HEADER"
                    with m.If(missing != 0):
                        m.next = "PAYLOAD"
                stop_on_failure()
            with m.State("PAYLOAD"):
                with m.If(fetcher.valid & fetcher.overrun):
                    m.d.sync += fault.eq(ErrorCode.PROGRAM_OVERRUN)
                    m.next = "FINISH"
                with m.Elif(fetcher.valid):
                    m.d.comb += fetcher.consume.eq(1)
                    m.d.sync += missing.eq(missing - 1)
                    for unit, slot in slots.items():
                        m.d.comb += slot.push.eq(collecting[unit])
                    with m.If(missing == 1):
                        m.next = "HEADER"
                stop_on_failure()
            with m.State("FINISH"):
                with m.If(idle & (fault != ErrorCode.NONE)):
                    m.d.sync += [self.error_code.eq(fault), self.counting.eq(0)]
                    m.next = "RESET"
                with m.Elif(idle & tokens.available_sequencer & self.trace_idle & final.mark):
                    m.d.comb += self.marks[Unit.SEQUENCER].valid.eq(1)
                    m.d.sync += self.counting.eq(0)
                    m.next = "FLUSH"
                with m.Elif(idle & tokens.available_sequencer & ~final.mark):
                    m.d.sync += self.counting.eq(0)
                    m.next = "FLUSH"
                stop_on_failure()
            with m.State("FLUSH"):
                with m.If(self.trace_idle):
                    m.d.sync += [self.busy.eq(0), self.done.eq(1), self.error_address.eq(0)]
                    m.next = "IDLE"
            with m.State("RESET"):
                m.d.comb += self.unit_reset.eq(1)
                m.d.sync += resetting.eq(resetting + 1)
                with m.If(resetting == RESET_CYCLES - 1):
                    m.next = "FLUSH_ERROR"
            with m.State("FLUSH_ERROR"):
                with m.If(self.trace_idle):
                    m.d.sync += [self.busy.eq(0), self.error.eq(1)]
                    m.next = "IDLE"
