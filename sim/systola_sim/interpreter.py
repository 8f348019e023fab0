"""Executes programs on memory images: the meaning of the instruction set, in numpy, for N inferences at once.

Units overlap in hardware, and only tokens and the two accumulator halves order them. The interpreter is a small-step machine over
that freedom: a step dispatches the next instruction, runs one MATMUL job, or runs one POST job (or VECTOR, or TABLE). A sound
program gives the same answer whichever possible step is taken; :class:`Schedule` chooses between the two extremes, so that a
missing token gives a wrong answer here, every time, rather than now and then in hardware.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from systola_firmware.config import Config
from systola_firmware.isa import INSTRUCTIONS, TOKEN_LIMIT, ErrorCode, Opcode, Operation, Unit, decode
from systola_sim.datapath import (
    Memories,
    ProgramError,
    UnsoundProgramError,
    job_count,
    run_matmul_job,
    run_post_job,
    run_table,
    run_vector,
)

__all__ = ["Outcome", "Schedule", "UnsoundProgramError", "execute"]

Int8Array = npt.NDArray[np.int8]

#: Instructions a unit holds: one in execution, one waiting.
UNIT_INSTRUCTIONS = 2
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


class _Machine:
    """One run. Every ``_step`` method returns whether it could do anything."""

    def __init__(self, memories: Memories, words: Sequence[int], start: int) -> None:
        self.memories = memories
        self.words = words
        self.position = start
        self.done = False
        self.marks: list[int] = []
        self.tokens: Counter[tuple[Unit, Unit]] = Counter()  # (giver, taker)
        self.queues: dict[Unit, deque[tuple[int, Operation]]] = {Unit.MATMUL: deque(), Unit.POST: deque()}
        self.next_job = {Unit.MATMUL: 0, Unit.POST: 0}  # of the first instruction in each queue
        self.filled = 0  # halves handed over so far; the next job of MATMUL fills half `filled % 2`
        self.drained = 0

    def run(self, schedule: Schedule) -> None:
        steps = [self._step_matmul, self._step_post]
        if schedule is Schedule.POST_FIRST:
            steps.reverse()
        while not self.done:
            if not (self._dispatch() or steps[0]() or steps[1]()):
                raise _Stop(ErrorCode.TIMEOUT, self._blocked_address())

    def _blocked_address(self) -> int:
        """The oldest instruction that waits for ever."""
        return min([self.position, *(address for queue in self.queues.values() for address, _ in queue)])

    def _fetch(self) -> tuple[Operation, int]:
        if self.position >= len(self.words):
            raise _Stop(ErrorCode.PROGRAM_OVERRUN, self.position)
        try:
            length = INSTRUCTIONS[Opcode(self.words[self.position] & 0xFF)].length
        except ValueError:
            raise _Stop(ErrorCode.ILLEGAL_OPCODE, self.position) from None
        if self.position + length > len(self.words):
            raise _Stop(ErrorCode.PROGRAM_OVERRUN, self.position)
        return decode(self.words, self.position)

    def _dispatch(self) -> bool:
        """Hand the next instruction to its unit, in program order, once there is room and its tokens are there."""
        operation, following = self._fetch()
        unit = operation.definition.unit
        needed = [(giver, unit) for giver in operation.wait]
        if any(self.tokens[pair] == 0 for pair in needed):
            return False
        if unit is Unit.SEQUENCER:  # END
            if any(self.queues.values()):
                return False
            self._complete(self.position, operation)
            self.done = True
        else:
            if len(self.queues[unit]) == UNIT_INSTRUCTIONS:
                return False
            self.queues[unit].append((self.position, operation))
        self.tokens.subtract(needed)
        self.position = following
        return True

    def _complete(self, address: int, operation: Operation) -> None:
        for taker in operation.signal:
            pair = (operation.definition.unit, taker)
            self.tokens[pair] += 1
            if self.tokens[pair] > TOKEN_LIMIT:
                raise _Stop(ErrorCode.TOKEN_OVERFLOW, address)
        if operation.mark:
            self.marks.append(address)

    def _advance(self, unit: Unit, jobs: int) -> None:
        """One job of the unit's first instruction is done."""
        self.next_job[unit] += 1
        if self.next_job[unit] == jobs:
            self.next_job[unit] = 0
            self._complete(*self.queues[unit].popleft())

    def _step_matmul(self) -> bool:
        if not self.queues[Unit.MATMUL] or self.filled - self.drained == HALVES:
            return False
        address, operation = self.queues[Unit.MATMUL][0]
        try:
            jobs = job_count(operation)
            run_matmul_job(self.memories, operation, self.next_job[Unit.MATMUL], self.filled % HALVES)
        except ProgramError as error:
            raise _Stop(error.code, address) from None
        self.filled += 1
        self._advance(Unit.MATMUL, jobs)
        return True

    def _step_post(self) -> bool:
        if not self.queues[Unit.POST]:
            return False
        address, operation = self.queues[Unit.POST][0]
        jobs = 1
        try:
            if operation.opcode is Opcode.VECTOR:
                run_vector(self.memories, operation)
            elif operation.opcode is Opcode.TABLE:
                run_table(self.memories, operation)
            else:
                jobs = job_count(operation)
                if self.filled == self.drained:
                    return False
                run_post_job(self.memories, operation, self.next_job[Unit.POST], self.drained % HALVES)
                self.drained += 1
        except ProgramError as error:
            raise _Stop(error.code, address) from None
        self._advance(Unit.POST, jobs)
        return True


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
        int8, C-contiguous, ``(activation_bytes,)`` or ``(N, activation_bytes)`` for N inferences; changed in place. After an
        error its contents are those of some moment before the error.
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
