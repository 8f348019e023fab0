"""The demonstration on the golden device: the shipped model, its test images and the oracle."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from systola.commands import demo
from systola.measure.benchmark import model_files


def test_every_shipped_image_is_answered_as_the_oracle_does() -> None:
    text = io.StringIO()
    assert demo.demonstrate("golden:", Console(file=text, width=120))
    assert "bit-exact: 397/397" in text.getvalue()
    assert "accuracy:  387/397" in text.getvalue()
    assert text.getvalue().count("(wrong)") == 2  # two of the ten, so that nobody thinks the shown ones chosen
    assert "golden:ulx3s-85f, the numpy interpreter" in text.getvalue()
    assert "DIFFERENT" not in text.getvalue()
    assert "cycles:" not in text.getvalue()  # the golden device has none to tell


def test_one_different_element_fails_the_demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    right = demo.oracle_answers

    def altered(model: Path, images: np.ndarray) -> np.ndarray:
        answers = right(model, images)
        answers.reshape(-1)[7] ^= 1
        return answers

    monkeypatch.setattr(demo, "oracle_answers", altered)
    text = io.StringIO()
    assert not demo.demonstrate("golden:", Console(file=text, width=120))
    assert "bit-exact: 396/397" in text.getvalue()
    assert "DIFFERENT: image number 0 is the first" in text.getvalue()


def test_bench_finds_models_in_the_folders_that_exist(tmp_path: Path) -> None:
    (tmp_path / "b.tflite").touch()
    (tmp_path / "a.tflite").touch()
    (tmp_path / "c.txt").touch()
    assert [path.name for path in model_files([tmp_path / "absent", tmp_path])] == ["a.tflite", "b.tflite"]
