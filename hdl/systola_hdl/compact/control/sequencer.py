"""Fetch, decode and issue for the compact engine: one state machine, whose memory is that of the registers."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Unit
from systola_firmware.spec.memory_map import COUNTERS, STATUS_ERROR_SHIFT
from systola_hdl.common.layouts import HEADER
from systola_hdl.common.logic import one_of
from systola_hdl.compact.control.fetcher import KIND, POST_OPCODES, VARIANT_BITS, Fetcher
from systola_hdl.compact.control.registers import StateStep
from systola_hdl.compact.control.state_layout import SCAN_LENGTH, StateLayout
from systola_hdl.compact.interfaces import OPCODE_BITS, ProgramFetch, UnitControl

__all__ = ["EXECUTING", "FLUSH_CYCLES", "Sequencer"]

#: Units that execute instructions, by number from 0.
EXECUTING = (Unit.MATMUL, Unit.POST)

_INDEX_BITS = 4
_LAST_INDEX = (1 << _INDEX_BITS) - 1
#: The scanner's index once it has visited the first counter: from here on, each is copied right after its visit.
_AFTER_FIRST = 1
#: What is kept of a header.
_HEADER = data.StructLayout({"wait": len(Unit), "signal": len(Unit), "mark": 1})
#: Bits of an error code that are used.
_CODE_BITS = max(ErrorCode).bit_length()
#: Cycles from the end of a program until the host sees it: the scanner adds up all counters; after an error, the units
#: are reset for as long, which is longer than any memory answers a read that was under way.
FLUSH_CYCLES = 2 << _INDEX_BITS


class _Step(enum.IntEnum):
    """What a step does; the machine's state has a bit for each."""

    DISPATCH = 0  #: find out what to do; the memory is the host's
    STATUS = enum.auto()  #: write STATUS
    CLEAR_REGISTERS = enum.auto()  #: zero what a program counts
    CLEAR_INTERNAL = enum.auto()  #: zero tokens and the rest
    LOAD = enum.auto()  #: read START_ADDRESS
    HEADER = enum.auto()  #: fetch a header for its kind, note its address
    ISSUE = enum.auto()  #: fetch it again for its unit, which is free
    WORDS = enum.auto()  #: hand the payload to the unit
    CHECK = enum.auto()  #: look at the tokens from a unit
    TAKE = enum.auto()  #: take them
    GIVE = enum.auto()  #: give one to a unit
    MARK_ADDRESS = enum.auto()  #: write the first word of a mark
    MARK_COUNTERS = enum.auto()  #: write another
    MARK_COUNT = enum.auto()  #: count the mark
    FAIL = enum.auto()  #: write ERROR_ADDRESS
    FLUSH = enum.auto()  #: let the scanner add up all counters, and reset the units after an error


class _State:
    """Registers of the sequencer. Vectors have a bit for each executing unit, about its instruction."""

    def __init__(self, layout: StateLayout) -> None:
        count = len(EXECUTING)
        self.now = Signal(len(_Step), init=1 << _Step.STATUS)
        self.then = Signal(len(_Step))  #: of the next step
        self.pending = Signal(count)  #: collected, waits for tokens
        self.check = Signal(count)  #: they may have come
        self.running = Signal(count)  #: started
        self.finished = Signal(count)  #: complete, but not accounted for
        self.failed = Signal(count)  #: in error
        #: Masks and mark of the instruction; what is left of ``signal`` while tokens are given.
        self.headers = [Signal(_HEADER, name=f"header_{unit.name.lower()}") for unit in EXECUTING]
        self.variant = Signal(VARIANT_BITS)  #: of POST's opcode
        self.known = Signal()  #: ``kind`` is that of the next instruction
        self.kind = Signal(KIND)
        self.overran = Signal()  #: the store has ended within it
        self.index = Signal(_INDEX_BITS)  #: repetitions of this step
        self.again = Signal()  #: of the next
        self.unit = Signal(Unit)  #: for which; POST and the sequencer share a header, as END is alone
        self.code = Signal(_CODE_BITS)  #: of the error
        self.error = Signal()
        self.trace_word = Signal(range(layout.trace_words + 1))  #: index of the next one

    @property
    def idle(self) -> Value:
        """No unit has anything."""
        return ~(self.pending | self.running).any()

    def header(self, name: str) -> Value:
        """A field of ``unit``'s header."""
        return Mux(self.unit[0], self.headers[1][name], self.headers[0][name])


