"""Which steps are float32 and which double in the parameters of ADD, QUANTIZE, RELU and of activation ranges: TFLM is
asked where the answer shows, at scales that bring ties."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from support.graphs.rescaling import rescaled, rescaled_by, single
from support.models.builder import ModelBuilder, activation_code, padding_code
from support.oracle.tflm import Oracle

from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics import lookup_tables
from systola_firmware.numerics.arrays import Int8Array
from systola_firmware.numerics.quantization import (
    TABLE_DOMAIN,
    Activation,
    activation_range,
    add_parameters,
    quantize_multiplier,
    requantize,
    round_half_away,
)

RAMP = TABLE_DOMAIN.astype(np.int8)


def add_with(scales: tuple[float, float], target: float, narrow: str, left_shift: int = 20) -> npt.NDArray[np.int64]:
    """ADD of all pairs of int8, zero points 0, with float32 quotients for the operand that is ``narrow``."""
    widest = 2 * max(scales)
    quotients = [scale / widest for scale in scales]
    output = widest / ((1 << left_shift) * target)
    if narrow == "inputs":
        quotients = [single(quotient) for quotient in quotients]
    if narrow == "output":
        output = single(output)
    rows, columns = (requantize(TABLE_DOMAIN << left_shift, *quantize_multiplier(quotient)) for quotient in quotients)
    return rescaled(rows[:, np.newaxis] + columns, output)


def test_add_keeps_its_multipliers_in_double() -> None:
    """Scales that are fractions of the output's: many sums come near ties."""
    generator = np.random.default_rng(10)
    first, second = np.meshgrid(RAMP, RAMP, indexing="ij")
    differing = {"inputs": 0, "output": 0, "left shift": 0}
    for _ in range(16):
        target = single(10 ** generator.uniform(-3, 0))
        steps = generator.integers(0, 12, 2) + 0.5
        scales = single(target * steps[0] / generator.integers(3, 40)), single(target * steps[1] / generator.integers(3, 40))
        model = ModelBuilder()
        operands = [model.activation((256, 256), scale, 0) for scale in scales]
        y = model.activation((256, 256), target, 0)
        model.operator("ADD", operands, [y], fusedActivationFunction=0)
        (answer,) = Oracle(model.finish(operands, [y])).run(first, second)
        tables, output = add_parameters(scales, (0, 0), target)
        assert np.array_equal(answer, rescaled_by(tables[0].astype(np.int64)[:, np.newaxis] + tables[1], output)), (scales, target)
        for narrow in ("inputs", "output"):
            differing[narrow] += np.count_nonzero(answer != add_with(scales, target, narrow))
        differing["left shift"] += np.count_nonzero(answer != add_with(scales, target, "", left_shift=19))
    assert min(differing.values()) > 100, differing


@pytest.mark.parametrize(
    ("operator", "table"),
    [("QUANTIZE", lookup_tables.quantize_table), ("RELU", lookup_tables.relu_table)],
    ids=["QUANTIZE", "RELU"],
)
def test_ratio_of_scales_is_a_double(operator: str, table: Callable[[Tensor, Tensor], Int8Array]) -> None:
    """Ratios where a float32 quotient gives another answer: half a step at some input."""
    generator = np.random.default_rng(5)
    found = 0
    while found < 20:
        target_scale = single(10 ** generator.uniform(-4, 0))
        source_scale = single(target_scale * (generator.integers(0, 200) + 0.5) / generator.integers(1, 200))
        source, target = (Tensor("x", (1, 256), scale, -128) for scale in (source_scale, target_scale))
        centred = TABLE_DOMAIN + 128
        ratio = source_scale / target_scale
        wide, narrow = (
            np.clip(requantize(centred, *quantize_multiplier(real)) - 128, -128, 127) for real in (ratio, single(ratio))
        )
        if np.array_equal(narrow, wide):
            continue
        found += 1
        model = ModelBuilder()
        x, y = (model.activation((1, 256), tensor.scale, tensor.zero_point) for tensor in (source, target))
        model.operator(operator, [x], [y])
        (answer,) = Oracle(model.finish([x], [y])).run(RAMP.reshape(1, 256))
        assert np.array_equal(answer.reshape(-1), table(source, target))
        assert not np.array_equal(answer.reshape(-1), narrow)


