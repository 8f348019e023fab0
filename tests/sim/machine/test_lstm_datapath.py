"""LSTM and recurrent MATMUL in the interpreter, against the instruction set's loop nests written out in plain
Python."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.oracle.lstm_definition import rescale, saturated, step_definition

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, Unit, encode_program
from systola_firmware.spec.presets import PRESETS
from systola_sim.golden.requantize import wrap32
from systola_sim.machine.interpreter import Outcome, Schedule, UnsoundProgramError, execute

CONFIGS = [PRESETS[name] for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]
SMALL = PRESETS["tiny-4x4"]
END = Operation(Opcode.END, {})

Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]


def run(config: Config, operations: list[Operation], activation: Int8Array, weights: Int8Array, **options: Any) -> Outcome:
    return execute(config, encode_program(operations), activation, weights, **options)


def changed(op: Operation, **fields: int) -> Operation:
    return Operation(op.opcode, {**op.fields, **fields}, op.wait, op.signal, op.mark)


@dataclass(frozen=True)
class Case:
    """A recurrence over random memories. The hidden state's rows hold the initial one and then one a step, sequence by
    sequence."""

    config: Config
    activation: Int8Array
    weights: Int8Array
    matmul: Operation
    lstm: Operation

    def program(self, **fields: int) -> list[Operation]:
        """The recurrence, ``fields`` of LSTM changed."""
        return [self.matmul, changed(self.lstm, **fields), END]


def random_case(config: Config, seed: int, *, sequences: int | None = None, steps: int | None = None) -> Case:
    rng = np.random.default_rng(seed)
    activation = rng.integers(-128, 128, config.activation_bytes, dtype=np.int8)
    weights = rng.integers(-128, 128, config.weight_bytes, dtype=np.int8)
    sequences = sequences or int(rng.integers(1, 5))
    steps = steps or int(rng.integers(1, 6))
    group_units = config.columns // 4
    groups, last = int(rng.integers(1, 5)), int(rng.integers(1, group_units + 1))
    units = (groups - 1) * group_units + last
    tiles = -(-units // config.rows)
    hidden_pitch = tiles * config.rows + int(rng.integers(3))
    pre_pitch, cell_pitch = 8 * groups * group_units + int(rng.integers(5)), 2 * units + int(rng.integers(3))
    cell = config.activation_bytes - sequences * cell_pitch - int(rng.integers(8))
    pre = config.activation_bytes // 2 + int(rng.integers(8))
    middle = rng.normal(0, 6000, config.activation_bytes // 8).astype("<i2").view(np.int8)  # where the functions are steep
    activation[pre : pre + middle.size] = middle
    rows = {"hidden": sequences * hidden_pitch, "pre": sequences * pre_pitch}
    parameters = config.weight_words // 2
    at = parameters * config.weight_word_bytes
    weights[at : at + 4 * config.columns] = rng.integers(1 << 30, 1 << 31, config.columns).astype("<i4").view(np.int8)
    weights[at + 4 * config.columns :][: config.columns] = rng.integers(-6, 1, config.columns)
    biases = rng.integers(-30000, 30000, groups * config.columns).astype("<i4")
    biases[0] = (1 << 31) - 1  # so that the sum wraps
    at += (config.bias_words + 1) * config.weight_word_bytes
    weights[at : at + biases.nbytes] = biases.view(np.int8)
    matmul = Operation(
        Opcode.MATMUL,
        {
            "source": 16,
            "recurrent": 1,
            **{"x_count": sequences, "x_step": hidden_pitch, "y_count": 1},
            **{"k0_count": tiles, "k0_step": config.rows, "k1_count": 1, "k2_count": 1},
            **{"group_count": groups, "block_count": steps, "block_step": rows["hidden"]},
            "weights": 3,
        },
    )
    lstm = Operation(
        Opcode.LSTM,
        {
            **{"hidden": 16 + rows["hidden"], "preactivation": pre, "cell": cell, "last_units": last},
            **{"x_count": sequences, "x_step": hidden_pitch, "x_step_preactivation": pre_pitch, "x_step_cell": cell_pitch},
            **{"group_count": groups, "block_count": steps},
            **{"block_step": rows["hidden"], "block_step_preactivation": rows["pre"]},
            "parameters": parameters,
            "cell_exponent": int(rng.integers(-15, -8)),
            "clip": int(rng.choice([0, 9000])),
            **{"zero_point": int(rng.integers(-20, 20)), "shift": -22, "multiplier": int(rng.integers(1 << 30, 1 << 31))},
        },
    )
    return Case(config, activation, weights, matmul, lstm)


# The loop nests of isa.py, word for word.


def int16_at(activation: Int8Array, address: int) -> int:
    return int(activation[address : address + 2].view("<i2")[0])


def naive_job(case: Case, activation: Int8Array, block: int, group: int) -> Int64Array:
    """The accumulators of a MATMUL job, wrapped at 32 bits only by whoever reads them."""
    config, mm = case.config, case.matmul
    accumulator = np.zeros((mm["x_count"], config.columns), dtype=np.int64)
    for k0 in range(mm["k0_count"]):
        n = group * mm["k0_count"] + k0
        start = (mm["weights"] + n * config.row_groups) * config.weight_word_bytes
        W = case.weights[start : start + config.rows * config.columns].reshape(config.rows, config.columns).astype(np.int64)
        for x in range(mm["x_count"]):
            a = mm["source"] + block * mm["block_step"] + k0 * mm["k0_step"] + x * mm["x_step"]
            accumulator[x] += activation[a : a + config.rows].astype(np.int64) @ W
    return accumulator


def naive_lstm(case: Case, activation: Int8Array) -> None:
    config, op, U = case.config, case.lstm, case.config.columns // 4
    at = op["parameters"] * config.weight_word_bytes
    q = case.weights[at : at + 4 * config.columns].view("<i4").astype(np.int64)
    s = case.weights[at + 4 * config.columns :][: config.columns].astype(np.int64)
    at += -(-4 * config.columns // config.weight_word_bytes) * config.weight_word_bytes
    at += -(-config.columns // config.weight_word_bytes) * config.weight_word_bytes
    for block, group in itertools.product(range(op["block_count"]), range(op["group_count"])):
        accumulator = naive_job(case, activation, block, group)
        bias = case.weights[at + 4 * group * config.columns :][: 4 * config.columns].view("<i4").astype(np.int64)
        units = op["last_units"] if group == op["group_count"] - 1 else U
        for x, u in itertools.product(range(op["x_count"]), range(units)):
            pre = []
            for k in range(4):
                c = 4 * u + k
                a = rescale(wrap32(accumulator[x, c] + bias[c]).astype(np.int64), q[c], s[c])
                p = op["preactivation"] + block * op["block_step_preactivation"] + x * op["x_step_preactivation"]
                pre.append(saturated(int16_at(activation, p + 2 * (group * config.columns + c)) + saturated(a)))
            at_c = op["cell"] + x * op["x_step_cell"] + 2 * (group * U + u)
            h, cell = step_definition(
                np.array(pre),
                np.array(int16_at(activation, at_c)),
                exponent=op["cell_exponent"],
                clip=op["clip"],
                multiplier=op["multiplier"],
                shift=op["shift"],
                zero_point=op["zero_point"],
            )
            activation[at_c : at_c + 2] = np.array([cell], dtype="<i2").view(np.int8)
            activation[op["hidden"] + block * op["block_step"] + x * op["x_step"] + group * U + u] = h


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_recurrence_follows_its_loop_nest(config: Config, schedule: Schedule) -> None:
    for seed in range(8):
        case = random_case(config, seed)
        expected = case.activation.copy()
        naive_lstm(case, expected)
        assert not np.array_equal(expected, case.activation)
        assert run(config, case.program(), case.activation, case.weights, schedule=schedule) == Outcome(ErrorCode.NONE, 0, ())
        np.testing.assert_array_equal(case.activation, expected)


def test_one_recurrence_after_another_without_a_token() -> None:
    """The second one's MATMUL must not take the end of the first one's last step for that of its own first step."""
    first, second = (random_case(SMALL, seed, sequences=1, steps=4) for seed in (1, 2))
    matmul_1, lstm_1 = changed(first.matmul, group_count=1), changed(first.lstm, group_count=1)
    offset = 8192
    matmul_2 = changed(second.matmul, group_count=1, source=second.matmul["source"] + offset)
    lstm_2 = changed(second.lstm, group_count=1, **{name: second.lstm[name] - offset // 2 for name in ("preactivation", "cell")})
    lstm_2 = changed(lstm_2, hidden=second.lstm["hidden"] + offset)
    case = random_case(SMALL, 3)
    expected = case.activation.copy()
    naive_lstm(Case(SMALL, expected, case.weights, matmul_1, lstm_1), expected)
    naive_lstm(Case(SMALL, expected, case.weights, matmul_2, lstm_2), expected)
    for schedule in Schedule:
        activation = case.activation.copy()
        program = [matmul_1, lstm_1, matmul_2, lstm_2, END]
        assert run(SMALL, program, activation, case.weights, schedule=schedule).error is ErrorCode.NONE
        np.testing.assert_array_equal(activation, expected)


def test_a_batch_is_so_many_single_runs() -> None:
    case = random_case(PRESETS["ulx3s-85f"], 5)
    batch = np.stack([np.roll(case.activation, shift) for shift in range(4)])
    singles = batch.copy()
    assert run(case.config, case.program(), batch, case.weights).error is ErrorCode.NONE
    for single in singles:
        run(case.config, case.program(), single, case.weights)
    np.testing.assert_array_equal(batch, singles)


def test_without_the_recurrent_bit_the_next_step_comes_too_early() -> None:
    case = random_case(SMALL, 1, steps=4)
    wrong = case.activation.copy()
    run(SMALL, case.program(), case.activation, case.weights)
    run(SMALL, [changed(case.matmul, recurrent=0), case.lstm, END], wrong, case.weights)
    assert not np.array_equal(wrong, case.activation)


def test_a_recurrent_matmul_waits_for_lstm_alone() -> None:
    case = random_case(SMALL, 1, steps=2)
    groups = case.matmul["group_count"]
    loops = {f"{loop}_count": case.matmul[f"{loop}_count"] for loop in ("x", "y", "group", "block")}
    post = Operation(Opcode.POST, {**loops, "destination": 20000, "last_columns": 4, "shift": 0, "group_step": 4})
    assert run(SMALL, [case.matmul, post, END], case.activation, case.weights) == Outcome(ErrorCode.TIMEOUT, 0, ())
    one = changed(case.matmul, block_count=1), changed(post, block_count=1)
    assert run(SMALL, [*one, END], case.activation, case.weights).error is ErrorCode.NONE
    # LSTM's own end of a step counts, not that of a POST before it.
    program = [changed(case.matmul, block_count=1), case.matmul, one[1], case.lstm, END]
    assert groups > 1
    assert run(SMALL, program, case.activation, case.weights).error is ErrorCode.NONE


def test_tokens_and_marks() -> None:
    case = random_case(SMALL, 4)
    lstm = Operation(Opcode.LSTM, case.lstm.fields, signal=(Unit.MATMUL,), mark=True)
    after = Operation(Opcode.MATMUL, {**case.matmul.fields, "recurrent": 0, "block_count": 1}, wait=(Unit.POST,))
    post = Operation(
        Opcode.POST, {**{f"{loop}_count": after[f"{loop}_count"] for loop in ("x", "y", "group", "block")}, "last_columns": 1}
    )
    outcome = run(SMALL, [case.matmul, lstm, after, post, END], case.activation, case.weights)
    assert outcome == Outcome(ErrorCode.NONE, 0, (case.matmul.definition.length,))


LAST = SMALL.activation_bytes


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        *(({f"{loop}_count": 0}, ErrorCode.BAD_FIELD) for loop in ("x", "group", "block")),
        ({"x_count": SMALL.accumulator_depth + 1}, ErrorCode.BAD_FIELD),
        ({"last_units": 0}, ErrorCode.BAD_FIELD),
        ({"last_units": 2}, ErrorCode.BAD_FIELD),
        ({"shift": 7}, ErrorCode.BAD_FIELD),
        ({"shift": -32}, ErrorCode.BAD_FIELD),
        ({"cell_exponent": -16}, ErrorCode.BAD_FIELD),
        ({"cell_exponent": -8}, ErrorCode.BAD_FIELD),
        ({"hidden": LAST}, ErrorCode.ACTIVATION_ADDRESS),
        ({"hidden": 0, "x_step": -1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"cell": LAST - 1}, ErrorCode.ACTIVATION_ADDRESS),
        ({"preactivation": LAST - 7}, ErrorCode.ACTIVATION_ADDRESS),
        ({"parameters": SMALL.weight_words - 4}, ErrorCode.WEIGHT_ADDRESS),
        ({"parameters": SMALL.weight_words - 8}, ErrorCode.WEIGHT_ADDRESS),
        ({}, ErrorCode.NONE),
    ],
)
def test_errors_carry_code_and_address(fields: dict[str, int], error: ErrorCode) -> None:
    case = random_case(SMALL, 3, sequences=2)
    outcome = run(SMALL, case.program(**fields), case.activation, case.weights)
    assert (outcome.error, outcome.address) == (error, case.matmul.definition.length if error is not ErrorCode.NONE else 0)


def test_too_many_sequences_are_found_before_the_first_half() -> None:
    case = random_case(SMALL, 3)
    outcome = run(SMALL, [changed(case.lstm, x_count=SMALL.accumulator_depth + 1), END], case.activation, case.weights)
    assert outcome == Outcome(ErrorCode.BAD_FIELD, 0, ())


def test_the_opcode_is_illegal_without_the_cell() -> None:
    case = random_case(SMALL, 3)
    outcome = run(SMALL.replace(lstm=False), case.program(), case.activation, case.weights)
    assert outcome == Outcome(ErrorCode.ILLEGAL_OPCODE, case.matmul.definition.length, ())


@pytest.mark.parametrize("base", ["hidden", "cell", "preactivation"])
def test_overlaps_are_unsound(base: str) -> None:
    case = random_case(SMALL, 3)
    target = {"hidden": "preactivation", "cell": "hidden", "preactivation": "cell"}[base]
    with pytest.raises(UnsoundProgramError, match="hidden states, cells and preactivations overlap"):
        run(SMALL, case.program(**{base: case.lstm[target]}), case.activation, case.weights)


def test_cells_in_one_place_and_wild_shifts_are_unsound() -> None:
    case = random_case(SMALL, 3, sequences=2)
    with pytest.raises(UnsoundProgramError, match="overlap"):
        run(SMALL, case.program(x_step_cell=1), case.activation, case.weights)
    case.weights[(case.lstm["parameters"] + SMALL.bias_words) * SMALL.weight_word_bytes + 2] = 7
    with pytest.raises(UnsoundProgramError, match=r"a gate's shift is outside -31\.\.6"):
        run(SMALL, case.program(), case.activation, case.weights)
