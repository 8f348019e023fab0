"""Rules on the fields of one instruction, which the engine checks before it does anything: all of them end in
BAD_FIELD."""

from __future__ import annotations

from collections.abc import Callable

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, Opcode, Operation, Rounding
from systola_sim.golden.lstm_cell import EXPONENT_MAXIMUM, EXPONENT_MINIMUM, GATES
from systola_sim.golden.requantize import SHIFT_MAXIMUM, SHIFT_MINIMUM

__all__ = ["breaks_a_rule"]

#: Rounding modes that the engine has; FP32 is a reserved value.
_ROUNDINGS = (Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP)


def _bad_factor(operation: Operation) -> bool:
    return operation["rounding"] not in _ROUNDINGS or not SHIFT_MINIMUM <= operation["shift"] <= SHIFT_MAXIMUM


def _bad_matmul(config: Config, operation: Operation) -> bool:
    return operation["x_count"] * operation["y_count"] > config.accumulator_depth


def _bad_post(config: Config, operation: Operation) -> bool:
    # With factors for each channel the instruction's own shift is not looked at.
    bad_factor = operation["rounding"] not in _ROUNDINGS if operation["per_channel"] else _bad_factor(operation)
    return bad_factor or not 1 <= operation["last_columns"] <= config.columns


def _bad_vector(config: Config, operation: Operation) -> bool:
    sources = operation["sources"]
    bad_taps = sources != 1 and (operation["t0_count"], operation["t1_count"]) != (1, 1)
    bad_factor = bool(operation["requantize"]) and _bad_factor(operation)
    return sources > 2 or bad_taps or bad_factor or not 1 <= operation["last_lanes"] <= config.requantize_lanes


def _bad_lstm(config: Config, operation: Operation) -> bool:
    return (
        operation["x_count"] > config.accumulator_depth
        or not SHIFT_MINIMUM <= operation["shift"] <= SHIFT_MAXIMUM
        or not EXPONENT_MINIMUM <= operation["cell_exponent"] <= EXPONENT_MAXIMUM
        or not 1 <= operation["last_units"] <= config.columns // len(GATES)
    )


def _bad_table(_config: Config, operation: Operation) -> bool:
    return not 1 <= operation["tables"] <= 2


_RULES: dict[Opcode, Callable[[Config, Operation], bool]] = {
    Opcode.MATMUL: _bad_matmul,
    Opcode.POST: _bad_post,
    Opcode.VECTOR: _bad_vector,
    Opcode.LSTM: _bad_lstm,
    Opcode.TABLE: _bad_table,
}


def breaks_a_rule(config: Config, operation: Operation) -> bool:
    """Whether ``config``'s engine refuses ``operation`` (not END) with BAD_FIELD for its fields alone."""
    counts = (name for name in INSTRUCTIONS[operation.opcode].fields if name.endswith("_count"))
    return any(operation[name] == 0 for name in counts) or _RULES[operation.opcode](config, operation)
