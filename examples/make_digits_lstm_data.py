"""Make the digits LSTM's test sequences from scikit-learn's digits: ``pip install scikit-learn`` first.

    python examples/make_digits_lstm_data.py

Writes ``digits_lstm_test.npz`` beside this file: ``images`` int8 ``(397, 8, 8)``, each row of an image a time step,
quantized as ``digits_lstm_int8.tflite`` wants its input, and ``labels`` int8 ``(397,)``. They are the digits of
``digits_test.npz``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from make_digits_data import split_digits

from systola_firmware.importer import load_tflite


def main() -> None:
    """Quantize the test images by the model's own input scale and write the archive."""
    folder = Path(__file__).parent
    (tensor,) = load_tflite(folder / "digits_lstm_int8.tflite").inputs
    _, real, _, labels = split_digits()
    images = np.clip(np.round(real[..., 0] / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
    np.savez_compressed(folder / "digits_lstm_test.npz", images=images, labels=labels.astype(np.int8))
    print(f"wrote {len(images)} images")


if __name__ == "__main__":
    main()