class Sequencer(Component):
    """Run a program from ``start`` to END or an error.

    An instruction's words go to its unit as soon as that is idle; it is started once its tokens are there, and
    meanwhile the next one is fetched, unless it is for the same unit. What ends a program and what is blamed for it are
    as in :class:`~systola_hdl.full.control.sequencer.Sequencer`, except that LSTM is an unknown opcode.

    Everything is done in steps of two cycles, one thing at a time: a word of an instruction; reading, taking or giving
    the tokens of one pair of units; a word of a mark. Tokens, marks and the addresses of instructions are words of the
    registers' memory. A mark is written before the instruction gives its tokens, and takes 22 cycles and up to a round
    of the scanner; its counters may be those of that much later.

    Members
    -------
    step: Out(StateStep)
        The registers' memory.
    start, abort, timeout: In(1)
        From the registers: in a cycle of ``step.commit`` while ``step.idle``.
    scanning: In(3)
        Index of the word that the scanner visits.
    fetch: Out(ProgramFetch)
        The program.
    matmul, post: Out(UnitControl)
        The units.
    run: Out(1)
        A program runs: events count.
    busy, done: Out(1)
        As the host sees them.
    moved: Out(1)
        A word was fetched or an instruction started or completed.
    wait_token: Out(1)
        The MATMUL unit has nothing but an instruction whose tokens are not there.
    unit_reset: Out(1)
        Reset of all units, held for :data:`FLUSH_CYCLES` cycles after an error.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._layout = StateLayout(config)
        super().__init__(
            {
                "step": Out(StateStep(self._layout)),
                "start": In(1),
                "abort": In(1),
                "timeout": In(1),
                "scanning": In(range(SCAN_LENGTH)),
                "fetch": Out(ProgramFetch(config)),
                "matmul": Out(UnitControl()),
                "post": Out(UnitControl()),
                "run": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "moved": Out(1),
                "wait_token": Out(1),
                "unit_reset": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = Fetcher(self._config)
        connect(m, fetcher.fetch, flipped(self.fetch))
        state = _State(self._layout)
        now, controls = state.now, (self.matmul, self.post)
        for unit, control in enumerate(controls):
            m.d.comb += [
                control.words.payload.word.eq(fetcher.o.payload.word),
                control.words.payload.index.eq(state.index),
                control.words.valid.eq(now[_Step.WORDS] & fetcher.o.valid & (state.unit == unit)),
            ]
            with m.If(control.done):
                m.d.sync += state.finished[unit].eq(1)
            with m.If(control.error):
                m.d.sync += state.failed[unit].eq(1)
        m.d.comb += [
            self.matmul.opcode.eq(Opcode.MATMUL),
            self.post.opcode.eq(Cat(state.variant, Const(Opcode.POST >> VARIANT_BITS, OPCODE_BITS - VARIANT_BITS))),
            self.wait_token.eq(state.pending[Unit.MATMUL] & ~state.check[Unit.MATMUL]),
            self.moved.eq((now[_Step.WORDS] & fetcher.o.valid) | Cat(control.start | control.done for control in controls).any()),
            fetcher.start_address.eq(self.step.data),
            self.unit_reset.eq(now[_Step.FLUSH] & state.error),
        ]
        with m.If(self.step.commit):
            m.d.sync += now.eq(state.then)
        self._build_memory(m, state, fetcher)
        self._build_index(m, state, fetcher)
        with m.If(now[_Step.DISPATCH] & self.step.commit):
            self._build_dispatch(m, state)
        self._build_start(m, state, fetcher)
        self._build_issue(m, state, fetcher)
        self._build_tokens(m, state)
        self._build_mark(m, state)
        self._build_stop(m, state)
        return m

    def _build_memory(self, m: Module, state: _State, fetcher: Fetcher) -> None:
        """What each step does with the memory; nothing in those not listed."""
        layout, step, now = self._layout, self.step, state.now
        room = state.trace_word != layout.trace_words
        fetching = layout.instruction + Unit.SEQUENCER
        own = layout.instruction | state.unit
        taken = layout.tokens | Cat(state.unit, state.index[0])
        given = layout.tokens | Cat(state.index[:2], state.unit[0])
        flags = Cat(self.busy, self.done, state.error, Const(0, STATUS_ERROR_SHIFT - 3), state.code)
        cleared = {register & _LAST_INDEX for register in (layout.register("error_address"), layout.register("marks"))}
        cleared |= {(layout.counters + index) & _LAST_INDEX for index in range(SCAN_LENGTH)}
        counter, marks = layout.counters + state.index, layout.register("marks")
        # Read, write, what to add, and whether to write.
        uses: dict[_Step, tuple[Value | int, Value | int, Value | int, Value | int]] = {
            _Step.STATUS: (layout.zero, layout.register("status"), flags, 1),
            _Step.CLEAR_REGISTERS: (layout.zero, layout.registers | state.index, 0, state.index.matches(*sorted(cleared))),
            _Step.CLEAR_INTERNAL: (layout.zero, layout.internal | state.index, 0, 1),
            _Step.LOAD: (layout.register("start_address"), 0, 0, 0),
            _Step.HEADER: (layout.zero, fetching, fetcher.address, 1),
            _Step.ISSUE: (fetching, own, 0, 1),
            _Step.CHECK: (taken, 0, 0, 0),
            # A count has 8 bits: to add 255 takes one.
            _Step.TAKE: (taken, taken, TOKEN_LIMIT, state.header("wait").bit_select(state.index[0], 1)),
            _Step.GIVE: (given, given, 1, state.header("signal")[0]),
            _Step.MARK_ADDRESS: (own, state.trace_word, 0, room),
            _Step.MARK_COUNTERS: (counter, state.trace_word, 0, room),
            _Step.MARK_COUNT: (marks, marks, 1, 1),
            _Step.FAIL: (own, layout.register("error_address"), 0, 1),
        }
        m.d.comb += step.idle.eq(now[_Step.DISPATCH])
        for column, port in enumerate((step.read, step.write, step.addend, step.enable)):
            m.d.comb += port.eq(one_of((now[name], use[column]) for name, use in uses.items()))
        leaves = now[_Step.MARK_ADDRESS] & (self.scanning == _AFTER_FIRST)
        with m.If(now[_Step.LOAD]):
            m.d.sync += state.trace_word.eq(0)
        with m.Elif(step.commit & (leaves | now[_Step.MARK_COUNTERS]) & room):
            m.d.sync += state.trace_word.eq(state.trace_word + 1)

    def _build_index(self, m: Module, state: _State, fetcher: Fetcher) -> None:
        """Count the repetitions of a step; in WORDS, the words."""
        words = state.now[_Step.WORDS]
        with m.If(words & fetcher.o.valid):
            m.d.comb += state.again.eq(1)
        with m.If(Mux(words, fetcher.o.valid, self.step.commit)):
            m.d.sync += state.index.eq(Mux(state.again, state.index + 1, 0))

    def _go(self, m: Module, state: _State, step: _Step, *, again: bool = False) -> None:
        """What the next step does; with ``again``, it is a repetition. The choices of one step must exclude each
        other."""
        m.d.comb += state.then[step].eq(1)
        if again:
            m.d.comb += state.again.eq(1)

    def _build_dispatch(self, m: Module, state: _State) -> None:
        """What to do next."""
        with m.If(~self.run):
            with m.If(self.start):
                m.d.sync += [self.busy.eq(1), self.done.eq(0), state.error.eq(0), state.code.eq(ErrorCode.NONE)]
                self._go(m, state, _Step.STATUS)
            with m.Else():
                self._go(m, state, _Step.DISPATCH)
        with m.Elif(state.failed.any() | self.abort | self.timeout):
            self._blame(m, state)
            self._go(m, state, _Step.FAIL)
        with m.Elif(state.finished.any()):
            m.d.sync += state.unit.eq(~state.finished[0])
            with m.If(Mux(state.finished[0], state.headers[0].mark, state.headers[1].mark)):
                self._go(m, state, _Step.MARK_ADDRESS)
            with m.Else():
                self._go(m, state, _Step.GIVE)
        with m.Elif((state.pending & state.check).any()):
            m.d.sync += state.unit.eq(~(state.pending[0] & state.check[0]))
            self._go(m, state, _Step.CHECK)
        with m.Elif(~state.known & ~state.overran):
            self._go(m, state, _Step.HEADER)
        with m.Elif(state.overran | state.kind.illegal | state.kind.end):
            m.d.sync += state.unit.eq(Unit.SEQUENCER)
            with m.If(~state.idle):
                self._go(m, state, _Step.DISPATCH)
            with m.Elif(~state.overran & state.kind.end):
                self._go(m, state, _Step.ISSUE)
            with m.Else():
                m.d.sync += state.code.eq(Mux(state.overran, ErrorCode.PROGRAM_OVERRUN, ErrorCode.ILLEGAL_OPCODE))
                self._go(m, state, _Step.FAIL)
        with m.Else():
            m.d.sync += state.unit.eq(state.kind.post)
            with m.If((state.pending | state.running).bit_select(state.kind.post, 1)):
                self._go(m, state, _Step.DISPATCH)
            with m.Else():
                self._go(m, state, _Step.ISSUE)

    def _blame(self, m: Module, state: _State) -> None:
        """Code and instruction of a failure; the last that applies wins."""
        active = state.pending | state.running
        m.d.sync += [state.code.eq(ErrorCode.TIMEOUT), state.unit.eq(Unit.SEQUENCER)]
        for unit in reversed(range(len(EXECUTING))):
            with m.If(active[unit]):
                m.d.sync += state.unit.eq(unit)
        with m.If(self.abort):
            m.d.sync += [state.code.eq(ErrorCode.ABORTED), state.unit.eq(Unit.SEQUENCER)]
        for unit, control in reversed(list(enumerate((self.matmul, self.post)))):
            with m.If(state.failed[unit]):
                m.d.sync += [state.code.eq(control.error_code), state.unit.eq(unit)]

    def _build_start(self, m: Module, state: _State, fetcher: Fetcher) -> None:
        """Before a program: zero all that it counts, find its first word."""
        now, last = state.now, state.index == _LAST_INDEX
        with m.If(now[_Step.STATUS]):
            with m.If(self.busy):
                # Each counter well before its visit: one that the scanner is about to write back would not be cleared.
                with m.If(self.scanning == _AFTER_FIRST):
                    self._go(m, state, _Step.CLEAR_REGISTERS)
                with m.Else():
                    self._go(m, state, _Step.STATUS)
            with m.Else():
                self._go(m, state, _Step.DISPATCH)
        for clearing, following in ((_Step.CLEAR_REGISTERS, _Step.CLEAR_INTERNAL), (_Step.CLEAR_INTERNAL, _Step.LOAD)):
            with m.If(now[clearing]):
                with m.If(last):
                    self._go(m, state, following)
                with m.Else():
                    self._go(m, state, clearing, again=True)
        with m.If(now[_Step.LOAD]):
            for vector in (state.pending, state.running, state.finished, state.failed, state.known, state.overran):
                m.d.sync += vector.eq(0)
            m.d.comb += fetcher.load.eq(self.step.commit)
            m.d.sync += self.run.eq(1)
            self._go(m, state, _Step.DISPATCH)

    def _build_issue(self, m: Module, state: _State, fetcher: Fetcher) -> None:
        """Fetch a header, then again when its unit is free, and the words behind it."""
        now = state.now
        with m.If(now[_Step.HEADER]):
            m.d.comb += fetcher.want.eq(~state.known)
            with m.If(fetcher.o.valid):
                m.d.sync += [state.kind.eq(fetcher.o.payload.kind), state.known.eq(1)]
            with m.If(state.known | fetcher.o.valid | fetcher.overrun):
                m.d.sync += state.overran.eq(fetcher.overrun)
                self._go(m, state, _Step.DISPATCH)
            with m.Else():
                self._go(m, state, _Step.HEADER)
        header = data.View(HEADER, fetcher.o.payload.word)
        with m.If(now[_Step.ISSUE]):
            m.d.comb += [fetcher.want.eq(state.known), fetcher.advance.eq(~state.kind.end)]
            with m.If(fetcher.o.valid):
                m.d.sync += state.known.eq(0)
                for number, own in enumerate(state.headers):
                    with m.If(state.unit[0] == number):
                        m.d.sync += [own[name].eq(header[name]) for name in _HEADER.members]
                with m.If(state.unit[0]):
                    m.d.sync += state.variant.eq(header.opcode)
            with m.If(state.known & ~fetcher.o.valid):
                self._go(m, state, _Step.ISSUE)
            with m.Elif(state.kind.end):
                self._go(m, state, _Step.CHECK)
            with m.Else():
                self._go(m, state, _Step.WORDS)
        with m.If(now[_Step.WORDS]):
            length = one_of(
                [
                    (~state.unit[0], len(INSTRUCTIONS[Opcode.MATMUL].words)),
                    *(
                        (state.unit[0] & (state.variant == opcode & ((1 << VARIANT_BITS) - 1)), len(INSTRUCTIONS[opcode].words))
                        for opcode in POST_OPCODES
                    ),
                ]
            )
            complete = state.index == length
            m.d.comb += [fetcher.want.eq(~complete), fetcher.advance.eq(1)]
            with m.If(complete):
                with m.If(self.step.commit):
                    for unit in range(len(EXECUTING)):
                        with m.If(state.unit[0] == unit):
                            m.d.sync += [state.pending[unit].eq(1), state.check[unit].eq(1)]
                self._go(m, state, _Step.DISPATCH)
            with m.Elif(fetcher.overrun):
                m.d.sync += state.overran.eq(1)
                self._go(m, state, _Step.DISPATCH)
            with m.Else():
                m.d.comb += state.then[_Step.WORDS].eq(1)

    def _build_tokens(self, m: Module, state: _State) -> None:
        """Start ``unit``'s instruction, or end the program, if its tokens are there; give those of one that is
        complete."""
        now, commit, source = state.now, self.step.commit, state.index[0]
        count = self.step.data[: TOKEN_LIMIT.bit_length()]
        wait, granted = state.header("wait"), Signal()
        with m.If(now[_Step.CHECK]):
            # Nobody gives what would come from a unit that executes nothing.
            with m.If(wait[len(EXECUTING) :].any() | (wait.bit_select(source, 1) & (count == 0))):
                for unit in range(len(EXECUTING)):
                    with m.If(commit & (state.unit[0] == unit)):
                        m.d.sync += state.check[unit].eq(0)
                self._go(m, state, _Step.DISPATCH)
            with m.Elif(wait == 0):
                m.d.comb += granted.eq(1)
            with m.Elif(source):
                self._go(m, state, _Step.TAKE)
            with m.Else():
                self._go(m, state, _Step.CHECK, again=True)
        with m.If(now[_Step.TAKE]):
            with m.If(source):
                m.d.comb += granted.eq(1)
            with m.Else():
                self._go(m, state, _Step.TAKE, again=True)
        with m.If(granted):
            with m.If(~state.unit[1]):
                self._go(m, state, _Step.DISPATCH)
            with m.Elif(state.header("mark")):
                self._go(m, state, _Step.MARK_ADDRESS)
            with m.Else():
                self._go(m, state, _Step.FLUSH)
        for unit, control in enumerate((self.matmul, self.post)):
            m.d.comb += control.start.eq(granted & commit & (state.unit == unit))
            with m.If(control.start):
                m.d.sync += [state.pending[unit].eq(0), state.running[unit].eq(1)]

        with m.If(now[_Step.GIVE]):
            signal = state.header("signal")
            with m.If(commit):
                for unit, own in enumerate(state.headers):
                    with m.If(state.unit[0] == unit):
                        m.d.sync += own.signal.eq(own.signal >> 1)
                        with m.If(~signal[1:].any()):
                            m.d.sync += [state.finished[unit].eq(0), state.running[unit].eq(0)]
                    with m.If(signal[0] & (state.index[:2] == unit)):
                        m.d.sync += state.check[unit].eq(1)
            with m.If(signal[0] & (count == TOKEN_LIMIT)):
                m.d.sync += state.code.eq(ErrorCode.TOKEN_OVERFLOW)
                self._go(m, state, _Step.FAIL)
            with m.Elif(signal[1:].any()):
                self._go(m, state, _Step.GIVE, again=True)
            with m.Else():
                self._go(m, state, _Step.DISPATCH)

    def _build_mark(self, m: Module, state: _State) -> None:
        """Copy the address of ``unit``'s instruction and the counters to the trace, while there is room, and count the
        mark."""
        now = state.now
        with m.If(now[_Step.MARK_ADDRESS]):
            with m.If(self.scanning == _AFTER_FIRST):
                self._go(m, state, _Step.MARK_COUNTERS)
            with m.Else():
                self._go(m, state, _Step.MARK_ADDRESS)
        with m.If(now[_Step.MARK_COUNTERS]):
            with m.If(state.index == len(COUNTERS) - 1):
                self._go(m, state, _Step.MARK_COUNT)
            with m.Else():
                self._go(m, state, _Step.MARK_COUNTERS, again=True)
        with m.If(now[_Step.MARK_COUNT]):
            with m.If(state.unit[1]):
                self._go(m, state, _Step.FLUSH)
            with m.Else():
                self._go(m, state, _Step.GIVE)

    def _build_stop(self, m: Module, state: _State) -> None:
        """The end: tell the host, once all counters are complete."""
        now = state.now
        with m.If(now[_Step.FAIL]):
            m.d.sync += state.error.eq(1)
            self._go(m, state, _Step.FLUSH)
        with m.If(now[_Step.FLUSH]):
            m.d.sync += self.run.eq(0)
            with m.If(state.index == _LAST_INDEX):
                m.d.sync += [self.busy.eq(0), self.done.eq(~state.error)]
                self._go(m, state, _Step.STATUS)
            with m.Else():
                self._go(m, state, _Step.FLUSH, again=True)
