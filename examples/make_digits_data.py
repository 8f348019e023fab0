"""Make the demo's test images from scikit-learn's digits: ``pip install scikit-learn`` first.

    python examples/make_digits_data.py

Writes ``digits_test.npz`` beside this file: ``images`` int8 ``(397, 8, 8, 1)``, quantized as ``digits_cnn_int8.tflite``
wants its input, and ``labels`` int8 ``(397,)``. The split is here for both scripts: no image is in the training set and
in the test set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_IMAGES = 397
SPLIT_SEED = 1
PIXEL_MAXIMUM = 16


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, test images, training labels and test labels; images float64 ``(n, 8, 8, 1)`` from 0 to 1.

    1400 images are for training and 397 for the test, chosen at random with every digit equally often in both by
    proportion.
    """
    digits = load_digits()
    images = (digits.images / PIXEL_MAXIMUM)[..., None]
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=digits.target
    )
    return train_images, test_images, train_labels, test_labels


def main() -> None:
    """Quantize the test images by the model's own input scale and write the archive."""
    from systola_firmware.importer import load_tflite  # not needed for training

    folder = Path(__file__).parent
    (tensor,) = load_tflite(folder / "digits_cnn_int8.tflite").inputs
    _, real, _, labels = split_digits()
    images = np.clip(np.round(real / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)
    np.savez_compressed(folder / "digits_test.npz", images=images, labels=labels.astype(np.int8))
    print(f"wrote {len(images)} images")


if __name__ == "__main__":
    main()
