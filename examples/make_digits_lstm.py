"""Train the digits LSTM and convert it to an int8 ``.tflite`` file.

Needs packages that the project itself does not: ``pip install tensorflow tf_keras scikit-learn``. It takes a minute or
two without a GPU. The LSTM layer is that of ``tf_keras``, Keras 2: of Keras 3's the converter makes a loop and not an
LSTM operator.

    python examples/make_digits_lstm.py [OUTPUT.tflite]

The network reads an 8×8 image row by row, a row each time step; a fully connected layer and SOFTMAX look at the hidden
state after the last one. It is trained on the 1400 digits that ``make_digits_data.py`` sets apart for training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from make_digits_data import split_digits

UNITS = 32


def network(batch: int | None) -> tf_keras.Model:
    """The network for a batch size, None for any. Only with a fixed one does the converter make one LSTM operator of
    the layer."""
    layers = tf_keras.layers
    return tf_keras.Sequential([layers.Input((8, 8), batch_size=batch), layers.LSTM(UNITS), layers.Dense(10, activation="softmax")])


def main(output: Path) -> None:
    """Train, convert, write ``output`` and print the float model's accuracy on the test images."""
    tf_keras.utils.set_random_seed(1)
    images, test_images, labels, test_labels = split_digits()
    rows, test_rows = images[..., 0], test_images[..., 0]
    model = network(None)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(rows, labels, epochs=60, batch_size=32, verbose=0)
    _, accuracy = model.evaluate(test_rows, test_labels, verbose=0)
    print(f"float accuracy on the {len(test_rows)} test images: {accuracy:.1%}")
    single = network(1)
    single.set_weights(model.get_weights())

    def representative() -> Iterator[list[np.ndarray]]:
        for image in rows[:200]:
            yield [image[None].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(single)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    output.write_bytes(converter.convert())
    print(f"wrote {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("digits_lstm_int8.tflite"))
