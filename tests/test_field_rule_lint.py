"""The check of `make lint` that finds rules on instruction fields outside the instruction set's own tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("check_field_rules", ROOT / "scripts" / "check_field_rules.py")
assert _SPEC is not None
assert _SPEC.loader is not None
check = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check)


@pytest.mark.parametrize(
    "text",
    [
        "bad = (fields.shift < -31) | other",
        "bad = fields.shift > 6",
        "bad = 6 < operation['shift']",
        "good = -31 <= operation['shift'] <= 6",
        "bad = fields.rounding >= Rounding.FP32",
        "bad = fields[f'{loop}_count'] == 0",
        "bad = operation['x_count'] > config.accumulator_depth",
        "bad = fields.last_units > self.config.columns // 4",
        "good = 1 <= operation['tables'] <= 2",
        "bad = field_of(Opcode.TABLE, 'tables', word) == 3",
        "bad = operation['cell_exponent'] < -15",
    ],
)
def test_a_planted_rule_is_found(text: str) -> None:
    assert list(check.rules_in(text))


@pytest.mark.parametrize(
    "text",
    [
        "fill = operation['sources'] == 0",
        "second = fields.sources == 2",
        "has_taps = fields.t0_count != 1",
        "mode = fields.rounding == Rounding.DOUBLE",
        "last = index == operation['group_count'] - 1",
        "wide = operation['wide'] > 0",
        "many = span.count > COUNT_LIMIT",
    ],
)
def test_decoding_a_field_is_no_rule(text: str) -> None:
    assert not list(check.rules_in(text))


def test_a_planted_file_fails_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unit.py").write_text("\nbad = fields.shift > 6\n")
    assert check.main([str(tmp_path)]) == 1
    assert f"{tmp_path / 'unit.py'}:2: a rule on the field shift" in capsys.readouterr().out


def test_the_packages_have_none() -> None:
    assert check.main([str(ROOT / folder) for folder in check.FOLDERS]) == 0
