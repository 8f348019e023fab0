"""The interpreter against the instruction set's loop nests written out in plain Python, and its order of events and
errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, Rounding, Unit, encode_program
from systola_firmware.spec.presets import PRESETS
from systola_sim.golden.requantize import requantize, wrap32
from systola_sim.machine.interpreter import Outcome, Schedule, UnsoundProgramError, execute

CONFIGS = [PRESETS[name] for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]
SMALL = PRESETS["tiny-4x4"]
END = Operation(Opcode.END, {})
ONE = {"multiplier": 1 << 30, "shift": 1, "minimum": -128, "maximum": 127}  # a factor of exactly 1
LOOPS = {
    Opcode.MATMUL: ("x", "y", "k0", "k1", "k2", "group", "block"),
    Opcode.POST: ("x", "y", "group", "block"),
    Opcode.VECTOR: ("t0", "t1", "group", "x", "y"),
}


def operation(
    opcode: Opcode, *, wait: tuple[Unit, ...] = (), signal: tuple[Unit, ...] = (), mark: bool = False, **fields: Any
) -> Operation:
    """An operation whose loops run once unless told otherwise; a loop is ``(count, step)``."""
    values = {f"{loop}_count": 1 for loop in LOOPS.get(opcode, ())}
    for name, value in fields.items():
        if isinstance(value, tuple):
            values[f"{name}_count"], values[f"{name}_step"] = value
        else:
            values[name] = int(value)
    return Operation(opcode, values, wait, signal, mark)


def memories(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random activation and weight memories with many extreme bytes."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(-128, 128, size, dtype=np.int8) for size in (config.activation_bytes, config.weight_bytes)]
    for image in images:
        image[rng.random(image.size) < 0.2] = -128
    return images[0], images[1]


def run(config: Config, operations: list[Operation], activation: np.ndarray, weights: np.ndarray, **options: Any) -> Outcome:
    return execute(config, encode_program(operations), activation, weights, **options)


# The loop nests of isa.py, word for word.


def naive_finish(op: Operation, value: int, multiplier: int, shift: int) -> int:
    value = int(requantize(value, multiplier, shift, Rounding(op["rounding"])))
    return min(max(value + op["zero_point"], op["minimum"]), op["maximum"])


def naive_matmul_post(config: Config, mm: Operation, post: Operation, activation: np.ndarray, weights: np.ndarray) -> None:
    R, word = config.weight_rows_per_cycle, config.weight_word_bytes
    tiles = mm["k0_count"] * mm["k1_count"] * mm["k2_count"]
    for block, group in itertools.product(range(mm["block_count"]), range(mm["group_count"])):
        accumulator = np.zeros((mm["y_count"] * mm["x_count"], config.columns), dtype=np.int64)
        for tile, (k2, k1, k0) in enumerate(itertools.product(*(range(mm[f"{k}_count"]) for k in ("k2", "k1", "k0")))):
            n = group * tiles + tile
            W = np.zeros((config.rows, config.columns), dtype=np.int64)
            for r, c in itertools.product(range(config.rows), range(config.columns)):
                if mm["diagonal"]:
                    if r == c:
                        W[r, c] = weights[(mm["weights"] + n // R) * word + (n % R) * config.columns + c]
                else:
                    W[r, c] = weights[(mm["weights"] + n * config.rows // R + r // R) * word + (r % R) * config.columns + c]
            for y, x in itertools.product(range(mm["y_count"]), range(mm["x_count"])):
                a = mm["source"] + block * mm["block_step"] + group * mm["group_step"] + k2 * mm["k2_step"] + k1 * mm["k1_step"]
                a += k0 * mm["k0_step"] + y * mm["y_step"] + x * mm["x_step"]
                lanes = activation[(a + np.arange(config.rows)) % config.activation_bytes].astype(np.int64)
                accumulator[y * mm["x_count"] + x] += lanes @ W
        P = 2 * 4 // R + 1 if post["per_channel"] else 4 // R
        base = (post["parameters"] + group * P) * word
        last = group == post["group_count"] - 1
        for y, x in itertools.product(range(post["y_count"]), range(post["x_count"])):
            for c in range(post["last_columns"] if last else config.columns):
                bias = int(weights[base + 4 * c : base + 4 * c + 4].view("<i4")[0])
                multiplier, shift = post["multiplier"], post["shift"]
                if post["per_channel"]:
                    at = base + 4 * (config.columns + c)
                    multiplier, shift = int(weights[at : at + 4].view("<i4")[0]), int(weights[base + 8 * config.columns + c])
                v = int(wrap32(int(accumulator[y * post["x_count"] + x, c]) + bias))
                to = post["destination"] + block * post["block_step"] + group * post["group_step"]
                to += y * post["y_step"] + x * post["x_step"] + (2 * c if post["wide"] else c)
                if post["wide"]:
                    value = int(requantize(v, multiplier, shift, Rounding(post["rounding"])))
                    activation[to : to + 2] = np.array([min(max(value, -32768), 32767)], dtype="<i2").view(np.int8)
                    continue
                activation[to] = naive_finish(post, v, multiplier, shift)


def naive_vector(config: Config, op: Operation, activation: np.ndarray, tables: np.ndarray) -> None:
    before = activation.copy()
    for y, x, group in itertools.product(range(op["y_count"]), range(op["x_count"]), range(op["group_count"])):
        for lane in range(op["last_lanes"] if group == op["group_count"] - 1 else config.requantize_lanes):
            at = group * op["group_step"] + lane
            taps = []
            if op["sources"] >= 1:
                base = op["source"] + y * op["y_step"] + x * op["x_step"] + at
                steps = itertools.product(range(op["t1_count"]), range(op["t0_count"]))
                taps += [(0, before[base + t1 * op["t1_step"] + t0 * op["t0_step"]]) for t1, t0 in steps]
            if op["sources"] == 2:
                taps.append((1, before[op["source1"] + y * op["y_step1"] + x * op["x_step1"] + at]))
            v = -128 if op["combine"] else 0
            for which, e in taps:
                value = int(tables[which, int(e) & 0xFF]) if op["table"] else int(e)
                v = max(v, value) if op["combine"] else int(wrap32(v + value))
            v = int(wrap32(v + op["bias"]))
            to = op["destination"] + y * op["y_step_out"] + x * op["x_step_out"] + at
            if op["requantize"]:
                activation[to] = naive_finish(op, v, op["multiplier"], op["shift"])
            else:
                activation[to] = min(max(v + op["zero_point"], op["minimum"]), op["maximum"])


def random_layer(config: Config, rng: np.random.Generator, weights: np.ndarray) -> tuple[Operation, Operation]:
    """MATMUL and POST from the lower half of the activation memory to the upper; parameters are written into
    ``weights``."""

    def loop(limit: int, step: int) -> tuple[int, int]:
        return int(rng.integers(1, limit + 1)), int(rng.integers(-step, step + 1))

    x, y, group, block = loop(5, 40), loop(3, 60), loop(3, 50), loop(2, 200)
    k0, k1, k2 = loop(3, 30), loop(2, 60), loop(2, 60)
    parameters = config.weight_words // 2
    last = int(rng.integers(1, config.columns + 1))
    per_channel = bool(rng.integers(2))
    words = config.channel_parameter_words if per_channel else config.bias_words
    for index in range(group[0]):
        at = (parameters + index * words) * config.weight_word_bytes
        weights[at : at + 4 * config.columns] = rng.integers(-50000, 50000, config.columns).astype("<i4").view(np.int8)
        if per_channel:
            multipliers = rng.integers(1 << 30, 1 << 31, config.columns).astype("<i4").view(np.int8)
            shifts = rng.integers(-12, -6, config.columns).astype(np.int8)
            weights[at + 4 * config.columns :][: 5 * config.columns] = np.concatenate([multipliers, shifts])
    if rng.integers(4) == 0:  # an extreme bias, so that the accumulator wraps
        at = parameters * config.weight_word_bytes
        weights[at : at + 4] = np.array([rng.choice([-(1 << 31), (1 << 31) - 1])], dtype="<i4").view(np.int8)
    wide = int(rng.integers(2))
    pitch = group[0] * config.columns * (1 + wide) + int(rng.integers(0, 4))
    common = {"x": x, "y": y, "group": group, "block": block}
    matmul = operation(
        Opcode.MATMUL,
        source=config.activation_bytes // 4,
        diagonal=rng.integers(2),
        weights=rng.integers(0, 50),
        k0=k0,
        k1=k1,
        k2=k2,
        **common,
    )
    post = operation(
        Opcode.POST,
        destination=config.activation_bytes // 2,
        last_columns=last,
        per_channel=per_channel,
        rounding=rng.integers(3),
        wide=wide,
        x=(x[0], pitch),
        y=(y[0], pitch * x[0]),
        group=(group[0], config.columns * (1 + wide)),
        block=(block[0], pitch * x[0] * y[0]),
        parameters=parameters,
        zero_point=rng.integers(-20, 20),
        minimum=rng.integers(-128, -60),
        maximum=rng.integers(60, 128),
        shift=rng.integers(-12, -6) + 6 * wide,
        multiplier=rng.integers(1 << 30, 1 << 31),
    )
    return matmul, post


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_matmul_and_post_follow_their_loop_nests(config: Config, schedule: Schedule) -> None:
    for seed in range(10):
        activation, weights = memories(config, seed)
        matmul, post = random_layer(config, np.random.default_rng(seed), weights)
        expected = activation.copy()
        naive_matmul_post(config, matmul, post, expected, weights)
        assert not np.array_equal(expected, activation)
        outcome = run(config, [matmul, post, END], activation, weights, schedule=schedule)
        assert outcome == Outcome(ErrorCode.NONE, 0, ())
        np.testing.assert_array_equal(activation, expected)


def test_lanes_wrap_at_the_end_of_the_memory() -> None:
    activation, weights = memories(SMALL, 1)
    weights[1024:1040] = 0
    expected = activation.copy()
    matmul = operation(Opcode.MATMUL, source=SMALL.activation_bytes - 2)
    post = operation(
        Opcode.POST, destination=64, last_columns=4, parameters=256, multiplier=1 << 30, shift=-8, minimum=-128, maximum=127
    )
    naive_matmul_post(SMALL, matmul, post, expected, weights)
    assert run(SMALL, [matmul, post, END], activation, weights).error is ErrorCode.NONE
    np.testing.assert_array_equal(activation, expected)


def test_long_sums_are_exact() -> None:
    """127² is odd, and so many of them make odd sums beyond the 24 bits of a float32."""
    config, lanes = SMALL, 8192
    activation = np.full(config.activation_bytes, 127, dtype=np.int8)
    weights = np.full(config.weight_bytes, -127, dtype=np.int8)
    weights[: config.columns] = 2
    parameters = config.weight_words - 64
    total = 2 * 127 - (lanes - 1) * 127**2
    weights[-64 * config.weight_word_bytes :][:16] = np.full(4, -total + 7, dtype="<i4").view(np.int8)
    matmul = operation(Opcode.MATMUL, k0=(lanes // config.rows, config.rows))
    post = operation(Opcode.POST, destination=9000, last_columns=4, parameters=parameters, **ONE)
    assert run(config, [matmul, post, END], activation, weights).error is ErrorCode.NONE
    assert activation[8999:9005].tolist() == [127, 7, 7, 7, 7, 127]


def random_vector(config: Config, rng: np.random.Generator) -> Operation:
    def loop(limit: int, step: int) -> tuple[int, int]:
        return int(rng.integers(1, limit + 1)), int(rng.integers(-step, step + 1))

    sources = int(rng.integers(0, 3))
    x, y = loop(4, 50), loop(3, 50)
    group = (int(rng.integers(1, 4)), config.requantize_lanes)
    pitch = group[0] * config.requantize_lanes + int(rng.integers(0, 3))
    table, maximum = bool(rng.integers(2)), bool(rng.integers(2)) and sources > 0
    taps = {"t0": loop(3, 20), "t1": loop(3, 20)} if sources == 1 else {}
    return operation(
        Opcode.VECTOR,
        source=config.activation_bytes // 4,
        source1=config.activation_bytes // 3,
        destination=config.activation_bytes // 2,
        sources=sources,
        combine=maximum,
        table=table,
        requantize=rng.integers(2),
        rounding=rng.integers(3),
        last_lanes=rng.integers(1, config.requantize_lanes + 1),
        group=group,
        x=x,
        y=y,
        x_step1=rng.integers(-30, 30),
        y_step1=rng.integers(-30, 30),
        x_step_out=pitch,
        y_step_out=pitch * x[0],
        zero_point=rng.integers(-20, 20),
        minimum=rng.integers(-128, -60),
        maximum=rng.integers(60, 128),
        shift=rng.integers(-6, 2),
        multiplier=rng.integers(1 << 30, 1 << 31),
        bias=0 if maximum else rng.integers(-200, 200),
        **taps,
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_table_and_vector_follow_their_loop_nests(config: Config) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        activation, weights = memories(config, seed)
        vector = random_vector(config, rng)
        low = -128 if vector["combine"] else -(1 << 31)
        tables = rng.integers(low, 500 if rng.integers(2) else (1 << 31) - 1, (2, 256)).astype("<i4")
        weights[160 * config.weight_word_bytes :][:2048] = tables.reshape(-1).view(np.int8)
        expected = activation.copy()
        naive_vector(config, vector, expected, tables)
        outcome = run(config, [operation(Opcode.TABLE, source=160, tables=2), vector, END], activation, weights)
        assert outcome.error is ErrorCode.NONE
        np.testing.assert_array_equal(activation, expected)


def test_one_table_leaves_the_other() -> None:
    activation, weights = np.zeros(SMALL.activation_bytes, np.int8), np.zeros(SMALL.weight_bytes, np.int8)
    weights[:2048].view("<i4")[:] = np.repeat([3, 5], 256)
    weights[2048:3072].view("<i4")[:] = 11
    load = [operation(Opcode.TABLE, source=0, tables=2), operation(Opcode.TABLE, source=512, tables=1)]
    add = operation(Opcode.VECTOR, source=0, source1=8, destination=16, sources=2, table=1, last_lanes=1, **ONE)
    run(SMALL, [*load, add, END], activation, weights)
    assert activation[15:18].tolist() == [0, 16, 0]


def test_a_batch_is_so_many_single_runs() -> None:
    config = PRESETS["ulx3s-85f"]
    _, weights = memories(config, 3)
    matmul, post = random_layer(config, np.random.default_rng(3), weights)
    program = [matmul, post, random_vector(config, np.random.default_rng(4)), END]
    batch = np.stack([memories(config, 10 + index)[0] for index in range(5)])
    singles = batch.copy()
    assert run(config, program, batch, weights).error is ErrorCode.NONE
    for single in singles:
        run(config, program, single, weights)
    np.testing.assert_array_equal(batch, singles)


# Order of events. Two layers of one position each: bytes 0..3 → 16..19 → 32..35, each times the identity.


def chain(wait: tuple[Unit, ...] = (), signal: tuple[Unit, ...] = ()) -> list[Operation]:
    def post(destination: int, **tokens: tuple[Unit, ...]) -> Operation:
        return operation(Opcode.POST, destination=destination, last_columns=4, parameters=64, **ONE, **tokens)

    return [
        operation(Opcode.MATMUL, source=0),
        post(16, signal=signal),
        operation(Opcode.MATMUL, source=16, wait=wait),
        post(32),
        END,
    ]


def identity_memories() -> tuple[np.ndarray, np.ndarray]:
    activation, weights = np.zeros(SMALL.activation_bytes, np.int8), np.zeros(SMALL.weight_bytes, np.int8)
    activation[:4] = [1, -2, 3, -4]
    weights[:16] = np.eye(4, dtype=np.int8).reshape(-1)
    return activation, weights


def test_a_token_orders_two_layers_and_its_absence_shows() -> None:
    ordered, racing = chain((Unit.POST,), (Unit.MATMUL,)), chain()
    for program, expected in ((ordered, [1, -2, 3, -4]), (racing, [0, 0, 0, 0])):
        activation, weights = identity_memories()
        assert run(SMALL, program, activation, weights).error is ErrorCode.NONE
        assert activation[32:36].tolist() == expected


def test_a_token_is_used_up() -> None:
    fill = operation(Opcode.VECTOR, **FILL.fields, signal=(Unit.POST,))
    again = operation(Opcode.VECTOR, **FILL.fields, wait=(Unit.POST,))
    activation, weights = identity_memories()
    assert run(SMALL, [fill, again, END], activation, weights).error is ErrorCode.NONE
    assert run(SMALL, [fill, again, again, END], activation, weights).error is ErrorCode.TIMEOUT


def test_outputs_over_inputs_still_to_be_read_show() -> None:
    """Four blocks in place, each reading the bytes that the one before wrote."""
    blocks = (4, 2)
    results = []
    for schedule in Schedule:
        activation, weights = identity_memories()
        matmul = operation(Opcode.MATMUL, source=0, block=blocks)
        post = operation(Opcode.POST, destination=4, block=blocks, last_columns=4, parameters=64, **ONE)
        run(SMALL, [matmul, post, END], activation, weights, schedule=schedule)
        results.append(activation[:16].tolist())
    assert results[0] != results[1]


def test_matmul_is_two_halves_ahead_at_most() -> None:
    """Three jobs; the third may only start when the first half is free, by when the first output is in memory."""
    activation, weights = identity_memories()
    matmul = operation(Opcode.MATMUL, source=0, block=(3, 8))
    post = operation(Opcode.POST, destination=8, block=(3, 8), last_columns=4, parameters=64, **ONE)
    run(SMALL, [matmul, post, END], activation, weights)
    # Job 1 reads 8..11 before job 0 has written them; job 2 reads 16..19, written by nobody yet.
    assert activation[:28:4].tolist() == [1, 0, 1, 0, 0, 0, 0]


def test_marks_come_in_order_of_completion() -> None:
    activation, weights = identity_memories()
    program = [
        operation(o.opcode, **o.fields, wait=o.wait, signal=o.signal, mark=True) for o in chain((Unit.POST,), (Unit.MATMUL,))
    ]
    lengths = [o.definition.length for o in program]
    addresses = tuple(itertools.accumulate([0, *lengths[:-1]]))
    assert run(SMALL, program, activation, weights).marks == addresses


FILL = operation(Opcode.VECTOR, destination=16, last_lanes=1, bias=5, minimum=-128, maximum=127)
LAST = SMALL.activation_bytes


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (operation(Opcode.VECTOR, **{**FILL.fields, "destination": LAST}), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.VECTOR, **FILL.fields, x=(3, 0)), ErrorCode.NONE),
        (operation(Opcode.VECTOR, **{**FILL.fields, "y_count": 2, "y_step_out": -17}), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.VECTOR, **FILL.fields, sources=1, source=LAST), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.VECTOR, **FILL.fields, sources=2, source1=LAST), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.MATMUL, source=LAST), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.MATMUL, k0=(2, -1)), ErrorCode.ACTIVATION_ADDRESS),
        (operation(Opcode.MATMUL, weights=SMALL.weight_words - 3), ErrorCode.WEIGHT_ADDRESS),
        (operation(Opcode.MATMUL, weights=SMALL.weight_words - 4, k0=(2, 0)), ErrorCode.WEIGHT_ADDRESS),
        (operation(Opcode.TABLE, source=SMALL.weight_words - 255, tables=1), ErrorCode.WEIGHT_ADDRESS),
        (operation(Opcode.TABLE, tables=0), ErrorCode.BAD_FIELD),
        (operation(Opcode.TABLE, tables=3), ErrorCode.BAD_FIELD),
        (operation(Opcode.MATMUL, x=(13, 0), y=(5, 0)), ErrorCode.BAD_FIELD),
        *((operation(Opcode.MATMUL, **{loop: (0, 0)}), ErrorCode.BAD_FIELD) for loop in LOOPS[Opcode.MATMUL]),
        *((operation(Opcode.VECTOR, **FILL.fields, **{loop: (0, 0)}), ErrorCode.BAD_FIELD) for loop in LOOPS[Opcode.VECTOR]),
        *((operation(Opcode.VECTOR, **FILL.fields, sources=s, t0=(2, 0)), ErrorCode.BAD_FIELD) for s in (0, 2)),
        (operation(Opcode.VECTOR, **FILL.fields, sources=3), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **{**FILL.fields, "last_lanes": 0}), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **{**FILL.fields, "last_lanes": 2}), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **FILL.fields, requantize=1, rounding=Rounding.FP32), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **FILL.fields, requantize=1, shift=7), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **FILL.fields, requantize=1, shift=-32), ErrorCode.BAD_FIELD),
        (operation(Opcode.VECTOR, **FILL.fields, rounding=Rounding.FP32, shift=7), ErrorCode.NONE),
        (operation(Opcode.POST, last_columns=4), ErrorCode.TIMEOUT),
        (operation(Opcode.VECTOR, **FILL.fields, wait=(Unit.MATMUL,)), ErrorCode.TIMEOUT),
        (operation(Opcode.END, wait=(Unit.POST,)), ErrorCode.TIMEOUT),
    ],
)
def test_errors_carry_code_and_address(bad: Operation, error: ErrorCode) -> None:
    activation, weights = identity_memories()
    outcome = run(SMALL, [FILL, bad, END], activation, weights)
    assert (outcome.error, outcome.address) == (error, 0 if error is ErrorCode.NONE else FILL.definition.length)
    if bad.opcode is not Opcode.MATMUL:  # which runs ahead of the fill
        assert activation[16] == 5, "what came before the error is done"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"last_columns": 0}, ErrorCode.BAD_FIELD),
        ({"last_columns": 5}, ErrorCode.BAD_FIELD),
        ({"x": (65, 0)}, ErrorCode.BAD_FIELD),
        ({"rounding": Rounding.FP32}, ErrorCode.BAD_FIELD),
        ({"rounding": Rounding.FP32, "per_channel": 1}, ErrorCode.BAD_FIELD),
        ({"shift": 7}, ErrorCode.BAD_FIELD),
        ({"shift": -32}, ErrorCode.BAD_FIELD),
        *(({loop: (0, 0)}, ErrorCode.BAD_FIELD) for loop in LOOPS[Opcode.POST]),
        ({"destination": LAST - 3}, ErrorCode.ACTIVATION_ADDRESS),
        ({"destination": LAST - 7, "wide": 1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"parameters": SMALL.weight_words - 3}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": SMALL.weight_words - 8, "per_channel": 1}, ErrorCode.WEIGHT_ADDRESS),
    ],
)
def test_errors_of_post(fields: dict[str, Any], error: ErrorCode) -> None:
    activation, weights = identity_memories()
    post = operation(Opcode.POST, **{"last_columns": 4, "destination": 16, **ONE, **fields})
    outcome = run(SMALL, [operation(Opcode.MATMUL), post, END], activation, weights)
    assert (outcome.error, outcome.address) == (error, 10)
    assert not activation[4:].any()


def test_errors_of_the_program_store() -> None:
    activation, weights = identity_memories()
    words = encode_program([FILL])
    assert execute(SMALL, [*words, 0x7F, 0], activation, weights) == Outcome(ErrorCode.ILLEGAL_OPCODE, len(words), ())
    assert execute(SMALL, words, activation, weights) == Outcome(ErrorCode.PROGRAM_OVERRUN, len(words), ())
    assert execute(SMALL, [*words, *words[:-1]], activation, weights) == Outcome(ErrorCode.PROGRAM_OVERRUN, len(words), ())
    assert execute(SMALL, [0x7F, *words, 0], activation, weights, start=1).error is ErrorCode.NONE


@pytest.mark.parametrize(("count", "error"), [(255, ErrorCode.NONE), (256, ErrorCode.TOKEN_OVERFLOW)])
def test_a_token_counter_has_a_limit(count: int, error: ErrorCode) -> None:
    activation, weights = identity_memories()
    fill = operation(Opcode.VECTOR, **FILL.fields, signal=(Unit.MATMUL,))
    assert run(SMALL, [fill] * count + [END], activation, weights).error is error


def test_matmul_that_nobody_drains_times_out() -> None:
    activation, weights = identity_memories()
    assert run(SMALL, [operation(Opcode.MATMUL, block=(3, 0)), END], activation, weights) == Outcome(ErrorCode.TIMEOUT, 0, ())


def test_reading_beside_the_place_that_is_written_is_unsound() -> None:
    activation, weights = identity_memories()
    copy = {"sources": 1, "last_lanes": 1, "x": (4, 1), "x_step_out": 1, "minimum": -128, "maximum": 127, "bias": 1}
    assert run(SMALL, [operation(Opcode.VECTOR, **copy), END], activation, weights).error is ErrorCode.NONE
    assert activation[:4].tolist() == [2, -1, 4, -3]
    with pytest.raises(UnsoundProgramError, match="other than exactly in place"):
        run(SMALL, [operation(Opcode.VECTOR, **copy, destination=2), END], activation, weights)


def test_a_shift_of_a_channel_outside_the_range_is_unsound() -> None:
    activation, weights = identity_memories()
    weights[32 : 32 + 4] = [0, 0, 7, 0]
    post = operation(Opcode.POST, last_columns=4, per_channel=1, destination=16)
    with pytest.raises(UnsoundProgramError, match=r"POST: a channel's shift is outside -31\.\.6"):
        run(SMALL, [operation(Opcode.MATMUL), post, END], activation, weights)
    post = operation(Opcode.POST, last_columns=2, per_channel=1, destination=16, shift=99)
    assert run(SMALL, [operation(Opcode.MATMUL), post, END], activation, weights).error is ErrorCode.NONE


def test_a_fault_of_the_words_waits_for_what_is_before() -> None:
    """The program stops at its first fault in program order, though fetching is ahead of execution."""
    activation, weights = identity_memories()
    words = encode_program(chain((Unit.POST,), (Unit.MATMUL,))[:-1])
    assert execute(SMALL, [*words, 0x7F], activation, weights) == Outcome(ErrorCode.ILLEGAL_OPCODE, len(words), ())
    assert activation[32:36].tolist() == [1, -2, 3, -4]
    bad = encode_program([operation(Opcode.TABLE)])
    assert execute(SMALL, [*bad, 0x7F], activation, weights) == Outcome(ErrorCode.BAD_FIELD, 0, ())


def test_a_waiting_instruction_does_not_stop_the_other_unit() -> None:
    """One instruction may wait in front of its unit; a second one stops the fetching."""
    activation, weights = identity_memories()
    late = operation(Opcode.VECTOR, **FILL.fields, signal=(Unit.MATMUL,))
    waiting = operation(Opcode.MATMUL, wait=(Unit.POST,))
    post = operation(Opcode.POST, destination=32, last_columns=4, parameters=64, **ONE)
    assert run(SMALL, [waiting, late, post, END], activation, weights).error is ErrorCode.NONE
    outcome = run(SMALL, [waiting, waiting, late, late, post, post, END], activation, weights)
    assert outcome == Outcome(ErrorCode.TIMEOUT, 0, ())


def test_lanes_of_vector_wrap_at_the_end_of_the_memory() -> None:
    config = PRESETS["tiny-8x4"]
    activation = np.zeros(config.activation_bytes, np.int8)
    activation[[-2, -1, 0, 1]] = [1, 2, 3, 4]
    copy = operation(Opcode.VECTOR, source=config.activation_bytes - 2, sources=1, destination=16, last_lanes=4, **ONE)
    assert run(config, [copy, END], activation, np.zeros(config.weight_bytes, np.int8)).error is ErrorCode.NONE
    assert activation[15:21].tolist() == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("which", ["activation", "weights"])
def test_memories_of_another_size_are_refused(which: str) -> None:
    images = dict(zip(("activation", "weights"), identity_memories(), strict=True))
    images[which] = images[which][:-4].copy()
    with pytest.raises(ValueError, match=f"{which} must be"):
        execute(SMALL, [0], images["activation"], images["weights"])
