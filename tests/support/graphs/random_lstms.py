"""Random LSTM layers that keep their gates busy: every function in its steep part and in its saturation, no state
stuck."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from support.models.builder import ModelBuilder
from support.models.lstm_operator import LstmLayer, add_lstm

#: Of the input that :func:`lstm_model` gives its layer.
INPUT_SCALE, INPUT_ZERO_POINT = 0.031, -5


def _weights(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.int8]:
    extremes = rng.choice([-128, -127, 127], shape)
    return np.where(rng.random(shape) < 0.1, extremes, rng.integers(-128, 128, shape)).astype(np.int8)


def _scales(rng: np.random.Generator, terms: int, scale: float) -> tuple[float, float, float, float]:
    """Of the weights of each gate, so that ``terms`` products with activations of ``scale`` come to about 0.5 to 3."""
    spread = rng.uniform(0.5, 3, 4) / (74 * 74 * scale * terms**0.5)  # 74: the deviation of uniform int8
    a, b, c, d = (float(np.float32(scale)) for scale in spread)
    return a, b, c, d


def random_lstm(rng: np.random.Generator, features: int, units: int, *, time_major: bool = False) -> LstmLayer:
    """A layer for an input of :data:`INPUT_SCALE`."""
    hidden_scale = float(np.float32(rng.uniform(0.5, 1.5) / 128))
    input_scales, recurrent_scales = _scales(rng, features, INPUT_SCALE), _scales(rng, units, hidden_scale)
    bias = rng.normal(0, 1, (4, units)) / np.float32(INPUT_SCALE) / np.array(input_scales)[:, np.newaxis]
    cell_scale = 2.0 ** int(rng.integers(-15, -8))
    return LstmLayer(
        _weights(rng, 4, units, features),
        _weights(rng, 4, units, units),
        np.clip(bias, -(1 << 30), 1 << 30).astype(np.int32),
        input_scales,
        recurrent_scales,
        hidden_scale,
        hidden_zero_point=int(rng.choice(np.array([0, -128, 127, rng.integers(-40, 40)]))),
        cell_scale=cell_scale,
        clip=float(rng.choice([0.0, 10.0, min(1.2, 20000 * cell_scale)])),
        time_major=time_major,
    )


def lstm_model(layer: LstmLayer, batch: int, steps: int) -> bytes:
    """A model of this layer alone, for an input ``(batch, steps, features)``, or ``(steps, batch, features)`` if
    time-major."""
    model = ModelBuilder()
    outer = (steps, batch) if layer.time_major else (batch, steps)
    x = model.activation((*outer, layer.input_weights.shape[2]), INPUT_SCALE, INPUT_ZERO_POINT)
    return model.finish([x], [add_lstm(model, x, layer).output])
