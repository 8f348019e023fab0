"""Predicted cycles: the compiler's model of the engine's time.

MATMUL: a pass over one tile takes ``max(positions, row_groups, SHORTEST_PASS)`` cycles: a position a cycle, but never
faster than the weights arrive or than the accumulators' pipeline allows. A job is a pass for each tile. POST: a job
waits for its half, then takes ``positions · columns / requantize_lanes`` cycles and a constant. VECTOR: one read a tap
and operand, one write, each ``requantize_lanes`` wide. TABLE: one word of the weight memory a cycle. MATMUL and POST
overlap; a half of the accumulators is filled only when the job two before it has been drained.

LSTM: a job takes a cycle (five in the small cell) for each hidden unit and sequence, at least three for the accesses to
the activation memory; the array works on the next groups meanwhile. A time step begins only when the last hidden state
of the step before is written: it takes the longer of its array jobs and its cell jobs, and the latencies of array and
cell once.

Conflicts for the memories' ports are not modelled: the model is a little optimistic.

The compact engine has a model of its own: a row of ``x_count`` positions takes at least :data:`COMPACT_ROW` cycles, a
pass :data:`COMPACT_PASS`; every word that POST writes takes a cycle from the array, as the activation memory has one
port, and every second drain another. POST makes an output in two cycles, and an instruction is handed out a word every
two cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, Opcode, Operation, Unit

#: Fewest cycles between two passes over the same accumulator.
SHORTEST_PASS = 4
#: Cycles from handing an instruction out to its first action.
INSTRUCTION_CYCLES = 12
#: Cycles of a MATMUL job beside its passes: change of half, start of the next nest.
JOB_CYCLES = 1
#: Cycles of a POST job beside its positions: parameters, pipeline, hand-over.
DRAIN_OVERHEAD = 20
#: Cycles of a VECTOR's pipeline.
VECTOR_OVERHEAD = 24
#: Fewest cycles of the LSTM cell for the units of a group: reads of cell states and preactivations, writes of both
#: states.
CELL_ACCESSES = 3
#: Cycles from the last unit of a step into the LSTM cell to its hidden state in the memory.
CELL_LATENCY = 65
#: Cycles that the small LSTM cell takes for a hidden unit.
SERIAL_CELL_CYCLES = 5
TABLE_ENTRIES_BYTES = 1024

#: Compact engine: fewest cycles of a row, and of a pass.
COMPACT_ROW, COMPACT_PASS = 4, 5
#: Cycles of a job beside its passes, and of a POST job beside its outputs.
COMPACT_JOB, COMPACT_DRAIN = 3, 15
#: Cycles of an output.
COMPACT_OUTPUT = 2
#: Cycles of an instruction without payload, and to write a mark.
COMPACT_INSTRUCTION, COMPACT_MARK = 18, 30
#: Cycles from ``start`` to a MATMUL's first vector, and from its last to the half being full.
COMPACT_START, COMPACT_LATENCY = 15, 10
#: Cycles of a VECTOR's output with one operand, with two, for each operand with tables, and beside the taps of a
#: window.
COMPACT_ONE, COMPACT_TWO, COMPACT_ENTRY, COMPACT_WINDOW = 2, 3, 8, 11


def instruction_cycles(opcode: Opcode, config: Config) -> int:
    """Cycles from the turn of an instruction to its first action."""
    if not config.compact:
        return INSTRUCTION_CYCLES
    cycles = COMPACT_INSTRUCTION + 2 * len(INSTRUCTIONS[opcode].words)
    return cycles + COMPACT_START if opcode is Opcode.MATMUL else cycles


def pair_cycles(config: Config) -> int:
    """Cycles of a MATMUL and its POST beside their jobs; the compact engine hands out one after the other."""
    both = (Opcode.MATMUL, Opcode.POST) if config.compact else (Opcode.MATMUL,)
    return sum(instruction_cycles(opcode, config) for opcode in both)


def array_cycles(passes: int, positions: int, config: Config, *, row: int | None = None) -> int:
    """Cycles of one MATMUL job: ``passes`` tiles over ``positions`` positions, in rows of ``row``, by default of
    all."""
    if not config.compact:
        return passes * max(positions, config.row_groups, SHORTEST_PASS) + JOB_CYCLES
    row = row or positions
    return passes * max(positions // row * max(row, COMPACT_ROW), COMPACT_PASS) + positions * 3 // 2 + COMPACT_JOB


def drain_cycles(positions: int, config: Config) -> int:
    """Cycles of one POST job over ``positions`` positions."""
    if config.compact:
        return positions * config.columns * COMPACT_OUTPUT + COMPACT_DRAIN
    return positions * (config.columns // config.requantize_lanes) + DRAIN_OVERHEAD


def cell_cycles(sequences: int, config: Config) -> int:
    """Cycles of one LSTM job over ``sequences`` sequences."""
    units = config.columns // 4
    cell = units * (SERIAL_CELL_CYCLES if config.lstm_serial else 1)
    return sequences * max(cell, config.columns // config.requantize_lanes, CELL_ACCESSES)


def array_latency(config: Config) -> int:
    """Cycles from the last activation read to the half being full."""
    if config.compact:
        return COMPACT_LATENCY
    return (config.row_groups + config.columns) * config.hop_registers + 14


def vector_cycles(operation: Operation, config: Config) -> int:
    """Cycles of one VECTOR."""
    outputs = operation["y_count"] * operation["x_count"] * operation["group_count"]
    taps = operation["t0_count"] * operation["t1_count"]
    if not config.compact:
        return outputs * max(operation["sources"] * taps, 1) + VECTOR_OVERHEAD
    if operation["sources"] == 0:
        # A fill of contiguous bytes writes a word a cycle, any other a byte.
        return outputs // (config.rows if operation["group_step"] == 1 else 1) + VECTOR_OVERHEAD
    if operation["table"]:
        return outputs * operation["sources"] * taps * COMPACT_ENTRY + VECTOR_OVERHEAD
    if taps == 1:
        return outputs * (COMPACT_ONE if operation["sources"] == 1 else COMPACT_TWO) + VECTOR_OVERHEAD
    return outputs * (taps + COMPACT_WINDOW) + VECTOR_OVERHEAD


def table_cycles(operation: Operation, config: Config) -> int:
    """Cycles of one TABLE: the compact engine leaves the entries where they are."""
    return 0 if config.compact else operation["tables"] * TABLE_ENTRIES_BYTES // config.weight_word_bytes


def predict(operations: Sequence[Operation], config: Config) -> list[int]:
    """Cycle at which each operation is complete, from START; both units run in order and meet in the accumulators and
    at tokens."""
    done: list[int] = []
    matmul_free = post_free = 0
    full: list[int] = []  # cycle at which each undrained job's half is full
    freed = [0, 0]  # cycle at which the halves of the last two drained jobs became free
    tokens: list[int] = []
    jobs = 0

    def drain(cycles: int, duration: int, held: int) -> None:
        """One job of the array and its drain, which keeps the half for the first ``held`` of its ``duration``
        cycles."""
        nonlocal matmul_free, post_free, jobs
        matmul_free = max(matmul_free, freed[jobs % 2]) + cycles
        begin = max(post_free, matmul_free + array_latency(config))
        freed[jobs % 2] = begin + held
        post_free = begin + duration
        jobs += 1

    for operation in operations:
        begin = instruction_cycles(operation.opcode, config)
        match operation.opcode:
            case Opcode.MATMUL:
                if Unit.POST in operation.wait:
                    matmul_free = max(matmul_free, tokens.pop(0))
                matmul_free += begin
                passes = operation["k0_count"] * operation["k1_count"] * operation["k2_count"]
                positions = operation["x_count"] * operation["y_count"]
                cycles = array_cycles(passes, positions, config, row=operation["x_count"])
                # The POST that follows drains these jobs; the times of both are computed there.
                full = [cycles] * (operation["group_count"] * operation["block_count"])
                done.append(matmul_free)
            case Opcode.POST:
                post_free += begin
                duration = drain_cycles(operation["x_count"] * operation["y_count"], config)
                for cycles in full:
                    drain(cycles, duration, duration)
                done.append(post_free)
            case Opcode.LSTM:
                post_free += begin
                duration = cell_cycles(operation["x_count"], config)
                # The gates wait for the cell in a queue of their own, not in the accumulators.
                held = min(duration, operation["x_count"] * (config.columns // config.requantize_lanes))
                steps, groups = operation["block_count"], operation["group_count"]
                for step in range(min(steps, 2)):
                    matmul_free = max(matmul_free, post_free) if step else matmul_free
                    before = post_free
                    for cycles in full[:groups]:
                        drain(cycles, duration, held)
                    post_free += CELL_LATENCY
                # Every step but the first begins with idle units, so all take as long as the second.
                rest = max(steps - 2, 0) * (post_free - before)
                post_free += rest
                matmul_free += rest
                done.append(post_free)
            case Opcode.VECTOR:
                post_free += begin + vector_cycles(operation, config)
                done.append(post_free)
            case Opcode.TABLE:
                post_free += begin + table_cycles(operation, config)
                done.append(post_free)
            case Opcode.END:
                done.append(max(matmul_free, post_free))
            case _:
                assert_never(operation.opcode)
        if config.compact and operation.mark:
            done[-1] += COMPACT_MARK
        if Unit.MATMUL in operation.signal:
            tokens.append(done[-1])
    return done
