"""Tokens, marks and order; and, by brute force over bytes, that nothing the hardware may overlap can collide."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from support.graphs.lstm_graphs import lstm_graph, random_lstm_graph
from support.graphs.random_graphs import random_graph

from systola_firmware.compiler import compile_graph
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode, Operation, Unit, decode_program
from systola_firmware.spec.presets import preset
from systola_firmware.spec.program import Program

CONFIGS = [preset(name) for name in ("tiny-4x4", "ulx3s-85f")]


def operations_of(program: Program) -> list[Operation]:
    return [operation for _, operation in decode_program(program.words.tolist())]


def nest(operation: Operation, base: str, loops: dict[str, str]) -> np.ndarray:
    """All addresses of a loop nest: ``loops`` maps a count field to a step field."""
    addresses = np.array([operation[base]])
    for count, step in loops.items():
        addresses = (addresses[:, None] + np.arange(operation[count]) * operation[step]).ravel()
    return addresses


def reads_of(operation: Operation, weights: bytes, config: Config) -> set[int]:
    """Bytes a MATMUL reads that meet a weight other than zero."""
    names = [f"k{i}" for i in (2, 1, 0)]
    passes = int(np.prod([operation[f"{name}_count"] for name in names]))
    starts = nest(operation, "source", {f"{n}_count": f"{n}_step" for n in ("group", *names)})
    starts = starts.reshape(operation["group_count"], passes)
    positions = nest(operation, "source", {f"{n}_count": f"{n}_step" for n in ("block", "y", "x")}) - operation["source"]
    image = np.frombuffer(weights, np.int8)
    base = operation["weights"] * config.weight_word_bytes
    result: set[int] = set()
    for group, tile in np.ndindex(starts.shape):
        n = group * passes + tile
        if operation["diagonal"]:
            row = image[base + n * config.columns :][: config.columns]
            lanes = np.flatnonzero(row)
        else:
            size = config.rows * config.columns
            lanes = np.flatnonzero(image[base + n * size :][:size].reshape(config.rows, config.columns).any(axis=1))
        result.update((starts[group, tile] + positions[:, None] + lanes).ravel().tolist())
    return result


def writes_of(operation: Operation, config: Config) -> set[int]:
    """Bytes a POST-unit instruction writes."""
    if operation.opcode is Opcode.LSTM:
        units = (operation["group_count"] - 1) * (config.columns // 4) + operation["last_units"]
        hidden = nest(operation, "hidden", {"block_count": "block_step", "x_count": "x_step"})
        cells = nest(operation, "cell", {"x_count": "x_step_cell"})
        return {*(hidden[:, None] + np.arange(units)).ravel().tolist(), *(cells[:, None] + np.arange(2 * units)).ravel().tolist()}
    if operation.opcode is Opcode.POST:
        width = 2 if operation["wide"] else 1
        loops, lanes, last = ("block", "y", "x"), width * config.columns, width * operation["last_columns"]
        steps = {f"{n}_count": f"{n}_step" for n in loops}
    elif operation.opcode is Opcode.VECTOR:
        lanes, last = config.requantize_lanes, operation["last_lanes"]
        steps = {"y_count": "y_step_out", "x_count": "x_step_out"}
    else:
        assert operation.opcode is Opcode.TABLE, f"what {operation.opcode.name} writes is not known here"
        return set()
    positions = nest(operation, "destination", steps)
    run = np.concatenate(
        [
            g * operation["group_step"] + np.arange(last if g == operation["group_count"] - 1 else lanes)
            for g in range(operation["group_count"])
        ]
    )
    return set((positions[:, None] + run).ravel().tolist())


def overlapping(operations: list[Operation]) -> Iterator[tuple[int, int]]:
    """Positions of every MATMUL and POST-unit instruction that neither tokens nor the accumulators put in order.

    The n-th MATMUL is drained by the n-th POST or LSTM. While that runs, its own MATMUL may still be reading for later
    jobs. An LSTM and its recurrent MATMUL are left out: they go step by step (``test_lstm.py``).
    """
    matmuls = [i for i, o in enumerate(operations) if o.opcode is Opcode.MATMUL]
    posts = [i for i, o in enumerate(operations) if o.opcode in {Opcode.POST, Opcode.LSTM}]
    unit = [i for i, o in enumerate(operations) if o.definition.unit is Unit.POST]
    signals = iter([i for i in unit if Unit.MATMUL in operations[i].signal])
    known = -1
    for matmul, post in zip(matmuls, posts, strict=True):
        if Unit.POST in operations[matmul].wait:
            known = next(signals)
            assert known < matmul, "a wait for something later in the program never ends"
        last = post - 1 if operations[post].opcode is Opcode.LSTM else post
        yield from ((matmul, other) for other in unit if known < other <= last)
    assert next(signals, None) is None, "a token that nobody takes"


def check_overlaps(program: Program, config: Config) -> int:
    """How many pairs may overlap; none shares a byte."""
    operations = operations_of(program)
    reads = {i: reads_of(o, program.weights, config) for i, o in enumerate(operations) if o.opcode is Opcode.MATMUL}
    writes = {i: writes_of(o, config) for i, o in enumerate(operations) if o.definition.unit is Unit.POST}
    checked = 0
    for matmul, other in overlapping(operations):
        assert reads[matmul].isdisjoint(writes[other]), f"{program.model}: {matmul} reads what {other} writes"
        checked += 1
    return checked


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_overlapping_instructions_never_share_bytes(config: Config) -> None:
    assert sum(check_overlaps(compile_graph(random_graph(seed, layers=8), config), config) for seed in range(60)) > 300


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("stateful", [False, True])
def test_overlapping_instructions_of_recurrent_layers_never_share_bytes(config: Config, stateful: bool) -> None:
    """Random graphs, time cut into intervals, and batches cut into parts."""
    programs = [(compile_graph(random_lstm_graph(seed), config, stateful=stateful), config) for seed in range(30)]
    for time_major in (False, True):
        tight = config.replace(activation_bytes=1536)
        cut = compile_graph(
            lstm_graph(1, steps=30, features=8, hidden=8, layers=2, time_major=time_major), tight, stateful=stateful
        )
        assert sum(o.opcode is Opcode.LSTM for o in operations_of(cut)) > 2
        shallow = config.replace(accumulator_depth=16)
        parts = compile_graph(lstm_graph(2, batch=37, steps=3, hidden=2, time_major=time_major), shallow, stateful=stateful)
        programs += [(cut, tight), (parts, shallow)]
    assert sum(check_overlaps(program, own) for program, own in programs) > 100


def test_waits_and_signals_pair_up_and_marks_are_in_order() -> None:
    waits = 0
    for seed, config in itertools.product(range(40), CONFIGS):
        program = compile_graph(random_graph(seed), config)
        operations = decode_program(program.words.tolist())
        assert operations[-1][1].opcode is Opcode.END
        assert operations[-1][0] + 1 == len(program.words)
        given = [i for i, (_, o) in enumerate(operations) if o.signal]
        taken = [i for i, (_, o) in enumerate(operations) if o.wait]
        assert len(given) == len(taken)
        assert all(g < t for g, t in zip(given, taken, strict=True))
        waits += len(taken)
        marked = [address for address, o in operations if o.mark]
        records = [record for record in program.layers if record.mark >= 0]
        assert [record.mark for record in records] == list(range(len(marked)))
        for record, address in zip(records, marked, strict=True):
            last = next(o for a, o in operations if a == address)
            assert address + last.definition.length == record.end
            assert last.definition.unit is Unit.POST
        assert all(a.end == b.first for a, b in itertools.pairwise(program.layers))
    assert waits > 20


def test_fills_and_tables_stand_before_the_post_they_hide_behind() -> None:
    seen_fill = seen_table = False
    for seed in range(80):
        operations = operations_of(compile_graph(random_graph(seed, layers=8), CONFIGS[1]))
        for before, after in itertools.pairwise(operations):
            if before.opcode is Opcode.MATMUL:
                seen_table |= after.opcode is Opcode.TABLE
                seen_fill |= after.opcode is Opcode.VECTOR
                if after.opcode is Opcode.VECTOR:
                    assert after["sources"] == 0
    assert seen_fill
    assert seen_table


def test_tables_loaded_are_those_that_the_next_vector_needs() -> None:
    """Every VECTOR with a table finds a TABLE before it with enough tables, and no TABLE goes unused."""
    for seed in range(80):
        unused = False
        tables = 0
        for operation in operations_of(compile_graph(random_graph(seed, layers=8), CONFIGS[1])):
            if operation.opcode is Opcode.TABLE:
                assert not unused
                unused, tables = True, operation["tables"]
            elif operation.opcode is Opcode.VECTOR and operation["table"]:
                assert tables >= operation["sources"]
                unused = False
        assert not unused
