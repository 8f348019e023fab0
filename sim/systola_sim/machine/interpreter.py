"""Executes programs on memory images: the meaning of the instruction set, in numpy, for N inferences at once.

Units overlap in hardware, and only tokens and the two accumulator halves order them. The interpreter works in small
steps, and any order of steps that these allow is possible: a step dispatches the next instruction, runs one MATMUL job,
or one POST or LSTM job (or VECTOR, or TABLE). A sound program gives the same answer whichever possible step is taken;
:class:`Schedule` chooses between the two extremes, so that a missing token gives a wrong answer here, every time,
rather than now and then in hardware.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Operation, Unit, decode, opcodes_of
from systola_sim.machine.datapath import (
    Memories,
    ProgramError,
    UnsoundProgramError,
    job_count,
    run_matmul_job,
    run_post_job,
    run_table,
    run_vector,
)
from systola_sim.machine.lstm_datapath import run_lstm_job
from systola_sim.machine.rules import breaks_a_rule

__all__ = ["Outcome", "Schedule", "UnsoundProgramError", "execute"]

Int8Array = npt.NDArray[np.int8]

#: Most instructions that a unit has taken, with their tokens, and not completed. One more may wait in front of each
#: unit.
IN_FLIGHT = 2
#: Halves of the accumulators.
HALVES = 2


class Schedule(enum.Enum):
    """Which unit goes first when both can."""

    MATMUL_FIRST = "matmul first"  #: reads as early as tokens allow: shows a POST → MATMUL token that is missing
    POST_FIRST = "post first"  #: writes as early as possible: shows outputs written over inputs still to be read


@dataclass(frozen=True)
class Outcome:
    """How a program ended: ``error`` is NONE after END, else ``address`` is the instruction that stopped it.

    ``marks`` holds the addresses of the marked instructions in the order they completed.
    """

    error: ErrorCode
    address: int
    marks: tuple[int, ...]


class _Stop(Exception):
    def __init__(self, code: ErrorCode, address: int) -> None:
        super().__init__(code, address)
        self.code = code
        self.address = address


@dataclass
class _UnitState:
    """State of a unit: the instruction that waits to be taken, and those in flight, each with its address."""

    waiting: tuple[int, Operation] | None = None
    flight: deque[tuple[int, Operation]] = field(default_factory=deque)
    next_job: int = 0  #: number of the next job of the oldest instruction in flight

    @property
    def active(self) -> bool:
        return bool(self.flight) or self.waiting is not None

    @property
    def oldest(self) -> int:
        """Address of the oldest instruction not completed."""
        return self.flight[0][0] if self.flight else self.waiting[0] if self.waiting else -1


class _Machine:
    """One run. Every ``_step`` method returns whether it could do anything."""

    def __init__(self, memories: Memories, words: Sequence[int], start: int) -> None:
        self.memories = memories
        self.words = words
        self.position = start
        self.decoded: dict[int, tuple[Operation, int]] = {}
        self.done = False
        self.marks: list[int] = []
        self.tokens: Counter[tuple[Unit, Unit]] = Counter()  # (giver, taker)
        self.units = {Unit.MATMUL: _UnitState(), Unit.POST: _UnitState()}
        self.filled = 0  # halves handed over so far; the next job of MATMUL fills half `filled % 2`
        self.drained = 0
        self.state_written = 0  # value of `drained` when LSTM last finished a block

    def run(self, schedule: Schedule) -> None:
        first, second = (Unit.MATMUL, Unit.POST) if schedule is Schedule.MATMUL_FIRST else (Unit.POST, Unit.MATMUL)
        while not self.done:
            if not (self._step_fetch() or self._step_take() or self._step_unit(first) or self._step_unit(second)):
                raise _Stop(ErrorCode.TIMEOUT, self._stuck_address())

    def _stuck_address(self) -> int:
        """The oldest instruction of the first unit that has one, else the one being fetched."""
        return next((unit.oldest for unit in self.units.values() if unit.active), self.position)

    def _take_tokens(self, operation: Operation) -> bool:
        """Take the tokens that ``operation`` waits for, if all are there."""
        needed = [(giver, operation.definition.unit) for giver in operation.wait]
        if any(self.tokens[pair] == 0 for pair in needed):
            return False
        self.tokens.subtract(needed)
        return True

    def _step_fetch(self) -> bool:
        """Hand the next instruction to its unit. An END, or a word that is no instruction, waits until all before it is
        complete."""
        idle = not any(unit.active for unit in self.units.values())
        try:
            operation, following = self._fetch()
        except _Stop:
            if idle:
                raise
            return False
        if operation.opcode is Opcode.END:
            if not idle or not self._take_tokens(operation):
                return False
            self._complete(self.position, operation)
            self.done = True
            return True
        unit = self.units[operation.definition.unit]
        if unit.waiting:
            return False
        unit.waiting = self.position, operation
        self.position = following
        return True

    def _fetch(self) -> tuple[Operation, int]:
        if self.position >= len(self.words):
            raise _Stop(ErrorCode.PROGRAM_OVERRUN, self.position)
        try:
            length = INSTRUCTIONS[Opcode(self.words[self.position] & 0xFF)].length
        except ValueError:
            raise _Stop(ErrorCode.ILLEGAL_OPCODE, self.position) from None
        if self.position + length > len(self.words):
            raise _Stop(ErrorCode.PROGRAM_OVERRUN, self.position)
        if self.position not in self.decoded:  # an instruction is fetched again at every step until its unit has room
            self.decoded[self.position] = decode(self.words, self.position)
        return self.decoded[self.position]

    def _step_take(self) -> bool:
        """A unit takes the instruction that waits for it, with its tokens."""
        for unit in self.units.values():
            if unit.waiting and len(unit.flight) < IN_FLIGHT and self._take_tokens(unit.waiting[1]):
                unit.flight.append(unit.waiting)
                unit.waiting = None
                return True
        return False

    def _complete(self, address: int, operation: Operation) -> None:
        for taker in operation.signal:
            pair = (operation.definition.unit, taker)
            self.tokens[pair] += 1
            if self.tokens[pair] > TOKEN_LIMIT:
                raise _Stop(ErrorCode.TOKEN_OVERFLOW, address)
        if operation.mark:
            self.marks.append(address)

    def _step_unit(self, name: Unit) -> bool:
        """One job of the unit's oldest instruction."""
        unit = self.units[name]
        if not unit.flight:
            return False
        address, operation = unit.flight[0]
        if unit.next_job == 0:
            self._check(address, operation)
        try:
            jobs = self._run_job(operation, unit.next_job)
        except ProgramError as error:
            raise _Stop(error.code, address) from None
        if jobs == 0:
            return False
        unit.next_job += 1
        if unit.next_job == jobs:
            unit.next_job = 0
            unit.flight.popleft()
            self._complete(address, operation)
        return True

    def _check(self, address: int, operation: Operation) -> None:
        """What a unit checks before it begins an instruction."""
        if operation.opcode not in opcodes_of(operation.definition.unit, self.memories.config):
            raise _Stop(ErrorCode.ILLEGAL_OPCODE, address)
        if breaks_a_rule(self.memories.config, operation):
            raise _Stop(ErrorCode.BAD_FIELD, address)

    def _run_job(self, operation: Operation, job: int) -> int:
        """Run a job and return how many its instruction has; 0 if this one must wait for an accumulator half."""
        match operation.opcode:
            case Opcode.VECTOR:
                run_vector(self.memories, operation)
                return 1
            case Opcode.TABLE:
                run_table(self.memories, operation)
                return 1
            case Opcode.MATMUL:
                if self.filled - self.drained == HALVES or self._awaits_state(operation, job):
                    return 0
                run_matmul_job(self.memories, operation, job, self.filled % HALVES)
                self.filled += 1
                return job_count(operation)
            case Opcode.POST | Opcode.LSTM:
                if self.filled == self.drained:
                    return 0
                run = run_lstm_job if operation.opcode is Opcode.LSTM else run_post_job
                run(self.memories, operation, job, self.drained % HALVES)
                self.drained += 1
                if operation.opcode is Opcode.LSTM and (job + 1) % operation["group_count"] == 0:
                    self.state_written = self.drained
                return job_count(operation)
            case Opcode.END:
                raise ValueError("END is the sequencer's, not a unit's")
            case _:
                assert_never(operation.opcode)

    def _awaits_state(self, operation: Operation, job: int) -> bool:
        """Whether this MATMUL job begins a time step, and LSTM has not written the hidden state of the one before."""
        block, group = divmod(job, operation["group_count"])
        return bool(operation["recurrent"]) and block > 0 and group == 0 and self.state_written < self.filled


