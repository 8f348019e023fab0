"""Random programs for a sequencer, and what must hold of the order in which it starts their instructions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from systola_firmware.spec.isa import INSTRUCTIONS, Opcode, Operation, Unit
from systola_hdl.full.control.tokens import EXECUTING


@dataclass
class Event:
    """What a unit did in a cycle."""

    cycle: int
    unit: Unit
    kind: str  #: "take", "done" or "mark"
    words: tuple[int, ...] = ()  #: opcode and payload
    address: int = 0


def operation(rng: random.Random, opcode: Opcode, **control: Any) -> Operation:
    """An instruction of random fields."""
    fields = {item.name: rng.randint(item.minimum, item.maximum) for item in INSTRUCTIONS[opcode].fields.values()}
    return Operation(opcode, fields, **control)


def random_program(rng: random.Random, opcodes: Sequence[Opcode], length: int) -> list[Operation]:
    """Every token that is waited for has been given by an instruction before, so the program ends."""
    tokens: Counter[tuple[Unit, Unit]] = Counter()
    program = []
    for _ in range(length):
        opcode = rng.choice(opcodes)
        unit = INSTRUCTIONS[opcode].unit
        wait = tuple(source for source in EXECUTING if tokens[source, unit] and rng.random() < 0.6)
        signal = tuple(target for target in Unit if rng.random() < 0.3)
        for source in wait:
            tokens[source, unit] -= 1
        for target in signal:
            tokens[unit, target] += 1
        program.append(operation(rng, opcode, wait=wait, signal=signal, mark=rng.random() < 0.6))
    final = tuple(unit for unit in EXECUTING if tokens[unit, Unit.SEQUENCER])
    return [*program, Operation(Opcode.END, {}, wait=final, mark=rng.random() < 0.5)]


def encode(program: Sequence[Operation]) -> list[int]:
    """Its words."""
    return [word for item in program for word in item.encode()]


def starts(program: Sequence[Operation]) -> list[int]:
    """Address of each instruction."""
    addresses, position = [], 0
    for item in program:
        addresses.append(position)
        position += item.definition.length
    return addresses


def check_tokens(program: Sequence[Operation], events: Sequence[Event]) -> None:
    """Replay: a token is there from the cycle after it was given, and nobody takes one that is not."""
    tokens: Counter[tuple[Unit, Unit]] = Counter()
    queues = {unit: iter([item for item in program if item.definition.unit == unit]) for unit in EXECUTING}
    executing: dict[Unit, list[Operation]] = {unit: [] for unit in EXECUTING}
    # Within a cycle, takes come before gifts.
    for event in sorted((event for event in events if event.kind != "mark"), key=lambda event: (event.cycle, event.kind == "done")):
        if event.kind == "take":
            item = next(queues[event.unit])
            executing[event.unit].append(item)
            for source in item.wait:
                tokens[source, event.unit] -= 1
                assert tokens[source, event.unit] >= 0
        else:
            for target in executing[event.unit].pop(0).signal:
                tokens[event.unit, target] += 1
