"""Predicted cycles: the compiler's model of the engine's time.

MATMUL: a pass over one tile takes ``max(positions, row_groups, SHORTEST_PASS)`` cycles: a position a cycle, but never faster than
the weights come or than the accumulators' pipeline allows. A job is a pass for each tile. POST: a job waits for its half, then
takes ``positions · columns / requantize_lanes`` cycles and a constant. VECTOR: one read a tap and operand, one write, each
``requantize_lanes`` wide. TABLE: one word of the weight memory a cycle. MATMUL and POST overlap; a half of the accumulators is
filled only when the job two before it has been drained.

LSTM: a job takes a cycle (five in the small cell) for each hidden unit and sequence, at least three for the accesses to the
activation memory; the array works on the next groups meanwhile. A time step begins only when the last hidden state of the step
before is written: it takes the longer of its array jobs and its cell jobs, and the latencies of array and cell once.

Conflicts for the memories' ports are not modelled: the model is a little optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence

from systola_firmware.config import Config
from systola_firmware.isa import Opcode, Operation, Unit

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
#: Fewest cycles of the LSTM cell for the units of a group: reads of cell states and preactivations, writes of both states.
CELL_ACCESSES = 3
#: Cycles from the last unit of a step into the LSTM cell to its hidden state in the memory.
CELL_LATENCY = 65
#: Cycles that the small LSTM cell takes for a hidden unit.
SERIAL_CELL_CYCLES = 5
TABLE_ENTRIES_BYTES = 1024


def array_cycles(passes: int, positions: int, config: Config) -> int:
    """Cycles of one MATMUL job: ``passes`` tiles over ``positions`` positions."""
    return passes * max(positions, config.row_groups, SHORTEST_PASS) + JOB_CYCLES


def drain_cycles(positions: int, config: Config) -> int:
    """Cycles of one POST job over ``positions`` positions."""
    return positions * (config.columns // config.requantize_lanes) + DRAIN_OVERHEAD


def cell_cycles(sequences: int, config: Config) -> int:
    """Cycles of one LSTM job over ``sequences`` sequences."""
    units = config.columns // 4
    cell = units * (SERIAL_CELL_CYCLES if config.lstm_serial else 1)
    return sequences * max(cell, config.columns // config.requantize_lanes, CELL_ACCESSES)


def array_latency(config: Config) -> int:
    """Cycles from the last activation read to the half being full."""
    return (config.row_groups + config.columns) * config.hop_registers + 8


def vector_cycles(operation: Operation) -> int:
    """Cycles of one VECTOR."""
    outputs = operation["y_count"] * operation["x_count"] * operation["group_count"]
    reads = operation["sources"] * operation["t0_count"] * operation["t1_count"]
    return outputs * max(reads, 1) + VECTOR_OVERHEAD


def predict(operations: Sequence[Operation], config: Config) -> list[int]:
    """Cycle at which each operation is complete, from START; both units run in order and meet in the accumulators and at tokens."""
    done: list[int] = []
    matmul_free = post_free = 0
    full: list[int] = []  # cycle at which each undrained job's half is full
    freed = [0, 0]  # cycle at which the halves of the last two drained jobs became free
    tokens: list[int] = []
    jobs = 0

    def drain(cycles: int, duration: int, held: int) -> None:
        """One job of the array and its drain, which keeps the half for the first ``held`` of its ``duration`` cycles."""
        nonlocal matmul_free, post_free, jobs
        matmul_free = max(matmul_free, freed[jobs % 2]) + cycles
        begin = max(post_free, matmul_free + array_latency(config))
        freed[jobs % 2] = begin + held
        post_free = begin + duration
        jobs += 1

    for operation in operations:
        match operation.opcode:
            case Opcode.MATMUL:
                if Unit.POST in operation.wait:
                    matmul_free = max(matmul_free, tokens.pop(0))
                matmul_free += INSTRUCTION_CYCLES
                passes = operation["k0_count"] * operation["k1_count"] * operation["k2_count"]
                cycles = array_cycles(passes, operation["x_count"] * operation["y_count"], config)
                # The POST that follows drains these jobs; both are walked together there.
                full = [cycles] * (operation["group_count"] * operation["block_count"])
                done.append(matmul_free)
            case Opcode.POST:
                post_free += INSTRUCTION_CYCLES
                duration = drain_cycles(operation["x_count"] * operation["y_count"], config)
                for cycles in full:
                    drain(cycles, duration, duration)
                done.append(post_free)
            case Opcode.LSTM:
                post_free += INSTRUCTION_CYCLES
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
                post_free += INSTRUCTION_CYCLES + vector_cycles(operation)
                done.append(post_free)
            case Opcode.TABLE:
                post_free += INSTRUCTION_CYCLES + operation["tables"] * TABLE_ENTRIES_BYTES // config.weight_word_bytes
                done.append(post_free)
            case Opcode.END:
                done.append(max(matmul_free, post_free))
        if Unit.MATMUL in operation.signal:
            tokens.append(done[-1])
    return done