def execute(
    config: Config,
    words: Sequence[int] | npt.NDArray[np.uint32],
    activation: Int8Array,
    weights: Int8Array,
    *,
    start: int = 0,
    schedule: Schedule = Schedule.MATMUL_FIRST,
) -> Outcome:
    """Run a program from one START to END or to an error.

    Parameters
    ----------
    config:
        Engine.
    words:
        Program store from address 0. Running past its end is PROGRAM_OVERRUN.
    activation:
        int8, C-contiguous, ``(activation_bytes,)`` or ``(N, activation_bytes)`` for N inferences; changed in place.
        After an error its contents are those of some moment before the error.
    weights:
        int8 ``(weight_bytes,)``, read only.
    start:
        Address of the first instruction.
    schedule:
        See :class:`Schedule`.

    Raises
    ------
    ValueError
        If a memory has another size or type than ``config`` says.
    UnsoundProgramError
        If the program does what the instruction set leaves undefined.
    """
    batch = activation[np.newaxis] if activation.ndim == 1 else activation
    machine = _Machine(Memories(config, batch, weights), [int(word) for word in words], start)
    try:
        machine.run(schedule)
    except _Stop as stop:
        return Outcome(stop.code, stop.address, tuple(machine.marks))
    return Outcome(ErrorCode.NONE, 0, tuple(machine.marks))
