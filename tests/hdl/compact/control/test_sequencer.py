# amaranth: UnusedElaboratable=no
"""The compact engine's control plane with scripted units: random programs with random durations, and every reason to
stop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from amaranth.sim import SimulatorContext
from support.benches.simulate import simulator_of
from support.programs.sequencer_programs import Event, check_tokens, encode, operation, random_program, starts

from systola_firmware.spec.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Operation, Unit, opcodes_of
from systola_firmware.spec.memory_map import COUNTERS, MARK_WORDS, Control, Status, split_status
from systola_firmware.spec.presets import preset
from systola_hdl.compact.control.counters import VISIT_CYCLES
from systola_hdl.compact.control.fetcher import POST_OPCODES
from systola_hdl.compact.control.plane import ControlPlane
from systola_hdl.compact.control.sequencer import EXECUTING, FLUSH_CYCLES
from systola_hdl.compact.control.state_layout import SCAN_LENGTH, StateLayout
from systola_hdl.full.control.sequencer import RESET_CYCLES

CONFIG = preset("icebreaker").replace(program_words=1024, trace_marks=12)
LAYOUT = StateLayout(CONFIG)
WATCHDOG = 300
END = Operation(Opcode.END, {})
OPCODES = (Opcode.MATMUL, *POST_OPCODES)
EVENTS = ("array_busy", "wait_weights", "wait_activations", "wait_post")


@dataclass
class FakeUnit:
    """Collects words, and completes an instruction after a random time."""

    rng: random.Random
    words: list[int] = field(default_factory=list)
    left: int | None = None  #: cycles until it is done; None: idle
    stopped: bool = False  #: after an error, until reset

    @property
    def busy(self) -> bool:
        return self.left is not None or self.stopped

    def step(self, start: bool, shortest: int, longest: int | None) -> None:
        """The bounds are those of the time; None: it never ends."""
        if self.left is not None:
            self.left = None if self.left == 0 else self.left - 1
        if start:
            self.left = 1 << 30 if longest is None else self.rng.randrange(shortest, longest)


class Bench:
    """The control plane, a program, fake units, the host, and a record of all events."""

    def __init__(self, words: Sequence[int], seed: int = 0, *, longest: int | None = 30) -> None:
        self.words = words
        self.rng = random.Random(seed)
        self.shortest, self.longest = 0, longest
        self.dut = ControlPlane(CONFIG, watchdog_cycles=WATCHDOG)
        self.events: list[Event] = []
        self.errors: dict[int, tuple[Unit, ErrorCode]] = {}  #: cycle in which a unit reports an error
        self.start_address = 0
        self.abort_after = -1  #: reads of STATUS
        self.resets = 0
        self.cycle = 0
        self.event_cycles = dict.fromkeys(COUNTERS, 0)
        self.finished = False
        self.outcomes: list[tuple[Status, ErrorCode, int]] = []

    def run(self, runs: int = 1) -> tuple[Status, ErrorCode, int]:
        async def host(ctx: SimulatorContext) -> None:
            for _ in range(runs):
                await self._host(ctx)
            self.finished = True

        simulator = simulator_of(self.dut)
        simulator.add_testbench(host)
        simulator.add_testbench(self._units)
        simulator.run()
        return self.outcomes[-1]

    async def access(self, ctx: SimulatorContext, address: int, data: int | None = None) -> int:
        host = self.dut.host
        ctx.set(host.valid, 1)
        ctx.set(host.address, address)
        ctx.set(host.write, data is not None)
        ctx.set(host.data, data or 0)
        (word,) = await ctx.tick().sample(host.read_data).until(host.done)
        ctx.set(host.valid, 0)
        return int(word)

    async def register(self, ctx: SimulatorContext, name: str) -> int:
        return await self.access(ctx, LAYOUT.register(name))

    async def _host(self, ctx: SimulatorContext) -> None:
        self.event_cycles = dict.fromkeys(COUNTERS, 0)
        await self.access(ctx, LAYOUT.register("start_address"), self.start_address)
        await self.access(ctx, LAYOUT.register("control"), Control.START)
        for reads in range(5000):
            if reads == self.abort_after:
                await self.access(ctx, LAYOUT.register("control"), Control.ABORT)
            status, code = split_status(await self.register(ctx, "status"))
            if not status & Status.BUSY:
                self.outcomes.append((status, code, await self.register(ctx, "error_address")))
                return
            await ctx.tick().repeat(self.rng.randrange(1, 20))
        raise AssertionError("the sequencer hangs")

    async def _units(self, ctx: SimulatorContext) -> None:
        dut = self.dut
        units = {unit: FakeUnit(self.rng) for unit in EXECUTING}
        controls = {unit: getattr(dut, unit.name.lower()) for unit in EXECUTING}
        answer = None
        while not self.finished:
            answered, answer = answer, None
            ctx.set(dut.fetch.data_valid, answered is not None)
            # A word stays for one cycle only.
            ctx.set(dut.fetch.data, self.words[answered] if answered is not None and answered < len(self.words) else 0xA5A5A5A5)
            ctx.set(dut.fetch.ready, self.rng.random() < 0.7)
            happening = self.rng.choice([*EVENTS, None]) if ctx.get(dut.busy) and units[Unit.MATMUL].left is not None else None
            for name in EVENTS:
                ctx.set(getattr(dut, name), name == happening)
            for unit, control in controls.items():
                reporter, code = self.errors.get(self.cycle, (None, ErrorCode.NONE))
                ctx.set(control.done, units[unit].left == 0)
                ctx.set(control.busy, units[unit].busy)
                ctx.set(control.error, reporter is unit)
                if reporter is unit:
                    ctx.set(control.error_code, code)
                    units[unit].stopped, units[unit].left = True, None
            _, _, request, address, reset, *signals = await ctx.tick().sample(
                dut.fetch.valid & dut.fetch.ready,
                dut.fetch.address,
                dut.unit_reset,
                *(
                    signal
                    for control in controls.values()
                    for word in (control.words.payload,)
                    for signal in (control.words.valid, word.word, word.index, control.start, control.opcode)
                ),
            )
            if request:
                assert answered is None, "one word at a time"
                answer = address
            if happening:
                self.event_cycles[happening] += 1
            self.event_cycles["post_busy"] += units[Unit.POST].busy
            self.resets += reset
            for index, (unit, model) in enumerate(units.items()):
                pushed, word, word_index, start, opcode = signals[5 * index : 5 * index + 5]
                if pushed:
                    assert not model.busy, "a word for a busy unit"
                    if word_index == 0:
                        model.words.clear()
                    assert word_index == len(model.words)
                    model.words.append(word)
                if model.left == 0:
                    self.events.append(Event(self.cycle, unit, "done"))
                if start:
                    assert not model.busy
                    assert len(model.words) == len(INSTRUCTIONS[Opcode(opcode)].words)
                    self.events.append(Event(self.cycle, unit, "take", (opcode, *model.words)))
                model.step(bool(start), self.shortest, self.longest)
                if reset:
                    model.left, model.stopped = None, False
            self.cycle += 1


async def read_marks(bench: Bench, ctx: SimulatorContext) -> list[dict[str, int]]:
    count = min(await bench.register(ctx, "marks"), CONFIG.trace_marks)
    words = [await bench.access(ctx, index) for index in range(count * len(MARK_WORDS))]
    size = len(MARK_WORDS)
    return [dict(zip(MARK_WORDS, words[first : first + size], strict=True)) for first in range(0, len(words), size)]


def test_counters_begin_at_zero_wherever_the_scanner_is() -> None:
    rng = random.Random(5)
    program = random_program(rng, OPCODES, 6)
    bench = Bench(encode(program), 5)
    host = bench._host
    compared = []

    async def look(ctx: SimulatorContext) -> None:
        while bench.cycle % VISIT_CYCLES != 2 * len(compared):
            await ctx.tick()
        begin = bench.cycle
        await host(ctx)
        counters = {name: await bench.register(ctx, f"counter_{name}") for name in COUNTERS}
        assert 0 < counters["cycles"] < bench.cycle - begin, len(compared)
        for name in (*EVENTS, "post_busy"):
            assert counters[name] == bench.event_cycles[name], (name, len(compared))
        compared.append(counters)

    bench._host = look  # type: ignore[method-assign]  # the same, and then some
    bench.run(SCAN_LENGTH)
    assert len(compared) == SCAN_LENGTH


@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    program = random_program(rng, OPCODES, 40)
    bench = Bench(encode(program), seed)
    found: dict[str, object] = {}

    host = bench._host

    async def look(ctx: SimulatorContext) -> None:
        await host(ctx)
        found["counters"] = {name: await bench.register(ctx, f"counter_{name}") for name in COUNTERS}
        found["marks"] = await read_marks(bench, ctx)
        found["count"] = await bench.register(ctx, "marks")

    bench._host = look  # type: ignore[method-assign]  # the same, and then some
    assert bench.run() == (Status.DONE, ErrorCode.NONE, 0)
    addressed = list(zip(program, starts(program), strict=True))
    for unit in EXECUTING:
        mine = [item for item in program if item.definition.unit == unit]
        events = [event for event in bench.events if event.unit == unit]
        # In order, each with its words.
        assert [event.words for event in events if event.kind == "take"] == [(item.opcode, *item.encode()[1:]) for item in mine]
    check_tokens(program, bench.events)

    counters, marks = found["counters"], found["marks"]
    for name in (*EVENTS, "post_busy"):
        assert counters[name] == bench.event_cycles[name], name
    assert counters["wait_step"] == counters["cell_busy"] == 0
    assert counters["wait_token"] + sum(counters[name] for name in EVENTS) <= counters["cycles"] <= bench.cycle
    marked = [address for item, address in addressed if item.mark]
    assert found["count"] == len(marked)
    assert len(marks) == min(len(marked), CONFIG.trace_marks)
    addresses = {mark["address"] for mark in marks}
    assert len(addresses) == len(marks)
    assert addresses <= set(marked)
    for earlier, later in itertools.pairwise(marks):
        assert earlier["cycles"] < later["cycles"] <= counters["cycles"]
        assert all(earlier[name] <= later[name] <= counters[name] for name in COUNTERS)


def test_units_overlap() -> None:
    rng = random.Random(1)
    program = [operation(rng, opcode) for opcode in (Opcode.MATMUL, Opcode.VECTOR)] + [END]
    bench = Bench(encode(program))
    bench.shortest, bench.longest = 150, 200
    assert bench.run()[0] == Status.DONE
    first_done = min(event.cycle for event in bench.events if event.kind == "done")
    assert sum(event.kind == "take" and event.cycle < first_done for event in bench.events) == 2


def test_a_token_may_come_from_an_instruction_further_on() -> None:
    rng = random.Random(12)
    program = [operation(rng, Opcode.MATMUL, wait=(Unit.POST,)), operation(rng, Opcode.VECTOR, signal=(Unit.MATMUL,)), END]
    bench = Bench(encode(program))
    assert bench.run()[0] == Status.DONE
    done = next(event.cycle for event in bench.events if event.unit == Unit.POST and event.kind == "done")
    assert next(event.cycle for event in bench.events if event.unit == Unit.MATMUL) > done


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
        bench = Bench(encode(program), seed, longest=200)
        host = bench._host

        async def look(ctx: SimulatorContext, bench: Bench = bench, host: object = host) -> None:
            await host(ctx)  # type: ignore[operator]  # the bench's own
            waited.append(await bench.register(ctx, "counter_wait_token"))

        bench._host = look  # type: ignore[method-assign]
        assert bench.run()[0] == Status.DONE
        done = [next(e.cycle for e in bench.events if e.unit == unit and e.kind == "done") for unit in (Unit.POST, Unit.MATMUL)]
        # Account of a completion, the tokens of all four units, and a look at them.
        assert waited[-1] <= max(done[0] - done[1] + 20, 0)
    assert min(waited) == 0, "the token came while the unit was busy"
    assert max(waited) > 0


def test_tokens_start_at_zero() -> None:
    rng = random.Random(2)
    words = encode([operation(rng, Opcode.VECTOR, signal=(Unit.MATMUL,)) for _ in range(3)])
    # The tokens of the first run are gone in the second.
    bench = Bench(words + encode([operation(rng, Opcode.MATMUL, wait=(Unit.POST,)), END]))
    assert bench.run(runs=2)[0] == Status.DONE
    first, second = (event.cycle for event in bench.events if event.unit == Unit.MATMUL and event.kind == "take")
    gifts = [event.cycle for event in bench.events if event.unit == Unit.POST and event.kind == "done"]
    assert first > gifts[0]
    assert second > gifts[3]


@pytest.mark.parametrize("source", EXECUTING)
def test_a_token_is_taken_once(source: Unit) -> None:
    rng = random.Random(13)
    giver = Opcode.MATMUL if source is Unit.MATMUL else Opcode.TABLE
    taker = [operation(rng, Opcode.MATMUL, wait=(source,)) for _ in range(3)]
    program = [*(operation(rng, giver, signal=(Unit.MATMUL,)) for _ in range(2)), *taker, END]
    bench = Bench(encode(program))
    assert bench.run() == (Status.ERROR, ErrorCode.TIMEOUT, starts(program)[4])


def test_the_opcodes_are_those_of_the_instruction_set() -> None:
    assert opcodes_of(Unit.POST, CONFIG) == POST_OPCODES


@pytest.mark.parametrize("opcode", [0x33, Opcode.LSTM, 0x10 | 1, 0xFF])
def test_illegal_opcode_waits_for_what_came_before(opcode: int) -> None:
    rng = random.Random(3)
    words = encode([operation(rng, Opcode.MATMUL), operation(rng, Opcode.POST)])
    bench = Bench([*words, opcode])
    assert bench.run() == (Status.ERROR, ErrorCode.ILLEGAL_OPCODE, len(words))
    assert sum(event.kind == "done" for event in bench.events) == 2
    assert bench.resets == FLUSH_CYCLES >= RESET_CYCLES


@pytest.mark.parametrize("words", [0, 3])
def test_overrun(words: int) -> None:
    rng = random.Random(4)
    bench = Bench([0] * CONFIG.program_words)
    bench.start_address = CONFIG.program_words - words
    bench.words[CONFIG.program_words - words :] = operation(rng, Opcode.MATMUL).encode()[:words]
    assert bench.run() == (Status.ERROR, ErrorCode.PROGRAM_OVERRUN, CONFIG.program_words - words)


def test_a_start_outside_is_an_overrun_at_the_end() -> None:
    bench = Bench([0])
    bench.start_address = 0xFFFF_FFFF
    assert bench.run() == (Status.ERROR, ErrorCode.PROGRAM_OVERRUN, CONFIG.program_words)


def test_a_program_may_end_with_the_store() -> None:
    bench = Bench([0] * CONFIG.program_words)
    bench.start_address = CONFIG.program_words - 1
    assert bench.run() == (Status.DONE, ErrorCode.NONE, 0)


def test_unit_errors_name_their_instruction() -> None:
    rng = random.Random(5)
    program = [operation(rng, Opcode.VECTOR), operation(rng, Opcode.MATMUL), operation(rng, Opcode.MATMUL), END]
    for unit, code, address in (
        (Unit.MATMUL, ErrorCode.WEIGHT_ADDRESS, starts(program)[1]),
        (Unit.POST, ErrorCode.BAD_FIELD, starts(program)[0]),
    ):
        bench = Bench(encode(program), longest=None)
        bench.errors[300] = (unit, code)
        assert bench.run() == (Status.ERROR, code, address)


def test_restart_after_an_error() -> None:
    rng = random.Random(6)
    program = [operation(rng, Opcode.VECTOR), operation(rng, Opcode.MATMUL, mark=True), END]
    bench = Bench(encode(program), longest=None)
    bench.errors[300] = (Unit.POST, ErrorCode.ACTIVATION_ADDRESS)
    host = bench._host

    async def twice(ctx: SimulatorContext) -> None:
        await host(ctx)
        bench.errors.clear()
        bench.events.clear()
        bench.words = encode(random_program(random.Random(7), OPCODES, 12))
        bench.longest = 30
        await host(ctx)

    bench._host = twice  # type: ignore[method-assign]  # another script for the same bench
    assert bench.run()[:2] == (Status.DONE, ErrorCode.NONE)
    assert bench.outcomes[0] == (Status.ERROR, ErrorCode.ACTIVATION_ADDRESS, 0)
    assert sum(event.kind == "take" for event in bench.events) == 12


def test_watchdog_and_abort() -> None:
    rng = random.Random(7)
    program = [operation(rng, Opcode.POST), operation(rng, Opcode.MATMUL, wait=(Unit.LSTM,)), END]
    bench = Bench(encode(program))
    assert bench.run() == (Status.ERROR, ErrorCode.TIMEOUT, starts(program)[1])
    last = max(event.cycle for event in bench.events)
    assert bench.cycle > last + WATCHDOG
    bench = Bench(encode(program))
    bench.abort_after = 9
    assert bench.run()[:2] == (Status.ERROR, ErrorCode.ABORTED)
    assert bench.cycle < last + WATCHDOG


def test_end_waits_for_its_tokens() -> None:
    rng = random.Random(9)
    program = [operation(rng, Opcode.VECTOR), Operation(Opcode.END, {}, wait=(Unit.POST,))]
    assert Bench(encode(program)).run()[:2] == (Status.ERROR, ErrorCode.TIMEOUT)


def test_token_overflow() -> None:
    rng = random.Random(8)
    one = Operation(Opcode.TABLE, {}, signal=(Unit.LSTM,))
    bench = Bench(encode([one] * TOKEN_LIMIT + [operation(rng, Opcode.MATMUL, signal=(Unit.LSTM,)), one, END]), longest=1)
    assert bench.run() == (Status.ERROR, ErrorCode.TOKEN_OVERFLOW, 2 * TOKEN_LIMIT + 10)
