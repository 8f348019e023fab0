# amaranth: UnusedElaboratable=no
"""What the matmul units of both engines promise: the instruction's loops, under stalls on all ports, its errors, and
events that name the cause of a wait.

What only one of them does, and when, is in ``full/matmul/test_unit.py`` and ``compact/matmul/test_unit.py``.
"""

from __future__ import annotations

import functools
import random

import pytest
from support.benches.matmul_bench import CONFIGS, FULL, GOOD, Bench, broken, check, matmul, random_matmul
from support.benches.post_bench import describe
from support.programs.field_borders import borders

from systola_firmware.spec.isa import ErrorCode, Opcode

#: One shape of each engine.
ENGINES = ("8x4", "compact")


@functools.cache
def bench_of(name: str) -> Bench:
    return Bench(CONFIGS[name], len(name))


@pytest.mark.parametrize(
    ("name", "stalls"),
    [*((name, stalls) for name in FULL for stalls in (0, 0.4)), *(("compact", stalls) for stalls in (0, 0.1, 0.4))],
)
def test_random_instructions(name: str, stalls: float) -> None:
    bench = bench_of(name)
    rng = random.Random(f"{name} {stalls}")
    operations = [random_matmul(rng, bench.config) for _ in range(16 if bench.config.compact else 6)]
    pauses = (0, 0, 0, 1, 3, 9) if bench.config.compact else (0, 3, 60)
    outcome = bench.run(
        operations,
        competition=lambda: rng.random() < stalls,
        drain_pause=lambda: rng.choice(pauses) if stalls else 0,
        start_pause=lambda: rng.choice((0, 0, 0, 1, 3, 9)) if stalls else 0,
    )
    check(bench, operations, outcome)


@pytest.mark.parametrize("name", ["16x8", "compact"])
def test_depthwise_with_short_passes(name: str) -> None:
    """From one position a pass: a pause after a short pass covers stalls within it, too."""
    bench = bench_of(name)
    rng = random.Random(3)
    layers = [matmul(1, 2, 1, x=(count, 8), k0=(9, 24), group=(2, 8)) for count in (1, 2, 3, 4)]
    check(bench, layers, bench.run(layers, competition=lambda: rng.random() < 0.5))


@pytest.mark.parametrize(("name", "pause", "waits"), [("8x4", 200, 200), ("compact", 60, 500)])
def test_events_name_the_cause(name: str, pause: int, waits: int) -> None:
    """Four halves of 32 vectors, two of which the accumulators hold; then other clients that take the memories for 100
    cycles."""
    bench = bench_of(name)
    layer = matmul(0, 0, x=(8, 8), k0=(4, 8), block=(4, 0))
    outcome = bench.run([layer], drain_pause=lambda: pause)
    check(bench, [layer], outcome)
    assert len(outcome.events["wait_post"]) > waits
    blocked = iter([False] * 50 * bench.clients + [True] * 100 * bench.clients)
    outcome = bench.run([layer], competition=lambda: next(blocked, False))
    check(bench, [layer], outcome)
    assert len(outcome.events["wait_activations"]) in range(95, 102)


#: Changes of :data:`GOOD`, what an engine says to them, and the vectors that it has read by then.
ERRORS = [
    ({"x_count": 11, "y_count": 3}, ErrorCode.BAD_FIELD, 0),  # 33 of 32
    ({"x_count": 33}, ErrorCode.BAD_FIELD, 0),
    ({"x_count": 64}, ErrorCode.BAD_FIELD, 0),
    ({"y_count": 2048}, ErrorCode.BAD_FIELD, 0),
    ({"x_count": 4095, "y_count": 4095}, ErrorCode.BAD_FIELD, 0),
    ({"source": 1024}, ErrorCode.ACTIVATION_ADDRESS, 0),
    ({"source": (1 << 20) - 1}, ErrorCode.ACTIVATION_ADDRESS, 0),
    ({"source": 1000, "x_count": 4}, ErrorCode.ACTIVATION_ADDRESS, 3),
    ({"source": 15, "x_step": -8}, ErrorCode.ACTIVATION_ADDRESS, 2),
    ({"y_count": 2, "y_step": -(1 << 19)}, ErrorCode.ACTIVATION_ADDRESS, 3),
    ({"k0_step": (1 << 19) - 1}, ErrorCode.ACTIVATION_ADDRESS, 3),
    ({"weights": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS, 0),
]


def errors(name: str) -> list[object]:
    """Rows of the table for an engine, with those that depend on its sizes."""
    config = CONFIGS[name]
    words, second = config.weight_words, config.weight_words - 2 * config.tile_words + 1  # the second tile's last word
    table = [
        *((changes, ErrorCode.BAD_FIELD, 0) for changes, legal in borders(Opcode.MATMUL, config) if not legal),
        *ERRORS,
        ({"weights": words}, ErrorCode.WEIGHT_ADDRESS, 0),
        ({"weights": second}, ErrorCode.WEIGHT_ADDRESS, 3),
        ({"weights": second, "source": 2000}, ErrorCode.ACTIVATION_ADDRESS, 0),
        ({"weights": words, "source": 2000}, ErrorCode.WEIGHT_ADDRESS, 0),
    ]
    return [pytest.param(name, *row, id="-".join((name, *map(describe, row[:2])))) for row in table]


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(("name", "changes", "code", "vectors"), [row for name in ENGINES for row in errors(name)])
def test_errors(name: str, changes: dict[str, int], code: ErrorCode, vectors: int, before: int) -> None:
    """The error is reported once, after the instructions before; no vector is read after it; after a reset the unit is
    as new."""
    bench = bench_of(name)
    outcome = bench.run([GOOD] * before + [broken(GOOD, changes), GOOD], fails=before)
    assert outcome.errors == [(code, before)]
    outcome.errors.clear()
    busy = outcome.events["array_busy"]
    assert len(busy) == 6 * before + vectors + 6
    del busy[6 * before : -6]
    check(bench, [GOOD] * (before + 1), outcome)


@pytest.mark.parametrize("name", ENGINES)
def test_exact_limits_are_no_errors(name: str) -> None:
    config = CONFIGS[name]
    bench = bench_of(name)
    last = config.weight_words - config.tile_words
    operations = [
        matmul(0, 0, x=(32, 1)),
        matmul(0, 0, y=(32, 1)),
        matmul(1023, last, x=(8, -1), y=(4, -100)),
        matmul(1023, config.weight_words - 2, 1, x=(1, 0), k0=(2, -1023)),
        matmul(1020, last, x=(1, 0), block=(5, -7)),
    ]
    check(bench, operations, bench.run(operations))


@pytest.mark.parametrize("name", ENGINES)
def test_blocks_of_the_last_tile(name: str) -> None:
    """A loader may stand at the end of its memory when a block's first item already waits: that is no error."""
    config = CONFIGS[name]
    bench = bench_of(name)
    blocked = iter([True] * 100 * bench.clients)
    operations = [matmul(0, config.weight_words - config.tile_words, block=(5, 7))]
    check(bench, operations, bench.run(operations, competition=lambda: next(blocked, False)))
