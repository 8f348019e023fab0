"""Order of the instructions, tokens and marks.

Order ----- A layer on the array is ``MATMUL, fills, TABLE of the next layer, POST, MATMUL, POST, …``: the border fills of its
output and the tables that the next layer needs run on the POST unit while the array works on the first job. A layer of VECTORs is
``fills, TABLE, VECTOR, …``. The instructions of layer i stand before those of layer i + 1 (but for TABLE, which touches no
activations).

Why one kind of token is enough ------------------------------- Call a buffer *live* in the layers from its producer to its last
reader, both inclusive; buffers that are live in a common layer do not overlap (``allocation.py``). Layer i writes only its
output, and reads only its inputs; all of them are live in layer i. A fill of layer i writes layer i's output too.

1. *Read after write.* VECTOR and POST run in order on one unit, so only MATMUL can read too early. The first MATMUL of a layer
   waits for a token that the last instruction writing its input signals, unless an earlier MATMUL has waited for that instruction
   or a later one; MATMULs are in order, so all later ones are covered. Signals are given in program order, waits are taken in
   program order, each signal has exactly one wait, and the instruction waited for grows strictly from wait to wait: so the n-th
   wait takes the n-th signal. The producer's fills stand before its last instruction and are complete as well.
2. *Write after read.* Can a POST-unit instruction W of layer i overwrite what a MATMUL M of layer j still reads or has yet to
   read? If M's POST stands before W in the program, M has been drained and so has read everything. Otherwise j >= i. If j == i, W
   writes layer i's output and M reads its input; both are live in layer i. If j > i, M reads a buffer T. Either T was produced
   before layer i (or is an input or constant): then it is live from there to layer j, so in layer i too, and does not overlap i's
   output. Or T is the output of layer i or of a later one: then M has waited for T's last writer, which is W or an instruction
   after W. So W is complete before M starts.
3. *Write after write.* Only the POST unit writes, in order. A MATMUL fills a half of the accumulators only after it was drained.
4. *In place.* A VECTOR that overwrites its own operand reads each byte before it writes it (ISA). Earlier MATMULs that read the
   operand have been drained, by 2; later ones do not exist, since the operand is read last here.

No deadlock: every wait is for an instruction that stands earlier in the program. ``tests/firmware/test_schedule.py`` checks the
same by brute force: for every pair of a MATMUL and a POST-unit instruction that the hardware may overlap, the bytes are disjoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from systola_firmware.isa import Opcode, Operation, Unit
from systola_firmware.lowering import Lowered


@dataclass(frozen=True)
class Scheduled:
    """A complete program. ``layers[i]`` is the range of positions in ``operations`` of layer i; ``mark`` of it the number of its
    mark or −1."""

    operations: tuple[Operation, ...]
    layers: tuple[range, ...]
    marks: tuple[int, ...]


def _ordered(layers: Sequence[Lowered]) -> list[list[Operation]]:
    """Instructions of every layer in order, tables placed as early as is safe."""
    active = [index for index, lowered in enumerate(layers) if lowered.body]
    following = dict(itertools.pairwise(active))
    loaded: Operation | None = None  # what the tables hold at this point of the program
    result: list[list[Operation]] = []
    for index, lowered in enumerate(layers):
        loads: list[Operation] = []

        def load(tables: Operation | None, into: list[Operation]) -> None:
            nonlocal loaded
            if tables is not None and tables != loaded:
                into.append(tables)
                loaded = tables

        if not lowered.body:
            result.append([])
        elif lowered.uses_array:
            if index in following:
                load(layers[following[index]].tables, loads)
            result.append([lowered.body[0], *lowered.fills, *loads, *lowered.body[1:]])
        else:
            load(lowered.tables, loads)
            result.append([*loads, *lowered.fills, *lowered.body])
    return result


def schedule(layers: Sequence[Lowered]) -> Scheduled:
    """Put the instructions of all layers in order, add tokens, marks and END."""
    operations: list[Operation] = []
    ranges: list[range] = []
    marks: list[int] = []
    writers: dict[str, int] = {}  # buffer -> position of the last instruction that writes it
    waited = -1  # position of the latest POST-unit instruction that a MATMUL has waited for
    count = 0
    for lowered, own in zip(layers, _ordered(layers), strict=True):
        first = len(operations)
        operations += own
        ranges.append(range(first, len(operations)))
        marks.append(count if own else -1)
        if not own:
            continue
        count += 1
        operations[-1] = replace(operations[-1], mark=True)
        producer = max((writers.get(buffer, -1) for buffer in lowered.reads), default=-1)
        if producer > waited:
            operations[producer] = replace(operations[producer], signal=(Unit.MATMUL,))
            operations[first] = replace(operations[first], wait=(Unit.POST,))
            waited = producer
        writers[lowered.writes] = len(operations) - 1
    operations.append(Operation(Opcode.END, {}))
    return Scheduled(tuple(operations), tuple(ranges), tuple(marks))
