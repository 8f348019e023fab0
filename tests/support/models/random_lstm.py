"""Seeded random LSTM models: realistic ones, whose gates work in their middle, and extreme ones, whose gates and states
saturate.

A realistic model is drawn from what it should do: standard deviations of the two parts of a preactivation, from which
follow the scales of the weights. The inputs that tests feed are uniform int8, so the spread of the products is known.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from support.models.builder import ModelBuilder, activation_code
from support.models.lstm_operator import AddedLstm, LstmLayer, add_lstm
from support.models.random_models import RandomModel

#: Every how many seeds a model is an extreme one.
EXTREME_EVERY = 4

#: Standard deviation of uniform int8, of the weights drawn here, and about that of a real hidden state.
_INPUT_DEVIATION, _WEIGHT_DEVIATION, _HIDDEN_DEVIATION = 74.0, 40.0, 0.35

#: Most elements of weights in the layer after the LSTM.
_TAIL_WEIGHTS = 20_000

_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 63, 64, 65, 70)


def is_extreme(seed: int) -> bool:
    """Whether :func:`lstm_model` makes an extreme model of this seed."""
    return seed % EXTREME_EVERY == EXTREME_EVERY - 1


@dataclasses.dataclass(frozen=True)
class LstmModel(RandomModel):
    """A random LSTM model: ``lstms`` are the tensor numbers of its layers, first to last."""

    lstms: tuple[AddedLstm, ...]


class _Draw:
    """The random choices of one model."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.model = ModelBuilder()

    def integer(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both possible."""
        return int(self.generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def pick(self, values: tuple[Any, ...]) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def size(self) -> int:
        """From 1 to 70, those around the sizes of arrays more often."""
        return int(self.pick(_SIZES)) if self.chance(0.6) else self.integer(1, 70)

    def power(self, low: float, high: float) -> float:
        """A float32 with a binary logarithm between ``low`` and ``high``."""
        return float(np.float32(2 ** self.generator.uniform(low, high)))

    def zero_point(self) -> int:
        return int(self.pick((-128, 0, 127, self.integer(-128, 127), self.integer(-40, 40))))

    def weights(self, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
        values = self.generator.normal(0, _WEIGHT_DEVIATION, shape)
        return np.clip(np.round(values), -127, 127).astype(np.int8)


def _four(values: npt.ArrayLike) -> tuple[float, float, float, float]:
    """Scales of the four gates, float32."""
    first, second, third, fourth = (float(np.float32(value)) for value in np.asarray(values))
    return first, second, third, fourth


def _realistic(draw: _Draw, features: int, units: int, scale: float, zero_point: int) -> LstmLayer:
    """A layer over an input of this quantization."""
    hidden_zero_point = 0 if draw.chance(0.4) else draw.integer(-60, 60)
    hidden_scale = float(np.float32(draw.generator.uniform(0.8, 1.0) / (127 - abs(hidden_zero_point))))
    spread = scale * math.hypot(_INPUT_DEVIATION, zero_point) * _WEIGHT_DEVIATION * math.sqrt(features)
    recurrent_spread = _HIDDEN_DEVIATION * _WEIGHT_DEVIATION * math.sqrt(units)
    input_scales = _four(draw.generator.uniform(0.3, 1.5, 4) / spread)
    recurrent_scales = _four(draw.generator.uniform(0.2, 1.2, 4) / recurrent_spread)
    bias = draw.generator.normal([[0.0], [0.7], [0.0], [0.0]], 0.6, (4, units)) / (scale * np.array(input_scales)[:, np.newaxis])
    exponent = int(draw.pick((-12, -12, -11, -13, draw.integer(-15, -9))))
    # The cell state stays within a few units, unless its scale stops it before.
    clip = draw.pick((0.0, 0.0, 10.0, 1.0, float(draw.generator.uniform(0.1, 3.0))))
    return LstmLayer(
        draw.weights((4, units, features)),
        draw.weights((4, units, units)),
        np.round(bias).astype(np.int32),
        input_scales,
        recurrent_scales,
        hidden_scale,
        hidden_zero_point,
        2.0**exponent,
        clip,
    )


def _extreme(draw: _Draw, layer: LstmLayer, scale: float) -> LstmLayer:
    """Push some of a realistic layer's numbers to where something saturates, vanishes or rounds strangely."""
    change: dict[str, Any] = {}
    units = layer.bias.shape[1]
    kinds = {draw.integer(0, 6) for _ in range(draw.integer(1, 3))}
    if 0 in kinds:  # gates far too strong, or without any influence
        factors = 2.0 ** draw.generator.choice([-40, -25, -12, 0, 3, 5], (2, 4))
        change["input_scales"] = tuple(float(np.float32(s * f)) for s, f in zip(layer.input_scales, factors[0], strict=True))
        change["recurrent_scales"] = tuple(
            float(np.float32(s * f)) for s, f in zip(layer.recurrent_scales, factors[1], strict=True)
        )
    if 1 in kinds:  # every weight at an end
        change["input_weights"] = draw.generator.choice([-127, 127], layer.input_weights.shape).astype(np.int8)
        change["recurrent_weights"] = draw.generator.choice([-128, 127], layer.recurrent_weights.shape).astype(np.int8)
    if 2 in kinds:  # biases that hold gates open or shut; a left shift of the sums must not make them overflow
        dead = draw.generator.random(layer.bias.shape) < 0.3
        change["bias"] = np.where(dead, draw.generator.choice([-(1 << 22), 1 << 22], layer.bias.shape), layer.bias).astype(np.int32)
    if 3 in kinds:  # a hidden state that saturates, or that never leaves its zero point
        change["hidden_scale"] = float(np.float32(layer.hidden_scale * 2.0 ** draw.integer(-6, 9)))
        change["hidden_zero_point"] = int(draw.pick((-128, 127, draw.zero_point())))
    if 4 in kinds:  # a cell state that grows to its end: forget and input gate open, the cell gate to one side
        bias = np.array(change.get("bias", layer.bias))
        strong = 6 / (scale * np.array(layer.input_scales))
        bias[:2] = strong[:2, np.newaxis]
        bias[2] = strong[2] * draw.generator.choice([-1, 1], units)
        change["bias"] = np.clip(bias, -(1 << 22), 1 << 22).astype(np.int32)
        change["cell_scale"] = 2.0 ** draw.integer(-15, -12)
        change["clip"] = draw.pick((0.0, 1e6, 32767 * change["cell_scale"]))
    if 5 in kinds:  # a clip of a few steps
        change["clip"] = draw.integer(1, 40) * float(change.get("cell_scale", layer.cell_scale))
    if 6 in kinds:  # one gate's weights vanish with their scale
        scales = list(change.get("input_scales", layer.input_scales))
        scales[draw.integer(0, 3)] = 0.0
        change["input_scales"] = _four(scales)
    return _within_the_engine(dataclasses.replace(layer, **change), scale)


def _within_the_engine(layer: LstmLayer, scale: float) -> LstmLayer:
    """Gate multipliers below 2^6, where the engine's end, and sums that the shift to the left does not push out of
    int32."""

    def limited(scales: tuple[float, ...], other: float) -> tuple[float, float, float, float]:
        return _four(np.minimum(scales, 60 / 4096 / other))

    return dataclasses.replace(
        layer,
        input_scales=limited(layer.input_scales, scale),
        recurrent_scales=limited(layer.recurrent_scales, layer.hidden_scale),
    )


def _tail(draw: _Draw, current: int) -> int:
    """Nothing, a part of the time steps, or a FULLY_CONNECTED over the last one, over all together, or over each."""
    kind = draw.integer(0, 5)
    if kind <= 1:
        return current
    model = draw.model
    tensor = model.graph.tensors[current]
    first, second, units = (int(size) for size in tensor.shape)
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    if kind in (2, 3):
        axis = draw.pick((0, 1, 1, 1))
        position = draw.pick((-1, -1, (first, second)[axis] - 1, 0))
        begin, end = [0, 0, 0], [0, 0, 0]
        begin[axis], end[axis] = position, position + 1
        shape: tuple[int, ...] = (second, units) if axis == 0 else (first, units)
        options = {"beginMask": 7 - (1 << axis), "endMask": 7, "shrinkAxisMask": 1 << axis}
        if draw.chance(0.3):  # a range of steps instead, every second one
            begin[axis], position = 0, 0
            shape = tuple(-(-size // 2) if number == axis else size for number, size in enumerate((first, second, units)))
            options = {"beginMask": 7, "endMask": 7, "shrinkAxisMask": 0}
        strides = [2 if options["shrinkAxisMask"] == 0 and number == axis else 1 for number in range(3)]
        operands = [model.constant(np.array(values, np.int32)) for values in (begin, end, strides)]
        sliced = model.activation(shape, scale, zero_point)
        model.operator("STRIDED_SLICE", [current, *operands], [sliced], **options)
        current = sliced
    elif kind == 4:
        flat = model.activation((1, first * second * units), scale, zero_point)
        model.operator("RESHAPE", [current, model.constant(np.array([1, -1], np.int32))], [flat], newShape=[1, -1])
        current = flat
    if draw.chance(0.3):
        return current
    shape = tuple(int(size) for size in model.graph.tensors[current].shape)
    channels = min(draw.integer(1, 12), max(1, _TAIL_WEIGHTS // shape[-1]))
    weight_scale = draw.power(-8, -6)
    weights = model.constant(draw.weights((channels, shape[-1])), scale=weight_scale)
    bias = model.constant(draw.generator.integers(-4000, 4000, channels, dtype=np.int32), scale=weight_scale * scale)
    output_scale = float(np.float32(weight_scale * scale * _WEIGHT_DEVIATION * math.sqrt(shape[-1])))
    target = model.activation((*shape[:-1], channels), output_scale, draw.integer(-30, 30))
    keep = len(shape) > 2
    fused = activation_code(draw.pick(("NONE", "RELU")))
    model.operator("FULLY_CONNECTED", [current, weights, bias], [target], keepNumDims=keep, fusedActivationFunction=fused)
    return target


def lstm_model(seed: int, *, steps: int | None = None) -> LstmModel:
    """A model of one LSTM or two in a row, often with something behind.

    T is 1 to 40, batch 1 to 4, features and units 1 to 70. With ``steps`` it is the same LSTMs over so many time steps
    and nothing behind: what an oracle can be taken through step by step.
    """
    draw = _Draw(seed)
    length = draw.integer(1, 40) if draw.chance(0.8) else draw.integer(1, 3)
    batch = 1 if draw.chance(0.4) else draw.integer(2, 4)
    time_major = draw.chance(0.4)
    layers = 2 if draw.chance(0.3) else 1
    features, scale = draw.size(), draw.power(-9, 0)
    zero_point = draw.zero_point()
    times = length if steps is None else steps
    shape = (times, batch, features) if time_major else (batch, times, features)
    source = current = draw.model.activation(shape, scale, zero_point)
    lstms = []
    for number in range(layers):
        units = draw.size()
        layer = _realistic(draw, features, units, scale, zero_point)
        if is_extreme(seed):
            layer = _extreme(draw, layer, scale)
        elif number:
            # The first layer's output is no uniform int8.
            gain = scale * _INPUT_DEVIATION / _HIDDEN_DEVIATION
            layer = dataclasses.replace(layer, input_scales=_four(np.multiply(layer.input_scales, min(gain, 4.0))))
        added = add_lstm(draw.model, current, dataclasses.replace(layer, time_major=time_major))
        lstms.append(added)
        current, features, scale, zero_point = added.output, units, layer.hidden_scale, layer.hidden_zero_point
    outputs = [current]
    if steps is None:
        outputs = list(dict.fromkeys([_tail(draw, current), *([current] if draw.chance(0.2) else [])]))
    kind = "extreme" if is_extreme(seed) else "realistic"
    name = f"{kind} LSTM seed {seed} ({layers} layers, T {times}, batch {batch})"
    data = draw.model.finish([source], outputs)
    return LstmModel(name, data, [shape], [int(draw.model.graph.tensors[source].quantization.zeroPoint[0])], tuple(lstms))
