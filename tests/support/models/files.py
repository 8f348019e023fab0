"""Where the real models are that are test data but not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]

#: The digits model that ships with the project.
DIGITS_MODEL = _ROOT / "examples" / "digits_cnn_int8.tflite"

#: The recurrent one, and its test sequences: ``images`` int8 ``(397, 8, 8)`` and ``labels``.
DIGITS_LSTM = _ROOT / "examples" / "digits_lstm_int8.tflite"
DIGITS_LSTM_TEST = _ROOT / "examples" / "digits_lstm_test.npz"

#: Real models by short name; the first five are MLPerf Tiny's.
MODELS = {
    "resnet8": "tiny_resnet8_int8.tflite",
    "dscnn": "tiny_kws_dscnn_int8.tflite",
    "vww96": "tiny_vww96_int8.tflite",
    "ad01": "tiny_ad01_int8.tflite",
    "strww": "tiny_strww_int8.tflite",
    "hello_world": "tflm_hello_world_int8.tflite",
    "micro_speech": "tflm_micro_speech_int8.tflite",
    "trained_lstm": "tflm_trained_lstm_int8.tflite",
    "digits": "own/digits_cnn_int8_tf221.tflite",
    "digits_lstm": "own/digits_lstm_int8_tf221.tflite",
    "digits_lstm_own": "own/digits_lstm_int8_own.tflite",
}

#: Recurrent ones.
LSTM_MODELS = ("trained_lstm", "digits_lstm", "digits_lstm_own")

#: The others.
SUPPORTED_MODELS = tuple(name for name in MODELS if name not in LSTM_MODELS)

MLPERF_TINY = ("resnet8", "dscnn", "vww96", "ad01", "strww")


def model_folder() -> Path:
    """``$SYSTOLA_MODELS``, or ``../shared/models`` beside the project."""
    return Path(os.environ.get("SYSTOLA_MODELS") or _ROOT.parent / "shared" / "models")


def model_path(name: str) -> Path:
    """The model's file; the test is skipped with a sentence where it is absent."""
    path = model_folder() / MODELS[name]
    if not path.is_file():
        pytest.skip(f"the model {MODELS[name]} is not here: put it into {model_folder()} or set SYSTOLA_MODELS")
    return path
