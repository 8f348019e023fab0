"""Which steps of a convolution's multiplier are float32 and which double: TFLM is asked where the answer shows.

A multiplier that is one float32 rounding off changes about one element in 100,000, so random models seldom tell. Here
scales and sums are chosen near ties, where the formulas that one could confuse give different answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.graphs.rescaling import rescaled, rescaled_by, single
from support.models.builder import ModelBuilder, padding_code
from support.oracle.tflm import Oracle

from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import convolution_requantization

Int64Array = npt.NDArray[np.int64]
Formula = Callable[[float, float, float], float]

WINDOW = {"padding": padding_code("VALID"), "strideW": 1, "strideH": 1}
DILATION = {"dilationWFactor": 1, "dilationHFactor": 1}
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


#: What a convolution's multiplier is not, of the scales of input, weights and output.
WRONG_WIDTHS: Mapping[str, Formula] = {
    "product in float32": lambda source, weight, target: single(source * weight) / target,
    "quotient in float32": lambda source, weight, target: single(source * weight / target),
    "all in float32": lambda source, weight, target: single(single(source * weight) / target),
}
WRONG_ORDERS: Mapping[str, Formula] = {
    "weight by output first": lambda source, weight, target: source * (weight / target),
    "input by output first": lambda source, weight, target: source / target * weight,
}


def telling_sums(scales: tuple[float, float, float], wrong: Mapping[str, Formula]) -> Int64Array:
    """Accumulators, near the ties, where some wrong formula gives another answer than ``input · weight / output`` in
    double."""
    source, weight, target = scales
    real = source * weight / target
    ties = np.array([round((output + 0.5) / real) for output in range(-120, 120)])
    offsets = np.arange(-40, 41)
    sums = (ties[:, np.newaxis] + offsets).reshape(-1)
    sums = sums[np.abs(sums) < 1 << 31]
    right = rescaled(sums, real)
    tells = np.zeros(sums.shape, dtype=np.bool_)
    for formula in wrong.values():
        tells |= rescaled(sums, formula(*scales)) != right
    return sums[tells]


def convolution_of_bias(operator: str, source: float, weights: list[float], target: float, bias: Int64Array) -> Int8Array:
    """TFLM's answer of an operator whose accumulators are its bias: weights are zero, with one scale or one for each
    channel."""
    channels = len(bias)
    plain = operator == "FULLY_CONNECTED"
    shapes = {"CONV_2D": (channels, 1, 1, 1), "DEPTHWISE_CONV_2D": (1, 1, 1, channels), "FULLY_CONNECTED": (channels, 1)}
    model = ModelBuilder()
    x = model.activation((1, 1) if plain else (1, 1, 1, 1), source, 0)
    w = model.constant(np.zeros(shapes[operator], np.int8), scale=weights, axis=3 if operator == "DEPTHWISE_CONV_2D" else 0)
    b = model.constant(bias.astype(np.int32), scale=[source * weight for weight in weights])
    y = model.activation((1, channels) if plain else (1, 1, 1, channels), target, 0)
    options: dict[str, Any] = {} if plain else WINDOW | DILATION
    if operator == "DEPTHWISE_CONV_2D":
        options |= {"depthMultiplier": channels}
    model.operator(operator, [x, w, b], [y], fusedActivationFunction=0, **options)
    (answer,) = Oracle(model.finish([x], [y])).run(np.zeros((1, 1) if plain else (1, 1, 1, 1), np.int8))
    return answer.reshape(-1)


def random_scales(generator: np.random.Generator) -> tuple[float, float, float]:
    """Scales of input, weights and output with a product that makes int8 of sums near 2^31: those tell most."""
    source, weight = (single(10**exponent) for exponent in generator.uniform(-3, -1, 2))
    return source, weight, single(source * weight / 10 ** generator.uniform(-7, -6.5))


@pytest.mark.parametrize("operator", CONVOLUTIONS)
def test_convolutions_keep_product_and_quotient_in_double(operator: str) -> None:
    """One scale for the tensor."""
    generator = np.random.default_rng(7)
    differing = dict.fromkeys(WRONG_WIDTHS, 0)
    for _ in range(10):
        scales = random_scales(generator)
        sums = telling_sums(scales, WRONG_WIDTHS)[:400]
        answer = convolution_of_bias(operator, scales[0], [scales[1]], scales[2], sums)
        assert np.array_equal(answer, rescaled_by(sums, convolution_requantization(scales[0], [scales[1]], scales[2])))
        for name, formula in WRONG_WIDTHS.items():
            differing[name] += np.count_nonzero(answer != rescaled(sums, formula(*scales)))
    assert min(differing.values()) > 500, differing


@pytest.mark.parametrize("operator", CONVOLUTIONS)
def test_convolutions_keep_each_channels_scale_in_double(operator: str) -> None:
    """A scale and a telling sum of its own for each channel."""
    generator = np.random.default_rng(8)
    source, target = single(0.017), 31.0
    weights: list[float] = []
    sums: list[int] = []
    while len(weights) < 200:
        weight = single(target / source * 10 ** generator.uniform(-7, -6.5))
        candidates = telling_sums((source, weight, target), WRONG_WIDTHS)
        if candidates.size:
            weights.append(weight)
            sums.append(int(generator.choice(candidates)))
    answer = convolution_of_bias(operator, source, weights, target, np.array(sums))
    assert np.array_equal(answer, rescaled_by(sums, convolution_requantization(source, weights, target)))
    for name, formula in WRONG_WIDTHS.items():
        wrong = [rescaled(value, formula(source, weight, target)) for value, weight in zip(sums, weights, strict=True)]
        assert np.count_nonzero(answer != wrong) > 50, name


#: Scales of input, weights and output whose quotient in double depends on the order of operations in the multiplier's
#: last bit.
ORDER_SCALES = [
    (0.009407931007444859, 0.02343270182609558, 1234.1229248046875),
    (0.010961923748254776, 0.004079875536262989, 256.6009521484375),
    (0.04507379233837128, 0.010395740158855915, 8214.97265625),
    (0.0037067439407110214, 0.011412332765758038, 786.8676147460938),
    (0.08669871836900711, 0.011310278438031673, 8400.75),
    (0.002911666873842478, 0.0026478925719857216, 30.53748893737793),
]


@pytest.mark.parametrize("operator", CONVOLUTIONS)
@pytest.mark.parametrize("channelwise", [False, True], ids=["one_scale", "channels"])
def test_convolutions_multiply_before_they_divide(operator: str, channelwise: bool) -> None:
    differing = dict.fromkeys(WRONG_ORDERS, 0)
    for source, weight, target in ORDER_SCALES:
        sums = telling_sums((source, weight, target), WRONG_ORDERS)
        weights = [weight] * (len(sums) if channelwise else 1)
        answer = convolution_of_bias(operator, source, weights, target, sums)
        assert np.array_equal(answer, rescaled_by(sums, convolution_requantization(source, weights, target)))
        for name, formula in WRONG_ORDERS.items():
            differing[name] += np.count_nonzero(answer != rescaled(sums, formula(source, weight, target)))
    assert min(differing.values()) > 50, differing


def test_without_a_bias_the_product_stays_in_double() -> None:
    """Sums made by the inputs: FULLY_CONNECTED has a path of its own for an absent bias, and 255 · 400 · 127 is enough
    to tell."""
    generator = np.random.default_rng(9)
    features = np.full(401, 127, np.int8)
    features[400] = -127  # with the zero point -128: 400 times 255, and 1
    differing = 0
    for _ in range(20):
        source, weight = (single(10**exponent) for exponent in generator.uniform(-3, -1, 2))
        target = single(source * weight / 10 ** generator.uniform(-5, -4.5))
        sums = telling_sums((source, weight, target), WRONG_WIDTHS)
        sums = sums[np.abs(sums) < 255 * 400 * 126]
        if not sums.size:
            continue
        wholes, units = np.divmod(sums + 127, 255)
        weights = np.empty((len(sums), 401), np.int8)
        weights[:, :400] = (wholes[:, np.newaxis] + np.arange(400)) // 400
        weights[:, 400] = units - 127
        assert np.array_equal(weights.astype(np.int64) @ (features.astype(np.int64) + 128), sums)
        model = ModelBuilder()
        x = model.activation((1, 401), source, -128)
        w = model.constant(weights, scale=[weight])
        y = model.activation((1, len(sums)), target, 0)
        model.operator("FULLY_CONNECTED", [x, w, -1], [y], fusedActivationFunction=0, keepNumDims=False)
        (answer,) = Oracle(model.finish([x], [y])).run(features.reshape(1, -1))
        assert np.array_equal(answer.reshape(-1), rescaled_by(sums, convolution_requantization(source, [weight], target)))
        differing += np.count_nonzero(answer.reshape(-1) != rescaled(sums, single(source * weight) / target))
    assert differing > 200
