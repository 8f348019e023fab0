"""Seeded random models of one operator, and small graphs, with realistic and with extreme quantization."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.models.builder import ModelBuilder, activation_code, padding_code

_FUSED = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 64, 65, 70)


@dataclass(frozen=True)
class RandomModel:
    """A model and what a test must know to feed it. ``name`` is for the reader of a failure."""

    name: str
    data: bytes
    shapes: list[tuple[int, ...]]
    zero_points: list[int]


class _Draw:
    """The random choices of one model."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.model = ModelBuilder()
        self.inputs: list[int] = []

    def integer(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both possible."""
        return int(self.generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def pick(self, values: tuple[Any, ...]) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def scale(self, low: float = -3, high: float = 0) -> float:
        """A float32 with a logarithm between ``low`` and ``high``."""
        return float(np.float32(10 ** self.generator.uniform(low, high)))

    def zero_point(self) -> int:
        chosen: int = self.pick((-128, -127, 0, 127, self.integer(-128, 127), self.integer(-128, 127)))
        return chosen

    def int8(self, shape: tuple[int, ...], low: int = -127) -> np.ndarray:
        if self.chance(0.1):
            return self.generator.choice(np.array([low, 127], dtype=np.int8), shape)
        return self.generator.integers(low, 128, shape, dtype=np.int8)

    def input(self, shape: tuple[int, ...], scale: float | None = None) -> int:
        """A new model input."""
        index = self.model.activation(shape, self.scale() if scale is None else scale, self.zero_point())
        self.inputs.append(index)
        return index

    def image(self) -> tuple[int, int, int, int]:
        return (
            2 if self.chance(0.15) else 1,
            self.integer(1, 12),
            self.integer(1, 12),
            self.pick((*_CHANNELS, self.integer(1, 70))),
        )

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self.model.graph.tensors[index].shape)

    def scale_of(self, index: int) -> float:
        return float(self.model.graph.tensors[index].quantization.scale[0])

    def zero_point_of(self, index: int) -> int:
        return int(self.model.graph.tensors[index].quantization.zeroPoint[0])

    def finish(self, name: str, *outputs: int) -> RandomModel:
        shapes = [self.shape(index) for index in self.inputs]
        zero_points = [self.zero_point_of(index) for index in self.inputs]
        return RandomModel(name, self.model.finish(self.inputs, outputs), shapes, zero_points)


def _weights(draw: _Draw, shape: tuple[int, ...], axis: int, source: int, reduction: int) -> tuple[int, int, float]:
    """Weights, bias and a fitting output scale. Dead channels: a bias of ±2^30 under a tiny multiplier, as real models
    have."""
    channels = shape[axis]
    input_scale = draw.scale_of(source)
    base = draw.scale(-4, -1)
    spread = draw.generator.uniform(0.2, 5, channels) if draw.chance(0.7) else np.ones(1)
    scales = (base * spread).astype(np.float32)
    bias = draw.generator.integers(-20000, 20000, channels)
    # Sums of `reduction` products of uniform int8 spread over about 74² · sqrt(reduction): from mostly saturated to
    # mostly small.
    output_scale = float(np.float32(input_scale * base * 74 * math.sqrt(reduction) * 2 ** draw.generator.uniform(-3, 3)))
    if scales.size > 1 and draw.chance(0.4):
        dead = draw.generator.random(channels) < 0.3
        tiny = output_scale / input_scale * 2.0 ** draw.generator.uniform(-34, -22, channels)
        scales = np.where(dead, tiny, scales).astype(np.float32)
        bias = np.where(dead, draw.generator.choice([-(1 << 30), 1 << 30, (1 << 31) - (1 << 26)], channels), bias)
    elif draw.chance(0.15):
        # Multipliers around and above 1: a positive shift. The sums stay small enough for it.
        output_scale = float(np.float32(input_scale * base * 2 ** draw.generator.uniform(-2.5, 1)))
    weights = draw.model.constant(draw.int8(shape), scale=scales, axis=axis)
    if draw.chance(0.15):
        return weights, -1, output_scale
    bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
    return weights, draw.model.constant(bias.astype(np.int32), scale=bias_scales), output_scale


@dataclass(frozen=True)
class _Window:
    kernel: tuple[int, int]
    options: dict[str, Any]
    output: tuple[int, int]


def _window(draw: _Draw, size: tuple[int, int], *, dilated: bool) -> _Window:
    same = draw.chance(0.5)
    kernel, stride, dilation, output = [], [], [], []
    for pixels in size:
        taps, spread = draw.pick((1, 1, 2, 3, 3, 3, 4, 5, 7)), draw.integer(1, 3) if dilated and draw.chance(0.3) else 1
        if not same:
            taps = min(taps, pixels)
            while (taps - 1) * spread + 1 > pixels:
                spread -= 1
        step = draw.integer(1, 3)
        kernel.append(taps)
        stride.append(step)
        dilation.append(spread)
        output.append(-(-pixels // step) if same else (pixels - (taps - 1) * spread - 1) // step + 1)
    options = {"padding": padding_code("SAME" if same else "VALID"), "strideH": stride[0], "strideW": stride[1]}
    if dilated:
        options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
    return _Window((kernel[0], kernel[1]), options, (output[0], output[1]))


def _convolution(draw: _Draw, source: int | None = None) -> int:
    source = draw.input(draw.image()) if source is None else source
    batch, height, width, depth = draw.shape(source)
    window = _window(draw, (height, width), dilated=True)
    channels = draw.pick((*_CHANNELS, draw.integer(1, 70)))
    if window.kernel[0] * window.kernel[1] > 9:
        channels = min(channels, 16)
    weights, bias, scale = _weights(draw, (channels, *window.kernel, depth), 0, source, depth * math.prod(window.kernel))
    target = draw.model.activation((batch, *window.output, channels), scale, draw.zero_point())
    fused = activation_code(draw.pick(_FUSED))
    draw.model.operator("CONV_2D", [source, weights, bias], [target], fusedActivationFunction=fused, **window.options)
    return target


def _depthwise(draw: _Draw, source: int | None = None) -> int:
    source = draw.input(draw.image()) if source is None else source
    batch, height, width, depth = draw.shape(source)
    window = _window(draw, (height, width), dilated=True)
    multiplier = draw.integer(2, 4) if depth <= 17 and draw.chance(0.4) else 1
    channels = depth * multiplier
    weights, bias, scale = _weights(draw, (1, *window.kernel, channels), 3, source, math.prod(window.kernel))
    target = draw.model.activation((batch, *window.output, channels), scale, draw.zero_point())
    draw.model.operator(
        "DEPTHWISE_CONV_2D",
        [source, weights, *([bias] if bias >= 0 else [])],  # TFLM crashes on an input of -1 here
        [target],
        depthMultiplier=multiplier,
        fusedActivationFunction=activation_code(draw.pick(_FUSED)),
        **window.options,
    )
    return target


def _fully_connected(draw: _Draw, source: int | None = None) -> int:
    if source is None:
        features = draw.pick((*_CHANNELS, draw.integer(1, 300)))
        leading = draw.pick(((1,), (1,), (draw.integer(2, 5),), (2, 3), (1, 2, 2)))
        source = draw.input((*leading, features))
    shape = draw.shape(source)
    features = shape[-1]
    channels = draw.pick((*_CHANNELS, draw.integer(1, 70)))
    weights, bias, scale = _weights(draw, (channels, features), 0, source, features)
    keep = len(shape) > 2 and draw.chance(0.5)
    target_shape = (*shape[:-1], channels) if keep else (math.prod(shape[:-1]), channels)
    target = draw.model.activation(target_shape, scale, draw.zero_point())
    fused = activation_code(draw.pick(_FUSED))
    draw.model.operator("FULLY_CONNECTED", [source, weights, bias], [target], keepNumDims=keep, fusedActivationFunction=fused)
    return target


def _add(draw: _Draw, source: int | None = None, other: int | None = None) -> int:
    source = draw.input(draw.image()) if source is None else source
    shape = draw.shape(source)
    scale = draw.scale_of(source) * 2 ** draw.generator.uniform(-4, 4)
    if other is None and draw.chance(0.3):
        small = draw.pick((shape, (1,) * (len(shape) - 1) + shape[-1:], (), (1,)))
        other = draw.model.constant(draw.int8(small, -128), scale=scale, zero_point=draw.zero_point())
    elif other is None:
        other = draw.input(shape, scale)
    largest = max(draw.scale_of(source), draw.scale_of(other))
    target = draw.model.activation(shape, largest * 2 ** draw.generator.uniform(-3, 3), draw.zero_point())
    pair = [source, other] if draw.chance(0.7) else [other, source]
    draw.model.operator("ADD", pair, [target], fusedActivationFunction=activation_code(draw.pick(_FUSED)))
    return target


def _pool(name: str) -> Callable[[_Draw], int]:
    def pool(draw: _Draw, source: int | None = None) -> int:
        source = draw.input(draw.image()) if source is None else source
        batch, height, width, depth = draw.shape(source)
        window = _window(draw, (height, width), dilated=False)
        target = draw.model.activation((batch, *window.output, depth), draw.scale_of(source), draw.zero_point_of(source))
        fused = activation_code(draw.pick(_FUSED))
        sizes: dict[str, Any] = {"filterHeight": window.kernel[0], "filterWidth": window.kernel[1]}
        draw.model.operator(name, [source], [target], fusedActivationFunction=fused, **sizes, **window.options)
        return target

    return pool


def _pad(name: str) -> Callable[[_Draw], int]:
    def pad(draw: _Draw, source: int | None = None) -> int:
        if source is None:
            shape = draw.image()[draw.pick((0, 0, 0, 1, 2)) :]
            source = draw.input(shape)
        shape = draw.shape(source)
        amounts = np.array([[draw.integer(0, 3), draw.integer(0, 3)] for _ in shape], dtype=np.int32)
        if len(shape) == 4:
            amounts[0] = 0
        if draw.chance(0.5):
            amounts[-1] = 0
        sizes = tuple(int(size) for size in np.array(shape) + amounts.sum(axis=1))
        target = draw.model.activation(sizes, draw.scale_of(source), draw.zero_point_of(source))
        operands = [source, draw.model.constant(amounts)]
        if name == "PADV2":
            value = np.array([draw.integer(-128, 127)], dtype=np.int8)
            operands.append(draw.model.constant(value, scale=draw.scale_of(source), zero_point=draw.zero_point_of(source)))
        draw.model.operator(name, operands, [target])
        return target

    return pad


def _reshape(draw: _Draw, source: int | None = None) -> int:
    source = draw.input(draw.image()) if source is None else source
    shape = draw.shape(source)
    name = draw.pick(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"))
    if name == "SQUEEZE":
        target_shape = tuple(size for size in shape if size != 1) or (1,)
    elif name == "EXPAND_DIMS" and len(shape) < 4:
        target_shape = (1, *shape)
    else:
        name, elements = "RESHAPE", math.prod(shape)
        width = draw.pick(tuple(size for size in range(1, elements + 1) if elements % size == 0))
        target_shape = draw.pick(((elements,), (1, elements), (elements // width, width), (1, elements // width, width)))
    target = draw.model.activation(target_shape, draw.scale_of(source), draw.zero_point_of(source))
    if name == "SQUEEZE":
        draw.model.operator(name, [source], [target])
    else:
        operand = np.array(target_shape if name == "RESHAPE" else 0, dtype=np.int32)
        draw.model.operator(name, [source, draw.model.constant(operand)], [target])
    return target


def _unary(name: str) -> Callable[[_Draw], int]:
    def unary(draw: _Draw, source: int | None = None) -> int:
        sigmoidal = name in ("LOGISTIC", "TANH")
        if source is None:
            source = draw.input(
                draw.pick((draw.image(), (1, 256), (draw.integer(1, 300),))), draw.scale(-4, 1) if sigmoidal else None
            )
        scale, zero_point = draw.scale_of(source), draw.zero_point_of(source)
        if name == "LOGISTIC":
            scale, zero_point = 1 / 256, -128
        elif name == "TANH":
            scale, zero_point = 1 / 128, 0
        elif draw.chance(0.6):
            scale, zero_point = scale * 2 ** draw.generator.uniform(-4, 4), draw.zero_point()
        target = draw.model.activation(draw.shape(source), scale, zero_point)
        draw.model.operator(name, [source], [target])
        return target

    return unary


def _softmax(draw: _Draw) -> int:
    source = draw.input((draw.integer(1, 3), draw.integer(1, 40)), draw.scale(-3, 0))
    target = draw.model.activation(draw.shape(source), 1 / 256, -128)
    draw.model.operator("SOFTMAX", [source], [target], beta=1.0)
    return target


#: Every operator that has a kernel in TFLM (RELU_N1_TO_1 alone has none), SOFTMAX last.
OPERATORS: dict[str, Callable[[_Draw], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": _pool("MAX_POOL_2D"),
    "PAD": _pad("PAD"),
    "PADV2": _pad("PADV2"),
    "RESHAPE": _reshape,
    "LOGISTIC": _unary("LOGISTIC"),
    "TANH": _unary("TANH"),
    "QUANTIZE": _unary("QUANTIZE"),
    "RELU": _unary("RELU"),
    "RELU6": _unary("RELU6"),
    "SOFTMAX": _softmax,
}

#: Operators by how often :func:`random_model` takes them: those with most variants most.
_FREQUENT = (*("CONV_2D",) * 6, *("DEPTHWISE_CONV_2D",) * 5, *("FULLY_CONNECTED",) * 3, *("ADD",) * 2, *OPERATORS)


def operator_model(operator: str, seed: int) -> RandomModel:
    """A model of one operator."""
    draw = _Draw(seed)
    target = OPERATORS[operator](draw)
    return draw.finish(f"{operator} seed {seed}", target)


def random_model(seed: int) -> RandomModel:
    """A model of one random operator; convolutions come most often."""
    return operator_model(_FREQUENT[seed % len(_FREQUENT)], seed)


def graph_model(seed: int) -> RandomModel:
    """A small graph: pads before convolutions, standalone activations, a residual ADD, a pool, RESHAPE and
    FULLY_CONNECTED; some intermediate tensors are outputs too."""
    draw = _Draw(seed)
    current = draw.input((1, draw.integer(4, 9), draw.integer(4, 9), draw.integer(1, 12)))
    outputs = []
    for _ in range(draw.integer(1, 3)):
        step = draw.integer(0, 4)
        if step == 0:
            current = OPERATORS["PAD"](draw, current)  # type: ignore[call-arg]
        current = (_depthwise if draw.chance(0.5) else _convolution)(draw, current)
        if step == 1:
            current = OPERATORS[draw.pick(("RELU", "RELU6", "QUANTIZE", "TANH"))](draw, current)  # type: ignore[call-arg]
        if step == 2:
            current = _add(draw, current, OPERATORS["RELU"](draw, current))  # type: ignore[call-arg]
        if step == 3:
            current = OPERATORS[draw.pick(("AVERAGE_POOL_2D", "MAX_POOL_2D"))](draw, current)  # type: ignore[call-arg]
        if draw.chance(0.2):
            outputs.append(current)
    current = _reshape(draw, current)
    if draw.chance(0.7):
        current = _fully_connected(draw, current)
    return draw.finish(f"graph seed {seed}", *dict.fromkeys([*outputs, current]))
