"""Fetch, decode and issue for the compact engine: one state machine, whose memory is that of the registers."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_firmware.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Unit
from systola_firmware.memory_map import COUNTERS, STATUS_ERROR_SHIFT
from systola_hdl.compact.fetcher import DECODED, POST_OPCODES, VARIANT_BITS, CompactFetcher
from systola_hdl.compact.interfaces import OPCODE_BITS, CompactControl, ProgramFetch
from systola_hdl.compact.registers import StateStep
from systola_hdl.compact.state_layout import SCAN_LENGTH, StateLayout

__all__ = ["EXECUTING", "FLUSH_CYCLES", "CompactSequencer"]

#: Units that execute instructions, by number from 0.
EXECUTING = (Unit.MATMUL, Unit.POST)

_INDEX_BITS = 4
_LAST_INDEX = (1 << _INDEX_BITS) - 1
#: Bits of an error code that are used.
_CODE_BITS = max(ErrorCode).bit_length()
#: Cycles from the end of a program until the host sees it: the scanner adds up all counters; after an error, the units are reset
#: for as long, which is longer than any memory answers a read that was under way.
FLUSH_CYCLES = 2 << _INDEX_BITS


class _State:
    """Registers of the sequencer. Vectors have a bit for each executing unit, about its instruction."""

    def __init__(self, layout: StateLayout) -> None:
        count = len(EXECUTING)
        self.pending = Signal(count)  #: collected, waits for tokens
        self.check = Signal(count)  #: they may have come
        self.running = Signal(count)  #: started
        self.finished = Signal(count)  #: complete, but not accounted for
        self.failed = Signal(count)  #: in error
        self.headers = [Signal(DECODED, name=f"header_{unit.name.lower()}") for unit in EXECUTING]
        self.fetched = Signal()  #: ``header`` is that of the next instruction
        self.header = Signal(DECODED)
        self.overran = Signal()  #: the store has ended within it
        self.index = Signal(_INDEX_BITS)  #: step of what is being done
        self.unit = Signal(Unit)  #: for which
        self.code = Signal(_CODE_BITS)  #: of the error
        self.error = Signal()
        self.place = Signal(range(layout.trace_words + 1))  #: of the trace's next word

    @property
    def idle(self) -> Value:
        """No unit has anything."""
        return ~(self.pending | self.running).any()


class CompactSequencer(Component):
    """Run a program from ``start`` to END or an error.

    An instruction's words go to its unit as soon as that is idle; it is started once its tokens are there, and meanwhile the next
    one is fetched, unless it is for the same unit. What ends a program and what is blamed for it are as in
    :class:`~systola_hdl.sequencer.Sequencer`, except that LSTM is an unknown opcode.

    Everything is done in steps of two cycles, one thing at a time: a word of an instruction; reading, taking or giving the tokens
    of one pair of units; a word of a mark. Tokens, marks and the addresses of instructions are words of the registers' memory. A
    mark is written before the instruction gives its tokens, and takes 22 cycles and up to a round of the scanner; its counters may
    be those of that much later.

    Members
    -------
    step: Out(StateStep)
        The registers' memory.
    start, abort, timeout: In(1)
        From the registers: in a cycle of ``step.commit`` while ``step.idle``.
    scanning: In(3)
        The scanner's place.
    fetch: Out(ProgramFetch)
        The program.
    matmul, post: Out(CompactControl)
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
                "matmul": Out(CompactControl()),
                "post": Out(CompactControl()),
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
        m.submodules.fetcher = fetcher = CompactFetcher(self._config)
        connect(m, fetcher.fetch, flipped(self.fetch))
        state = _State(self._layout)
        controls = (self.matmul, self.post)
        for unit, control in enumerate(controls):
            m.d.comb += [control.word.eq(fetcher.word), control.word_index.eq(state.index)]
            with m.If(control.done):
                m.d.sync += state.finished[unit].eq(1)
            with m.If(control.error):
                m.d.sync += state.failed[unit].eq(1)
        variant = state.headers[Unit.POST].variant
        m.d.comb += [
            self.matmul.opcode.eq(Opcode.MATMUL),
            self.post.opcode.eq(Cat(variant, Const(Opcode.POST >> VARIANT_BITS, OPCODE_BITS - VARIANT_BITS))),
            self.wait_token.eq(state.pending[Unit.MATMUL] & ~state.check[Unit.MATMUL]),
            self.moved.eq(fetcher.valid | Cat(control.start | control.done for control in controls).any()),
            fetcher.start_address.eq(self.step.data),
        ]
        with m.FSM(init="STATUS"):
            self._build_dispatch(m, state)
            self._build_start(m, state, fetcher)
            self._build_issue(m, state, fetcher)
            self._build_tokens(m, state)
            self._build_mark(m, state)
            self._build_stop(m, state)
        return m

    def _build_dispatch(self, m: Module, state: _State) -> None:
        """What to do next; the host has the memory meanwhile."""
        with m.State("DISPATCH"):
            m.d.comb += self.step.idle.eq(1)
            m.d.sync += state.index.eq(0)
            with m.If(self.step.commit):
                with m.If(~self.run):
                    with m.If(self.start):
                        m.d.sync += [self.busy.eq(1), self.done.eq(0), state.error.eq(0), state.code.eq(ErrorCode.NONE)]
                        m.next = "STATUS"
                with m.Elif(state.failed.any() | self.abort | self.timeout):
                    self._blame(m, state)
                    m.next = "FAIL"
                with m.Elif(state.finished.any()):
                    for unit, header in reversed(list(enumerate(state.headers))):
                        with m.If(state.finished[unit]):
                            m.d.sync += state.unit.eq(unit)
                            m.next = "GIVE"
                            with m.If(header.mark):
                                m.next = "MARK_ADDRESS"
                with m.Elif((state.pending & state.check).any()):
                    m.d.sync += state.unit.eq(Mux(state.pending[0] & state.check[0], 0, 1))
                    m.next = "CHECK"
                with m.Elif(~state.fetched & ~state.overran):
                    m.next = "NOTE"
                with m.Elif(state.overran | state.header.illegal):
                    with m.If(state.idle):
                        m.d.sync += [
                            state.unit.eq(Unit.SEQUENCER),
                            state.code.eq(Mux(state.overran, ErrorCode.PROGRAM_OVERRUN, ErrorCode.ILLEGAL_OPCODE)),
                        ]
                        m.next = "FAIL"
                with m.Elif(state.header.end):
                    with m.If(state.idle):
                        m.d.sync += state.unit.eq(Unit.SEQUENCER)
                        m.next = "CHECK"
                with m.Elif(~(state.pending | state.running).bit_select(state.header.post, 1)):
                    m.d.sync += state.unit.eq(state.header.post)
                    m.next = "ISSUE"

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

    def _build_start(self, m: Module, state: _State, fetcher: CompactFetcher) -> None:
        """Write STATUS; before a program, zero all that it counts and find its first word."""
        layout, step = self._layout, self.step
        cleared = {register & _LAST_INDEX for register in (layout.register("error_address"), layout.register("marks"))}
        cleared |= {(layout.counters + place) & _LAST_INDEX for place in range(SCAN_LENGTH)}
        with m.State("STATUS"):
            m.d.comb += [
                step.read.eq(layout.zero),
                step.write.eq(layout.register("status")),
                step.enable.eq(1),
                step.addend.eq(Cat(self.busy, self.done, state.error, Const(0, STATUS_ERROR_SHIFT - 3), state.code)),
            ]
            with m.If(step.commit):
                m.next = "DISPATCH"
                with m.If(self.busy):
                    m.next = "CLEAR_REGISTERS"
        for name, base, places, following in (
            ("CLEAR_REGISTERS", layout.registers, sorted(cleared), "CLEAR_INTERNAL"),
            ("CLEAR_INTERNAL", layout.internal, range(_LAST_INDEX + 1), "LOAD"),
        ):
            with m.State(name):
                m.d.comb += [step.read.eq(layout.zero), step.write.eq(base | state.index)]
                with m.Switch(state.index):
                    with m.Case(*places):
                        m.d.comb += step.enable.eq(1)
                with m.If(step.commit):
                    m.d.sync += state.index.eq(state.index + 1)
                    with m.If(state.index == _LAST_INDEX):
                        m.next = following
        with m.State("LOAD"):
            m.d.comb += step.read.eq(layout.register("start_address"))
            m.d.sync += [state.fetched.eq(0), state.overran.eq(0), state.place.eq(0)]
            m.d.sync += [vector.eq(0) for vector in (state.pending, state.running, state.finished, state.failed)]
            with m.If(step.commit):
                m.d.comb += fetcher.load.eq(1)
                m.d.sync += self.run.eq(1)
                m.next = "DISPATCH"

    def _build_issue(self, m: Module, state: _State, fetcher: CompactFetcher) -> None:
        """Fetch a header, note its address, and hand the words behind it to the unit."""
        layout, step = self._layout, self.step
        fetching, here = layout.instruction + Unit.SEQUENCER, Signal.like(step.write)
        m.d.comb += here.eq(layout.instruction | state.unit)
        with m.State("NOTE"):
            m.d.comb += [step.read.eq(layout.zero), step.write.eq(fetching), step.enable.eq(1), step.addend.eq(fetcher.address)]
            with m.If(step.commit):
                m.next = "HEADER"
        with m.State("HEADER"):
            m.d.comb += fetcher.want.eq(~state.fetched)
            with m.If(fetcher.valid):
                m.d.sync += [state.header.eq(fetcher.decoded), state.fetched.eq(1)]
            with m.If(step.commit & (state.fetched | fetcher.overrun)):
                m.d.sync += state.overran.eq(~state.fetched)
                m.next = "DISPATCH"
        with m.State("ISSUE"):
            m.d.comb += [step.read.eq(fetching), step.write.eq(here), step.enable.eq(1)]
            for unit, header in enumerate(state.headers):
                with m.If(state.unit == unit):
                    m.d.sync += header.eq(state.header)
            with m.If(step.commit):
                m.next = "WORDS"
        with m.State("WORDS"):
            length = Signal.like(state.index)
            m.d.comb += length.eq(len(INSTRUCTIONS[Opcode.MATMUL].words))
            with m.If(state.header.post):
                with m.Switch(state.header.variant):
                    for opcode in POST_OPCODES:
                        with m.Case(opcode & ((1 << VARIANT_BITS) - 1)):
                            m.d.comb += length.eq(len(INSTRUCTIONS[opcode].words))
            complete = state.index == length
            m.d.comb += fetcher.want.eq(~complete)
            for unit, control in enumerate((self.matmul, self.post)):
                m.d.comb += control.word_valid.eq(fetcher.valid & (state.unit == unit))
            with m.If(fetcher.valid):
                m.d.sync += state.index.eq(state.index + 1)
            with m.If(step.commit & complete):
                m.d.sync += [state.fetched.eq(0), state.pending.bit_select(state.unit[0], 1).eq(1)]
                m.d.sync += state.check.bit_select(state.unit[0], 1).eq(1)
                m.next = "DISPATCH"
            with m.Elif(step.commit & fetcher.overrun):
                m.d.sync += state.overran.eq(1)
                m.next = "DISPATCH"

    def _build_tokens(self, m: Module, state: _State) -> None:
        """Start ``unit``'s instruction, or end the program, if its tokens are there; give those of one that is complete."""
        step, count = self.step, self.step.data[: TOKEN_LIMIT.bit_length()]
        source = state.index[0]
        taken_from = Signal.like(step.read)
        m.d.comb += taken_from.eq(self._layout.tokens | Cat(state.unit, source))
        wait = Signal(len(Unit))
        m.d.comb += wait.eq(Array([*(header.wait for header in state.headers), 0, state.header.wait])[state.unit])

        def granted() -> None:
            for unit, control in enumerate((self.matmul, self.post)):
                with m.If(state.unit == unit):
                    m.d.comb += control.start.eq(1)
                    m.d.sync += [state.pending[unit].eq(0), state.running[unit].eq(1)]
            m.next = "DISPATCH"
            with m.If(state.unit == Unit.SEQUENCER):
                m.d.sync += state.index.eq(0)
                m.next = "MARK_ADDRESS"
                with m.If(~state.header.mark):
                    self._finish(m)

        with m.State("CHECK"):
            m.d.comb += step.read.eq(taken_from)
            # Nobody gives what would come from a unit that executes nothing.
            missing = wait[len(EXECUTING) :].any() | (wait.bit_select(source, 1) & (count == 0))
            with m.If(step.commit):
                m.d.sync += state.index.eq(1 - source)
                with m.If(missing):
                    m.d.sync += state.check.bit_select(state.unit[0], 1).eq(0)
                    m.next = "DISPATCH"
                with m.Elif(wait == 0):
                    granted()
                with m.Elif(source):
                    m.next = "TAKE"
        with m.State("TAKE"):
            m.d.comb += [step.read.eq(taken_from), step.write.eq(taken_from), step.addend.eq(TOKEN_LIMIT)]  # modulo 256: -1
            m.d.comb += step.enable.eq(wait.bit_select(source, 1))
            with m.If(step.commit):
                m.d.sync += state.index.eq(1 - source)
                with m.If(source):
                    granted()
        with m.State("GIVE"):
            given_to = Signal.like(step.read)
            signal = Array([header.signal for header in state.headers])[state.unit[0]]
            gives = Signal()
            m.d.comb += [
                given_to.eq(self._layout.tokens | Cat(state.index[:2], state.unit[0])),
                gives.eq(signal.bit_select(state.index[:2], 1)),
                *(step.read.eq(given_to), step.write.eq(given_to), step.addend.eq(1), step.enable.eq(gives)),
            ]
            with m.If(step.commit):
                m.d.sync += state.index.eq(state.index + 1)
                for unit in range(len(EXECUTING)):
                    with m.If(gives & (state.index[:2] == unit)):
                        m.d.sync += state.check[unit].eq(1)
                with m.If((state.index[:2] == len(Unit) - 1) | (signal == 0)):
                    m.d.sync += state.finished.bit_select(state.unit[0], 1).eq(0)
                    m.d.sync += state.running.bit_select(state.unit[0], 1).eq(0)
                    m.next = "DISPATCH"
                with m.If(gives & (count == TOKEN_LIMIT)):
                    m.d.sync += state.code.eq(ErrorCode.TOKEN_OVERFLOW)
                    m.next = "FAIL"

    def _build_mark(self, m: Module, state: _State) -> None:
        """Copy the address of ``unit``'s instruction and the counters to the trace, while there is room, and count the mark."""
        layout, step = self._layout, self.step
        room = state.place != layout.trace_words
        with m.State("MARK_ADDRESS"):
            m.d.comb += [step.read.eq(layout.instruction | state.unit), step.write.eq(state.place), step.enable.eq(room)]
            # Each counter is copied right after the scanner has visited it.
            with m.If(step.commit & (self.scanning == 1)):
                m.d.sync += state.place.eq(state.place + room)
                m.next = "MARK_COUNTERS"
        with m.State("MARK_COUNTERS"):
            m.d.comb += [step.read.eq(layout.counters + state.index), step.write.eq(state.place), step.enable.eq(room)]
            with m.If(step.commit):
                m.d.sync += [state.index.eq(state.index + 1), state.place.eq(state.place + room)]
                with m.If(state.index == len(COUNTERS) - 1):
                    m.d.sync += state.index.eq(0)
                    m.next = "MARK_COUNT"
        with m.State("MARK_COUNT"):
            marks = layout.register("marks")
            m.d.comb += [step.read.eq(marks), step.write.eq(marks), step.addend.eq(1), step.enable.eq(1)]
            with m.If(step.commit):
                m.next = "GIVE"
                with m.If(state.unit == Unit.SEQUENCER):
                    self._finish(m)

    def _finish(self, m: Module) -> None:
        """The program ends here."""
        m.d.sync += self.run.eq(0)
        m.next = "FLUSH"

    def _build_stop(self, m: Module, state: _State) -> None:
        """Tell the host, once all counters are complete."""
        step = self.step
        with m.State("FAIL"):
            m.d.comb += [
                step.read.eq(self._layout.instruction | state.unit),
                step.write.eq(self._layout.register("error_address")),
                step.enable.eq(1),
            ]
            with m.If(step.commit):
                m.d.sync += [state.error.eq(1), state.index.eq(0)]
                self._finish(m)
        with m.State("FLUSH"):
            m.d.comb += self.unit_reset.eq(state.error)
            with m.If(step.commit):
                m.d.sync += state.index.eq(state.index + 1)
                with m.If(state.index == _LAST_INDEX):
                    m.d.sync += [self.busy.eq(0), self.done.eq(~state.error)]
                    m.next = "STATUS"
