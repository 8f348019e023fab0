"""Order of the instructions, tokens and marks.

**Order.** A stage on the array is ``MATMUL, fills, TABLE of the next stage, POST, MATMUL, POST, …``: the fills of the
layer, for borders and initial states, and the tables that the next stage needs run on the POST unit while the array
works on the first job. A stage of VECTORs is ``TABLE, fills, VECTOR, …``. Most layers are one stage, an LSTM is two or
more. The instructions of layer i stand before those of layer i + 1 (but for TABLE, which touches no activations).

**Why one kind of token is enough.** Call a buffer *live* in the layers from its producer to its last reader, both
inclusive; buffers that are live in a common layer do not overlap (``allocation.py``). Layer i writes only its output
and, if it is an LSTM, its input part, cells and kept state; it reads only these and its inputs; all of them are live in
layer i. A fill of layer i writes layer i's output (or cells) too. MATMULs read inputs and an LSTM's hidden states,
which are its output; never an input part, cells or kept states, which only the POST unit touches, in order. LSTM is a
POST-unit instruction.

1. *Read after write.* VECTOR, POST and LSTM run in order on one unit, so only MATMUL can read too early. The first
   MATMUL of a stage waits for a token that the last instruction writing what it reads signals, unless an earlier MATMUL
   has waited for that instruction or a later one; MATMULs are in order, so all later ones are covered. Signals are
   given in program order, waits are taken in program order, each signal has exactly one wait, and the instruction
   waited for grows strictly from wait to wait: so the n-th wait takes the n-th signal. The producer's fills stand
   before its last instruction and are complete as well. A recurrent MATMUL waits so for its first time step: for the
   fills that write the initial state, or for the LSTM of the interval of time before. Every later step waits for its
   own LSTM by itself (ISA).
2. *Write after read.* Can a POST-unit instruction W of layer i overwrite what a MATMUL M of layer j still reads or has
   yet to read? If M's POST or LSTM stands before W in the program, M has been drained and so has read everything.
   Otherwise j >= i. If j > i, M reads a buffer T. Either T was produced before layer i (or is an input or constant):
   then it is live from there to layer j, so in layer i too, and does not overlap what i writes. Or T is the output of
   layer i or of a later one: then M has waited for T's last writer, which is W or an instruction after W. So W is
   complete before M starts. If j == i and M reads the layer's input, input and whatever W writes are both live in layer
   i. If M is recurrent and reads hidden states: W is not an instruction that M has waited for or one before it, and as
   M is not drained it is not later than M's own LSTM; what is left is the POST of the input part, an LSTM of the same
   steps for other sequences, and M's own. The POST writes the input part. LSTMs for other sequences write and M reads
   other rows. M's own LSTM, in its step t, writes the hidden states of step t, while M reads those of step t - 1, or of
   t when all of them are written. Initial states do not get in the way: those of the first sequences are in front of
   the output, others where the sequence before has its last step, and nothing of step 1 or later begins before
   step 0 has read them; a recurrence over one step has all of them in front.
3. *Write after write.* Only the POST unit writes, in order. A MATMUL fills a half of the accumulators only after it was
   drained.
4. *In place.* A VECTOR that overwrites its own operand reads each byte before it writes it (ISA). Earlier MATMULs that
   read the operand have been drained, by 2; later ones do not exist, since the operand is read last here.

**No deadlock.** Every wait is for an instruction that stands earlier in the program, and every step of a recurrence for
the step before. ``tests/firmware/lowering/test_schedule.py`` and ``test_lstm.py`` check the same by brute force: for
every pair of a MATMUL and a POST-unit instruction that the hardware may overlap, the bytes are disjoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from systola_firmware.lowering.stage import Lowered, Stage
from systola_firmware.spec.isa import Opcode, Operation, Unit


@dataclass(frozen=True)
class Scheduled:
    """A complete program. ``layers[i]`` is the range of positions in ``operations`` of layer i; ``marks[i]`` the number
    of the mark at its end, or −1."""

    operations: tuple[Operation, ...]
    layers: tuple[range, ...]
    marks: tuple[int, ...]


def _ordered(stages: Sequence[Stage]) -> list[list[Operation]]:
    """Instructions of every stage in order, tables placed as early as is safe."""
    loaded: Operation | None = None  # what the tables hold at this point of the program
    result: list[list[Operation]] = []
    for stage, following in itertools.zip_longest(stages, stages[1:]):
        loads: list[Operation] = []
        own = following if stage.uses_array else stage
        if own is not None and own.tables is not None and own.tables != loaded:
            loaded = own.tables
            loads = [loaded]
        if stage.uses_array:
            result.append([stage.body[0], *stage.fills, *loads, *stage.body[1:]])
        else:
            result.append([*loads, *stage.fills, *stage.body])
    return result


def schedule(layers: Sequence[Lowered], trace_marks: int) -> Scheduled:
    """Put the instructions of all layers in order, add tokens, marks and END.

    The last instruction of a layer has a mark, and so has that of a stage which asks for one, if all marks fit the
    trace memory's ``trace_marks``.
    """
    stages = [stage for lowered in layers for stage in lowered.stages]
    last = [stage is lowered.stages[-1] for lowered in layers for stage in lowered.stages]
    marked = [end or stage.mark for stage, end in zip(stages, last, strict=True)]
    if sum(marked) > trace_marks:
        marked = last
    ordered = iter(zip(stages, _ordered(stages), marked, strict=True))

    operations: list[Operation] = []
    ranges: list[range] = []
    marks: list[int] = []
    writers: dict[str, int] = {}  # buffer -> position of the last instruction that writes it
    waited = -1  # position of the latest POST-unit instruction that a MATMUL has waited for
    count = 0
    for lowered in layers:
        start = len(operations)
        for stage, own, mark in itertools.islice(ordered, len(lowered.stages)):
            first = len(operations)
            operations += own
            producer = max((writers.get(buffer, -1) for buffer in stage.reads), default=-1)
            if producer > waited:
                operations[producer] = replace(operations[producer], signal=(Unit.MATMUL,))
                operations[first] = replace(operations[first], wait=(Unit.POST,))
                waited = producer
            if mark:
                operations[-1] = replace(operations[-1], mark=True)
                count += 1
            writers |= dict.fromkeys(stage.prepares, first + len(stage.fills))
            writers |= dict.fromkeys(stage.writes, len(operations) - 1)
        ranges.append(range(start, len(operations)))
        marks.append(count - 1 if lowered.stages else -1)
    operations.append(Operation(Opcode.END, {}))
    return Scheduled(tuple(operations), tuple(ranges), tuple(marks))
