"""The configuration's rules, each with its message, and the sizes derived from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from systola_firmware.spec.config import PROGRAM_FIELDS, REPORTED_FIELDS, Config
from systola_firmware.spec.presets import DEFAULT_PRESET, PRESETS, preset

BASE = PRESETS["ulx3s-85f"]


def test_presets_have_their_names_and_the_default_exists() -> None:
    assert all(config.name == name for name, config in PRESETS.items())
    assert preset(DEFAULT_PRESET) is PRESETS[DEFAULT_PRESET]
    assert (BASE.rows, BASE.columns) == (16, 8)


def test_an_unknown_preset_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'none': choose one of .*tiny-4x4.*ulx3s-85f"):
        preset("none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"rows": rows}, f"rows must be a power of two from 4 to 64, not {rows}") for rows in (2, 12, 128, 0, -4)),
        *(
            ({"columns": columns}, rf"columns must be a power of two from 4 to rows \(16\), not {columns}")
            for columns in (2, 6, 32)
        ),
        *(
            ({"weight_rows_per_cycle": rows}, f"weight_rows_per_cycle must be 1, 2 or 4, and less than rows, not {rows}")
            for rows in (0, 3, 8)
        ),
        ({"rows": 4, "columns": 4, "weight_rows_per_cycle": 4, "requantize_lanes": 4}, "weight_rows_per_cycle must be .* not 4"),
        *(
            ({"requantize_lanes": lanes}, rf"requantize_lanes must be a divisor of columns \(8\), not {lanes}")
            for lanes in (0, 3, 16, -1)
        ),
        *(
            ({"accumulator_depth": depth}, f"accumulator_depth must be a power of two from 16 to 4096, not {depth}")
            for depth in (8, 100, 8192)
        ),
        *(
            ({"activation_bytes": size}, rf"activation_bytes must be a multiple of rows \(16\) from 256 to 524288, not {size}")
            for size in (240, 1000, 524304)
        ),
        *(
            (
                {"weight_bytes": size},
                rf"weight_bytes must be a multiple of the weight word \(32 bytes\) from 256 to 16777216, not {size}",
            )
            for size in (224, 1000, (1 << 24) + 32)
        ),
        *(({"program_words": words}, f"program_words must be from 64 to 65536, not {words}") for words in (63, 65537)),
        *(({"trace_marks": marks}, f"trace_marks must be from 1 to 4096, not {marks}") for marks in (0, 4097)),
        *(({"hop_registers": hops}, f"hop_registers must be from 1 to 4, not {hops}") for hops in (0, 5)),
        *(
            (
                {"fabric_rows": rows},
                rf"fabric_rows must be a multiple of weight_rows_per_cycle \(4\), at most rows \(16\), not {rows}",
            )
            for rows in (-4, 2, 20)
        ),
        *(
            ({"uart_baud": baud}, rf"uart_baud must be positive and at most a quarter of clock_hz \(100000000\), not {baud}")
            for baud in (0, 25_000_001)
        ),
    ],
)
def test_every_rule_has_its_message(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^configuration 'ulx3s-85f': {message}$"):
        BASE.replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 64, "columns": 64, "requantize_lanes": 64},
        {"rows": 4, "columns": 4, "weight_rows_per_cycle": 2, "requantize_lanes": 1},
        {"accumulator_depth": 16, "activation_bytes": 256, "weight_bytes": 256, "program_words": 64, "trace_marks": 1},
        {"accumulator_depth": 4096, "activation_bytes": 1 << 19, "weight_bytes": 1 << 24, "program_words": 1 << 16},
        {"hop_registers": 4, "uart_baud": 12_500_000, "trace_marks": 4096},
        {"fabric_rows": 16},
    ],
)
def test_the_limits_themselves_are_allowed(changes: dict[str, Any]) -> None:
    changed = BASE.replace(**changes)
    assert all(getattr(changed, name) == value for name, value in changes.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 8}, "a compact engine has 4 rows, 4 columns, 1 weight row a cycle and 1 requantize lane"),
        ({"requantize_lanes": 2}, "a compact engine has 4 rows, 4 columns, 1 weight row a cycle and 1 requantize lane"),
        ({"lstm": True}, "lstm must be False in a compact engine, not True"),
    ],
)
def test_a_compact_engine_is_of_one_size(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^configuration 'icebreaker': {message}$"):
        PRESETS["icebreaker"].replace(**changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("icebreaker", {}),
        ("tiny-4x4", {}),
        ("tiny-8x4", {"weight_rows_per_cycle": 1}),
    ],
)
def test_dma_wants_whole_beats(name: str, changes: dict[str, Any]) -> None:
    message = "dma must be False in an engine that is compact or has rows or weight words of less than 8 bytes, not True"
    with pytest.raises(ValueError, match=f"^configuration '{name}': {message}$"):
        PRESETS[name].replace(**changes, dma=True)
    assert PRESETS["tiny-8x4"].replace(dma=True).program_fields() == PRESETS["tiny-8x4"].program_fields()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.rows = 8  # type: ignore[misc]


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_derived_sizes_agree_with_each_other(config: Config) -> None:
    assert config.row_groups * config.weight_rows_per_cycle == config.rows
    assert config.tile_words * config.weight_word_bytes == config.rows * config.columns
    assert config.bias_words * config.weight_word_bytes == 4 * config.columns
    assert config.weight_words * config.weight_word_bytes == config.weight_bytes
    needed = 9 * config.columns  # int32 bias and multiplier, int8 shift
    words = config.channel_parameter_words
    assert (words - 1) * config.weight_word_bytes < needed <= words * config.weight_word_bytes
    assert abs(config.clock_hz / config.uart_divisor / config.uart_baud - 1) < 0.03


def test_what_a_program_depends_on() -> None:
    fields = BASE.program_fields()
    assert tuple(fields) == PROGRAM_FIELDS
    assert fields["rows"] == 16
    assert fields["isa_version"] == BASE.isa_version
    assert not set(PROGRAM_FIELDS) & set(REPORTED_FIELDS)
    assert BASE.replace(clock_hz=25_000_000).program_fields() == fields
    assert BASE.replace(lstm_serial=True).program_fields() == fields
    assert (fields["lstm"], BASE.replace(lstm=False).program_fields()["lstm"]) == (1, 0)
