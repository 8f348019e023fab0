# amaranth: UnusedElaboratable=no
"""The sequencer with scripted units: random programs with random durations, and every reason to stop."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from amaranth.sim import SimulatorContext
from support.benches.simulate import simulator_of
from support.programs.sequencer_programs import Event, check_tokens, encode, operation, random_program, starts

from systola_firmware.spec.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Operation, Unit
from systola_firmware.spec.presets import preset
from systola_hdl.full.control.issue_slot import IN_FLIGHT, IssueSlot
from systola_hdl.full.control.sequencer import RESET_CYCLES, Sequencer
from systola_hdl.full.control.tokens import EXECUTING, Tokens
from systola_hdl.host.trace import QUEUE_DEPTH

CONFIG = preset("tiny-4x4").replace(program_words=1024)
WATCHDOG = 200
END = Operation(Opcode.END, {})
OPCODES = tuple(opcode for opcode in Opcode if opcode is not Opcode.END)


@dataclass
class FakeUnit:
    """Takes up to two instructions and completes them after random times (``None``: never)."""

    rng: random.Random
    longest: int | None = 30
    waiting: list[int] = field(default_factory=list)  #: cycles until each is done

    @property
    def done(self) -> bool:
        return bool(self.waiting) and self.waiting[0] == 0

    def step(self, taken: bool) -> None:
        if self.done:
            self.waiting.pop(0)
        elif self.waiting and self.waiting[0] > 0:
            self.waiting[0] -= 1
        if taken:
            self.waiting.append(-1 if self.longest is None else self.rng.randrange(self.longest))


class Bench:
    """The sequencer, a program, fake units and a record of all events."""

    def __init__(self, words: Sequence[int], seed: int = 0, *, longest: int | None = 30) -> None:
        self.words = words
        self.rng = random.Random(seed)
        self.longest = longest
        self.dut = Sequencer(CONFIG, watchdog_cycles=WATCHDOG)
        self.events: list[Event] = []
        self.errors: dict[int, tuple[Unit, ErrorCode]] = {}  #: cycle in which a unit reports an error
        self.abort_at = -1
        self.start_address = 0
        self.runs = 1
        self.outcomes: list[tuple[bool, bool, ErrorCode, int]] = []  #: done, error, code, address of each run
        self.resets = 0
        self.starved = 0  #: cycles of wait_token

    def run(self) -> tuple[bool, bool, ErrorCode, int]:
        simulator = simulator_of(self.dut)
        simulator.add_testbench(self._run)
        simulator.run()
        return self.outcomes[-1]

    async def _run(self, ctx: SimulatorContext) -> None:
        for _ in range(self.runs):
            await self._run_once(ctx)

    async def _run_once(self, ctx: SimulatorContext) -> None:
        dut = self.dut
        units = {unit: FakeUnit(self.rng, self.longest) for unit in EXECUTING}
        controls = {unit: getattr(dut, unit.name.lower()) for unit in EXECUTING}
        queue = 0  # the trace's queue
        counted = True  # in the cycle before
        offered: dict[Unit, object] = {}
        ctx.set(dut.start_address, self.start_address)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(5000):
            if queue and self.rng.random() < 0.15:
                queue -= 1
            ctx.set(dut.mark_level, queue)
            ctx.set(dut.trace_idle, queue == 0)
            ctx.set(dut.abort, cycle == self.abort_at)
            for unit, control in controls.items():
                reporter, code = self.errors.get(cycle, (None, ErrorCode.NONE))
                ctx.set(control.instruction.ready, self.rng.random() < 0.7)
                ctx.set(control.done, units[unit].done)
                ctx.set(control.busy, bool(units[unit].waiting))
                ctx.set(control.error, reporter is unit)
                ctx.set(control.error_code, code)
            instructions = [control.instruction for control in controls.values()]
            _, _, busy, counting, starved, enable, address, reset, marks, *offers = await ctx.tick().sample(
                dut.busy,
                dut.counting,
                dut.wait_token,
                dut.fetch_enable,
                dut.fetch_address,
                dut.unit_reset,
                dut.marks,
                *(signal for stream in instructions for signal in (stream.valid, stream.ready, stream.payload)),
            )
            assert not counting or (counted and busy and not reset), "counting is from the start to what ends the program"
            counted = counting
            if not busy:
                self.outcomes.append(
                    (ctx.get(dut.done), ctx.get(dut.error), ErrorCode(ctx.get(dut.error_code)), ctx.get(dut.error_address))
                )
                return
            assert not (starved and units[Unit.MATMUL].waiting), "the unit is busy"
            self.starved += starved
            # A word stays for one cycle only.
            ctx.set(dut.fetch_data, self.words[address] if enable and address < len(self.words) else 0xA5A5A5A5)
            self.resets += reset
            entry = 0
            for unit in Unit:
                if marks[unit].valid:
                    self.events.append(Event(cycle, unit, "mark", address=marks[unit].address))
                    entry = 1
            queue += entry
            assert queue <= QUEUE_DEPTH
            for index, unit in enumerate(EXECUTING):
                valid, ready, payload = offers[3 * index : 3 * index + 3]
                if unit in offered and not reset:
                    assert valid, "an offer was withdrawn"
                    assert payload == offered[unit]
                offered.pop(unit, None)
                if valid and not ready:
                    offered[unit] = payload
                if units[unit].done:
                    self.events.append(Event(cycle, unit, "done"))
                if valid and ready:
                    count = len(INSTRUCTIONS[Opcode(payload.opcode)].words)
                    words = payload.words
                    self.events.append(
                        Event(cycle, unit, "take", (payload.opcode, *(words >> 32 * i & 0xFFFF_FFFF for i in range(count))))
                    )
                    assert len(units[unit].waiting) < IN_FLIGHT, "more than one ahead"
                units[unit].step(bool(valid and ready))
                if reset:
                    units[unit].waiting.clear()
        raise AssertionError("the sequencer hangs")


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    program = random_program(rng, OPCODES, 40)
    bench = Bench(encode(program), seed)
    assert bench.run() == (True, False, ErrorCode.NONE, 0)
    addressed = list(zip(program, starts(program), strict=True))
    for unit in EXECUTING:
        mine = [(item, address) for item, address in addressed if item.definition.unit == unit]
        events = [event for event in bench.events if event.unit == unit]
        # In order, each with its words.
        assert [event.words for event in events if event.kind == "take"] == [(item.opcode, *item.encode()[1:]) for item, _ in mine]
        # A mark in the cycle of each completion that asks for one.
        done = [event.cycle for event in events if event.kind == "done"]
        expected = [(cycle + IssueSlot.latency, address) for cycle, (item, address) in zip(done, mine, strict=True) if item.mark]
        assert [(event.cycle, event.address) for event in events if event.kind == "mark"] == expected
    ends = [event.address for event in bench.events if event.unit == Unit.SEQUENCER]
    assert ends == ([addressed[-1][1]] if program[-1].mark else [])
    check_tokens(program, bench.events)


def test_units_overlap() -> None:
    rng = random.Random(1)
    program = [operation(rng, opcode) for opcode in (Opcode.MATMUL, Opcode.VECTOR, Opcode.MATMUL, Opcode.VECTOR)] + [END]
    bench = Bench(encode(program), longest=200)
    assert bench.run()[0]
    first_done = min(event.cycle for event in bench.events if event.kind == "done")
    assert sum(event.kind == "take" and event.cycle < first_done for event in bench.events) >= 3


def test_wait_token_is_about_an_idle_unit() -> None:
    rng = random.Random(11)
    program = [
        operation(rng, Opcode.MATMUL),
        operation(rng, Opcode.POST, signal=(Unit.MATMUL,)),
        operation(rng, Opcode.MATMUL, wait=(Unit.POST,)),
        END,
    ]
    waited = []
    for seed in range(6):
        bench = Bench(encode(program), seed)
        assert bench.run()[0]
        done = [next(e.cycle for e in bench.events if e.unit == unit and e.kind == "done") for unit in (Unit.POST, Unit.MATMUL)]
        assert bench.starved <= max(done[0] - done[1], 0)
        waited.append(bench.starved)
    assert min(waited) == 0, "the token came while the unit was busy"
    assert max(waited) > 0


def test_tokens_start_at_zero() -> None:
    rng = random.Random(2)
    program = [operation(rng, Opcode.VECTOR, signal=(Unit.MATMUL,)) for _ in range(3)] + [END]
    words = encode(program)
    bench = Bench(words + encode([operation(rng, Opcode.MATMUL, wait=(Unit.POST,)), END]))
    bench.run()
    assert bench.outcomes == [(True, False, ErrorCode.NONE, 0)]
    # In one simulation: the tokens of the first run are gone in the second.
    bench = Bench(words[:-1] + encode([operation(rng, Opcode.MATMUL, wait=(Unit.POST,)), END]))
    bench.runs = 2
    assert bench.run()[0]
    first, second = (event.cycle for event in bench.events if event.unit == Unit.MATMUL and event.kind == "take")
    gifts = [event.cycle for event in bench.events if event.unit == Unit.POST and event.kind == "done"]
    assert first > gifts[0]
    assert second > gifts[3]


def test_illegal_opcode_waits_for_what_came_before() -> None:
    rng = random.Random(3)
    words = encode([operation(rng, Opcode.MATMUL), operation(rng, Opcode.POST)])
    bench = Bench([*words, 0x33])
    assert bench.run() == (False, True, ErrorCode.ILLEGAL_OPCODE, len(words))
    assert sum(event.kind == "done" for event in bench.events) == 2
    assert bench.resets == RESET_CYCLES


@pytest.mark.parametrize("words", [0, 3])
def test_overrun(words: int) -> None:
    rng = random.Random(4)
    bench = Bench([0] * CONFIG.program_words)
    bench.start_address = CONFIG.program_words - words
    bench.words[CONFIG.program_words - words :] = operation(rng, Opcode.MATMUL).encode()[:words]
    assert bench.run() == (False, True, ErrorCode.PROGRAM_OVERRUN, CONFIG.program_words - words)


def test_unit_errors_name_the_oldest_instruction() -> None:
    rng = random.Random(5)
    program = [operation(rng, Opcode.VECTOR), operation(rng, Opcode.MATMUL), operation(rng, Opcode.MATMUL), END]
    for unit, code, address in (
        (Unit.MATMUL, ErrorCode.WEIGHT_ADDRESS, starts(program)[1]),
        (Unit.POST, ErrorCode.BAD_FIELD, starts(program)[0]),
    ):
        bench = Bench(encode(program), longest=None)
        bench.errors[100] = (unit, code)
        assert bench.run() == (False, True, code, address)


def test_restart_after_an_error() -> None:
    rng = random.Random(6)
    program = random_program(rng, OPCODES, 12)
    bench = Bench(encode(program), 6)
    bench.errors[60] = (Unit.POST, ErrorCode.ACTIVATION_ADDRESS)
    bench.runs = 1

    async def twice(ctx: SimulatorContext) -> None:
        await Bench._run_once(bench, ctx)
        bench.errors.clear()
        bench.events.clear()
        await Bench._run_once(bench, ctx)

    bench._run = twice  # type: ignore[method-assign]  # another script for the same bench
    assert bench.run() == (True, False, ErrorCode.NONE, 0)
    assert bench.outcomes[0][:3] == (False, True, ErrorCode.ACTIVATION_ADDRESS)
    assert sum(event.kind == "take" for event in bench.events) == 12


def test_watchdog_and_abort() -> None:
    rng = random.Random(7)
    program = [operation(rng, Opcode.POST), operation(rng, Opcode.MATMUL, wait=(Unit.LSTM,)), END]
    bench = Bench(encode(program))
    assert bench.run() == (False, True, ErrorCode.TIMEOUT, starts(program)[1])
    bench = Bench(encode(program))
    bench.abort_at = 120
    assert bench.run()[:3] == (False, True, ErrorCode.ABORTED)


def test_end_waits_for_its_tokens() -> None:
    rng = random.Random(9)
    program = [operation(rng, Opcode.VECTOR), Operation(Opcode.END, {}, wait=(Unit.POST,))]
    assert Bench(encode(program)).run()[:3] == (False, True, ErrorCode.TIMEOUT)


def test_token_overflow() -> None:
    rng = random.Random(8)
    one = Operation(Opcode.TABLE, {}, signal=(Unit.LSTM,))
    bench = Bench(encode([one] * TOKEN_LIMIT + [END]), longest=1)
    assert bench.run() == (True, False, ErrorCode.NONE, 0)
    bench = Bench(encode([one] * TOKEN_LIMIT + [operation(rng, Opcode.MATMUL, signal=(Unit.LSTM,)), one, END]), longest=1)
    assert bench.run() == (False, True, ErrorCode.TOKEN_OVERFLOW, 2 * TOKEN_LIMIT + 10)
    # Nothing but END comes after the instruction whose completion is what stops the program.
    bench = Bench(encode([one] * TOKEN_LIMIT + [one, END]), longest=1)
    assert bench.run() == (False, True, ErrorCode.TOKEN_OVERFLOW, 2 * TOKEN_LIMIT)


def test_token_counters() -> None:
    rng = random.Random(10)
    dut = Tokens()
    model: Counter[tuple[Unit, Unit]] = Counter()

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range(400):
            gifts = {unit: rng.getrandbits(4) & rng.getrandbits(4) for unit in EXECUTING}
            for unit, mask in gifts.items():
                ctx.set(getattr(dut, f"give_{unit.name.lower()}"), mask)
            for unit in Unit:
                name, mask = unit.name.lower(), rng.getrandbits(4) & rng.getrandbits(4)
                ctx.set(getattr(dut, f"wait_{name}"), mask)
                wanted = [source for source in Unit if mask >> source & 1]
                there = all(model[source, unit] for source in wanted)
                assert ctx.get(getattr(dut, f"available_{name}")) == there
                take = there and rng.random() < 0.8
                ctx.set(getattr(dut, f"take_{name}"), take)
                for source in wanted if take else ():
                    model[source, unit] -= 1
            for source, mask in gifts.items():
                for target in Unit:
                    model[source, target] += mask >> target & 1
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_watchdog_limit_is_checked() -> None:
    with pytest.raises(ValueError, match="watchdog_cycles must be at least 1, not 0"):
        Sequencer(CONFIG, watchdog_cycles=0)