def bounds_with(bound: float, scale: float) -> Mapping[str, int]:
    """An activation's bound in steps of ``scale``, by the formulas that one could confuse."""
    return {
        "float32 quotient": round_half_away(single(bound / scale)),
        "double quotient": round_half_away(bound / scale),
        "float32 reciprocal": round_half_away(single(bound * single(1 / scale))),
    }


def telling_scales(bound: float, wanted: int) -> list[float]:
    """Scales that put ``bound`` half a step away from an integer, or next to that, where the formulas differ."""
    scales = []
    for steps in range(255):
        nearest = np.float32(bound / (steps + 0.5))
        for scale in (nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))):
            if len(set(bounds_with(bound, float(scale)).values())) > 1:
                scales.append(float(scale))
    return scales[:: max(1, len(scales) // wanted)]


def clamped_by_tflm(operator: str, activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """Smallest and largest answer of TFLM's kernel with that fused activation, driven beyond both ends."""
    model = ModelBuilder()
    shape = (1, 1, 256, 1)
    x = model.activation(shape, scale, zero_point)
    y = model.activation(shape, scale, zero_point)
    inputs = [x]
    options = {"fusedActivationFunction": activation_code(activation)}
    if operator != "ADD":
        options |= {"padding": padding_code("VALID"), "strideW": 1, "strideH": 1}
    if operator == "ADD":
        inputs = [x, model.constant(np.full(shape, zero_point, np.int8), scale=scale, zero_point=zero_point)]
    elif operator.endswith("POOL_2D"):
        options |= {"filterWidth": 1, "filterHeight": 1}
    else:
        # With the weight 64 · 1/64 the answer is the input.
        inputs = [x, model.constant(np.full((1, 1, 1, 1), 64, np.int8), scale=[1 / 64])]
        options |= {"dilationWFactor": 1, "dilationHFactor": 1}
        if operator == "DEPTHWISE_CONV_2D":
            options |= {"depthMultiplier": 1}
    model.operator(operator, inputs, [y], **options)
    (answer,) = Oracle(model.finish([x], [y])).run(RAMP.reshape(shape))
    return int(answer.min()), int(answer.max())


@pytest.mark.parametrize("operator", ["ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(("activation", "zero_point"), [(Activation.RELU6, -128), (Activation.RELU_N1_TO_1, 0)])
def test_fused_activation_ranges_are_float32_quotients(operator: str, activation: Activation, zero_point: int) -> None:
    bound = activation.real_range[1]
    differing = dict.fromkeys(("double quotient", "float32 reciprocal"), 0)
    for scale in telling_scales(bound, 30):
        answer = clamped_by_tflm(operator, activation.value, scale, zero_point)
        assert answer == activation_range(activation, scale, zero_point), scale
        for formula in differing:
            differing[formula] += answer[1] != min(127, zero_point + bounds_with(bound, scale)[formula])
    assert differing["double quotient"] > 5, differing
    # 1 times a reciprocal is the quotient.
    assert bound == 1 or differing["float32 reciprocal"] > 5, differing


def test_fully_connected_clamps_to_float32_quotients() -> None:
    differing = 0
    for scale in telling_scales(6.0, 60):
        model = ModelBuilder()
        x, y = model.activation((1, 1), scale, 0), model.activation((1, 2), scale, -128)
        w = model.constant(np.zeros((2, 1), np.int8), scale=[0.5])
        bias = model.constant(np.array([-(10**6), 10**6], np.int32), scale=[scale / 2])
        model.operator("FULLY_CONNECTED", [x, w, bias], [y], fusedActivationFunction=activation_code("RELU6"))
        (answer,) = Oracle(model.finish([x], [y])).run(np.zeros((1, 1), np.int8))
        assert tuple(answer.reshape(-1)) == activation_range(Activation.RELU6, scale, -128)
        differing += answer[0, 1] != min(127, -128 + bounds_with(6.0, scale)["double quotient"])
    assert differing > 10


def test_relu6_alone_takes_a_float32_quotient() -> None:
    differing = 0
    for scale in telling_scales(6.0, 60):
        tensor = Tensor("x", (1, 256), scale, -128)
        model = ModelBuilder()
        x, y = (model.activation((1, 256), scale, -128) for _ in range(2))
        model.operator("RELU6", [x], [y])
        (answer,) = Oracle(model.finish([x], [y])).run(RAMP.reshape(1, 256))
        assert np.array_equal(answer.reshape(-1), lookup_tables.relu6_table(tensor, tensor))
        differing += answer.max() != min(127, -128 + bounds_with(6.0, scale)["double quotient"])
    assert differing > 10
