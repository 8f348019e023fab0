"""Make the demo's test images from scikit-learn's digits: ``pip install scikit-learn`` first.

    python examples/make_digits_data.py

Writes ``digits_test.npz`` beside this file: ``images`` int8 ``(397, 8, 8, 1)``, quantized as ``digits_cnn_int8.tflite`` wants
its input, and ``labels`` int8 ``(397,)``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from systola_firmware.tflite_import import load_tflite

TEST_IMAGES = 397
PIXEL_MAXIMUM = 16


def main() -> None:
    """Quantize the last images of the data set by the model's own input scale and write the archive."""
    folder = Path(__file__).parent
    (tensor,) = load_tflite(folder / "digits_cnn_int8.tflite").inputs
    digits = load_digits()
    real = digits.images[-TEST_IMAGES:, :, :, None] / PIXEL_MAXIMUM
    images = np.clip(np.round(real / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
    np.savez_compressed(folder / "digits_test.npz", images=images, labels=digits.target[-TEST_IMAGES:].astype(np.int8))
    print(f"wrote {len(images)} images")


if __name__ == "__main__":
    main()
