"""Train the digits CNN of the demo and convert it to an int8 ``.tflite`` file.

Needs packages that the project itself does not: ``pip install tensorflow scikit-learn``. Takes about a minute without a
GPU.

    python examples/make_digits_cnn.py [OUTPUT.tflite]

The network is small but has every kind of layer that matters: a dense, a depthwise and a point-wise convolution,
average pooling, a fully connected layer and SOFTMAX. It is trained on 1400 of scikit-learn's 1797 digits; the other 397
are for the demo (``make_digits_data.py``, which makes the split).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from make_digits_data import split_digits


def main(output: Path) -> None:
    """Train, convert, write ``output`` and print the float model's accuracy on the test images."""
    tf.keras.utils.set_random_seed(1)
    images, test_images, labels, test_labels = split_digits()
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, epochs=60, batch_size=32, verbose=0)
    _, accuracy = model.evaluate(test_images, test_labels, verbose=0)
    print(f"float accuracy on the {len(test_images)} test images: {accuracy:.1%}")

    def representative() -> Iterator[list[np.ndarray]]:
        for image in images[:200]:
            yield [image[None].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    output.write_bytes(converter.convert())
    print(f"wrote {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits_cnn_int8.tflite"))
