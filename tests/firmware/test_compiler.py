"""Whole programs: random graphs on the interpreter against the graph's own arithmetic, and the compiler's refusals."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from support.graphs.random_graphs import random_graph, random_input
from support.models.files import MLPERF_TINY, model_path

from systola_firmware.compiler import compile_graph, compile_model
from systola_firmware.errors import CompileError, DoesNotFit, UnsupportedModel
from systola_firmware.importer import load_tflite
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Add, Convolution, DepthwiseConvolution, Lookup, Pool, PoolKind, Reshape, Softmax
from systola_firmware.ir.passes import run_passes
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.lowering.cost import predict
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, decode_program
from systola_firmware.spec.presets import preset
from systola_sim.golden.graph_model import evaluate
from systola_sim.machine.interpreter import Schedule, execute

CONFIGS = [preset(name) for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]


def check(graph: Graph, config: Config, *, keep_tensors: bool, seed: int = 0) -> None:
    """Compile, run twice on a memory full of garbage, under both extreme orders of events, and compare every
    element."""
    program = compile_graph(graph, config, keep_tensors=keep_tensors)
    generator = np.random.default_rng(seed)
    weights = generator.integers(-128, 128, config.weight_bytes).astype(np.int8)
    weights[: len(program.weights)] = np.frombuffer(program.weights, np.int8)
    compared = [*program.outputs, *(record.output for record in program.layers if keep_tensors)]
    for schedule in Schedule:
        memory = generator.integers(-128, 128, config.activation_bytes).astype(np.int8)
        for address, data in program.constants:
            memory[address : address + len(data)] = np.frombuffer(data, np.int8)
        for run in range(2):
            inputs = [random_input(seed + 1000 * run + i, tensor) for i, tensor in enumerate(graph.inputs)]
            for binding, values in zip(program.inputs, inputs, strict=True):
                placement = binding.placement
                memory[placement.start : placement.start + placement.size] = np.frombuffer(placement.pack(values), np.int8)
            outcome = execute(config, program.words, memory, weights, schedule=schedule)
            assert outcome.error is ErrorCode.NONE, f"{outcome} in {graph.name}"
            assert len(outcome.marks) == sum(record.mark >= 0 for record in program.layers)
            expected = evaluate(graph, inputs)
            for binding in compared:
                placement = binding.placement
                found = placement.unpack(memory[placement.start : placement.start + placement.size].tobytes())
                where = f"{graph.name} on {config.name}, {schedule.value}, run {run}, tensor {binding.name}"
                assert np.array_equal(found.reshape(binding.shape), expected[binding.name]), where


def wide(config: Config) -> Config:
    """The same engine with room to keep every tensor."""
    return config.replace(activation_bytes=1 << 17)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("block", range(4))
def test_random_graphs_compute_what_they_mean(config: Config, block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        graph = random_graph(seed)
        check(graph, config, keep_tensors=False, seed=seed)
        check(graph, wide(config), keep_tensors=True, seed=seed)


@pytest.mark.full
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_many_random_graphs(config: Config) -> None:
    config = config.replace(weight_bytes=1 << 18)  # nine dense layers can be more than a tiny engine holds
    for seed in range(1000, 1400):
        graph = random_graph(seed, layers=9)
        check(graph, config, keep_tensors=False, seed=seed)
        check(graph, wide(config), keep_tensors=True, seed=seed)


class Maker:
    """Single layers with random weights."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def requantization(self, channels: int, shift: int) -> Requantization:
        multiplier = self.generator.integers(1 << 30, 1 << 31, channels, dtype=np.int64).astype(np.int32)
        return Requantization(multiplier, np.full(channels, shift, np.int32))

    def int8(self, *shape: int) -> np.ndarray:
        return self.generator.integers(-128, 128, shape).astype(np.int8)

    def graph(self, layer: Layer) -> Graph:
        return Graph(layer.name, layer.inputs, (layer.output,), (layer,))

    def convolution(
        self, shape: tuple[int, int, int, int], out: tuple[int, int, int], kernel: tuple[int, int], **options: object
    ) -> Graph:
        channels = out[2]
        layer = Convolution(
            f"convolution {shape} to {out}",
            (Tensor("x", shape, 1.0, 5),),
            Tensor("y", (shape[0], *out), 1.0, -3),
            weights=self.int8(channels, *kernel, shape[3]),
            bias=self.generator.integers(-999, 999, channels).astype(np.int32),
            requantization=self.requantization(channels, -9),
            **options,
        )
        return self.graph(layer)

    def depthwise(self, shape: tuple[int, int, int, int], multiplier: int, kernel: int, **options: object) -> Graph:
        n, h, w, c = shape
        channels = c * multiplier
        layer = DepthwiseConvolution(
            f"depthwise {shape} times {multiplier}",
            (Tensor("x", shape, 1.0, 5),),
            Tensor("y", (n, h, w, channels), 1.0, -3),
            weights=self.int8(kernel, kernel, channels),
            bias=self.generator.integers(-999, 999, channels).astype(np.int32),
            requantization=self.requantization(channels, -7),
            padding=Padding(kernel // 2, kernel // 2, kernel // 2, kernel // 2),
            **options,
        )
        return self.graph(layer)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("multiplier", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("channels", [1, 3, 5, 17])
def test_every_depthwise_multiplier(config: Config, multiplier: int, channels: int) -> None:
    maker = Maker(multiplier)
    check(maker.graph(maker.depthwise((1, 4, 3, channels), multiplier, 3).layers[0]), config, keep_tensors=False)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_rows_longer_than_the_accumulators_are_cut(config: Config) -> None:
    width = 2 * config.accumulator_depth + 37
    check(Maker(1).convolution((1, 3, width, 2), (2, width - 1, 3), (2, 2)), config, keep_tensors=False)
    check(Maker(2).convolution((2, 1, width, 1), (1, width, 5), (1, 1)), config, keep_tensors=False)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_dilated_and_packed_kernels(config: Config) -> None:
    check(Maker(3).convolution((1, 9, 9, 18), (5, 5, 7), (3, 3), dilation=(2, 2)), config, keep_tensors=False)
    check(Maker(4).convolution((1, 12, 5, 1), (8, 3, 9), (5, 3)), config, keep_tensors=False)  # kernel rows share a chunk
    check(Maker(5).convolution((1, 12, 4, 3), (8, 1, 9), (5, 4)), config, keep_tensors=False)  # kernel as wide as the image
    check(Maker(6).convolution((1, 14, 4, 2), (6, 4, 9), (5, 1), dilation=(2, 3)), config, keep_tensors=False)


def test_fully_connected_over_the_pixels_of_an_image() -> None:
    """Rank 4 in and out, stored with a border on both sides; a 1 × 1 convolution computes the same."""
    maker = Maker(13)
    x, y, z = Tensor("x", (2, 5, 6, 7), 1.0, 4), Tensor("y", (2, 5, 6, 9), 1.0, -2), Tensor("z", (2, 5, 6, 3), 1.0, 0)
    w = Tensor("w", (2, 5, 6, 2), 1.0, 1)

    def border(source: Tensor, target: Tensor) -> Convolution:
        return Convolution(
            f"to {target.name}",
            (source,),
            target,
            weights=maker.int8(target.shape[3], 3, 3, source.shape[3]),
            bias=np.zeros(target.shape[3], np.int32),
            requantization=maker.requantization(1, -9),
            padding=Padding(1, 1, 1, 1),
        )

    dense = Convolution(
        "dense",
        (x,),
        y,
        weights=maker.int8(9, 1, 1, 7),
        bias=np.arange(9, dtype=np.int32),
        requantization=maker.requantization(9, -8),
        fully_connected=True,
    )
    others = (border(y, z), border(x, w))
    for input_bordered in (False, True):
        rest = others if input_bordered else others[:1]
        outputs = (z, w) if input_bordered else (z,)
        config = wide(preset("ulx3s-85f"))
        words = [
            compile_graph(Graph("g", (x,), outputs, (layer, *rest)), config).words
            for layer in (dense, dataclasses.replace(dense, fully_connected=False))
        ]
        assert np.array_equal(*words)
        check(Graph("g", (x,), outputs, (dataclasses.replace(dense, fully_connected=False), *rest)), config, keep_tensors=True)


def test_a_reduction_longer_than_a_count_field() -> None:
    config = preset("tiny-4x4").replace(activation_bytes=1 << 16, weight_bytes=1 << 18)
    features = 4 * 4095 + 501
    layer = Convolution(
        "long",
        (Tensor("x", (1, features), 1.0, 1),),
        Tensor("y", (1, 3), 1.0, 0),
        weights=Maker(7).int8(3, 1, 1, features),
        bias=np.zeros(3, np.int32),
        requantization=Maker(7).requantization(1, -14),
        fully_connected=True,
    )
    check(Maker(7).graph(layer), config, keep_tensors=False)


def resnet(maker: Maker) -> Graph:
    """The layers of ResNet-8 for 32 × 32 images, random weights."""
    layers: list[Layer] = []

    def tensor(shape: tuple[int, ...]) -> Tensor:
        return Tensor(f"t{len(layers)}", shape, 1.0, -128)

    def convolution(x: Tensor, channels: int, kernel: int, stride: int) -> Tensor:
        n, h, w, c = x.nhwc
        total = max(kernel - stride, 0)
        before, after = total // 2, total - total // 2
        y = tensor((n, h // stride, w // stride, channels))
        layers.append(
            Convolution(
                f"convolution {len(layers)}",
                (x,),
                y,
                weights=maker.int8(channels, kernel, kernel, c),
                bias=np.zeros(channels, np.int32),
                requantization=maker.requantization(channels, -10),
                stride=(stride, stride),
                padding=Padding(before, after, before, after),
            )
        )
        return y

    def add(x: Tensor, y: Tensor) -> Tensor:
        z = tensor(x.shape)
        tables = tuple(maker.generator.integers(-(1 << 26), 1 << 26, 256).astype(np.int32) for _ in range(2))
        layers.append(
            Add(f"add {len(layers)}", (x, y), z, tables=(tables[0], tables[1]), requantization=maker.requantization(1, -19))
        )
        return z

    x = image = Tensor("image", (1, 32, 32, 3), 1.0, -128)
    x = convolution(x, 16, 3, 1)
    x = add(x, convolution(convolution(x, 16, 3, 1), 16, 3, 1))
    for channels in (32, 64):
        y = convolution(convolution(x, channels, 3, 2), channels, 3, 1)
        x = add(convolution(x, channels, 1, 2), y)
    y = tensor((1, 1, 1, 64))
    layers.append(Pool("pool", (x,), y, kind=PoolKind.AVERAGE, window=(8, 8), stride=(8, 8)))
    z = tensor((1, 64))
    layers.append(Reshape("reshape", (y,), z))
    logits = tensor((1, 10))
    layers.append(
        Convolution(
            "dense",
            (z,),
            logits,
            weights=maker.int8(10, 1, 1, 64),
            bias=np.zeros(10, np.int32),
            requantization=maker.requantization(1, -8),
            fully_connected=True,
        )
    )
    softmax = Tensor("softmax", (1, 10), 1 / 256, -128)
    layers.append(Softmax("softmax 14", (logits,), softmax))
    return Graph("resnet", (image,), (softmax,), tuple(layers))


def test_resnet_is_exact_and_within_its_cycles() -> None:
    config = preset("ulx3s-85f")
    graph = resnet(Maker(8))
    program = compile_graph(graph, config)
    cycles = sum(record.predicted_cycles for record in program.layers)
    assert cycles == predict([operation for _, operation in decode_program(program.words.tolist())], config)[-1]
    assert cycles <= 140_000 / 1.15  # the model leaves out port conflicts
    assert program.macs == 12_501_632
    assert program.layers[-1].mark == program.layers[-3].mark == -1  # SOFTMAX and RESHAPE have no instructions
    assert program.notes == ("softmax 14 runs in the driver, not on the device",)
    (step,) = program.softmax
    assert (step.output, step.name, program.outputs[0].name) == (0, "softmax", graph.layers[-2].output.name)
    check(graph, config, keep_tensors=False)


def test_a_model_that_does_not_fit_says_how_much_is_missing() -> None:
    graph = resnet(Maker(9))
    config = preset("ulx3s-85f")
    with pytest.raises(DoesNotFit, match=r"layer \w+ \d+ needs \d+ bytes of activation memory but there are 32768"):
        compile_graph(graph, config.replace(activation_bytes=32 * 1024))
    with pytest.raises(DoesNotFit, match=r"needs \d+ bytes of weight memory but there are 65536"):
        compile_graph(graph, config.replace(weight_bytes=64 * 1024))
    with pytest.raises(DoesNotFit, match=r"needs \d+ words of program store but there are 256"):
        compile_graph(graph, config.replace(program_words=256))


def test_what_the_engine_cannot_do_is_refused() -> None:
    x, y, z = Tensor("x", (1, 4, 4, 6), 1.0, 0), Tensor("y", (1, 4, 4, 4), 1.0, 0), Tensor("z", (1, 4, 4, 4), 1.0, 0)
    maker = Maker(10)
    grouped = Convolution(
        "grouped",
        (x,),
        y,
        weights=maker.int8(4, 1, 1, 3),
        bias=np.zeros(4, np.int32),
        requantization=maker.requantization(4, -8),
    )
    with pytest.raises(CompileError, match="grouped convolution is not supported"):
        compile_graph(maker.graph(grouped), CONFIGS[0])
    layers = (Softmax("softmax", (y,), z), Lookup("after", (z,), x, table=maker.int8(256)))
    with pytest.raises(UnsupportedModel, match="SOFTMAX is supported only there"):
        compile_graph(Graph("g", (y,), (x,), layers), CONFIGS[0])


def test_first_use_of_a_table_is_the_only_load() -> None:
    """Two lookups through the same table load it once."""
    x, y, z = (Tensor(name, (1, 8), 1.0, 0) for name in "xyz")
    table = Maker(11).int8(256)
    layers = (Lookup("a", (x,), y, table=table), Lookup("b", (y,), z, table=table))
    graph = Graph("twice", (x,), (z,), layers)
    program = compile_graph(graph, CONFIGS[0])
    assert sum(operation.opcode is Opcode.TABLE for _, operation in decode_program(program.words.tolist())) == 1
    check(graph, CONFIGS[0], keep_tensors=False)


def test_working_in_place_renews_a_border_of_another_value() -> None:
    """Two bordered tensors in the same memory with different zero points."""
    maker = Maker(14)
    x, a, b = (Tensor(name, (1, 5, 5, 3), 1.0, zero_point) for name, zero_point in (("x", 0), ("a", 50), ("b", -60)))
    ya, yb = Tensor("ya", (1, 5, 5, 4), 1.0, 0), Tensor("yb", (1, 5, 5, 4), 1.0, 0)

    def convolution(source: Tensor, target: Tensor) -> Convolution:
        return Convolution(
            f"to {target.name}",
            (source,),
            target,
            weights=maker.int8(4, 3, 3, 3),
            bias=np.zeros(4, np.int32),
            requantization=maker.requantization(1, -8),
            padding=Padding(1, 1, 1, 1),
        )

    layers = (
        Lookup("to a", (x,), a, table=maker.int8(256)),
        convolution(a, ya),
        Lookup("to b", (a,), b, table=maker.int8(256)),
        convolution(b, yb),
    )
    graph = Graph("two borders", (x,), (ya, yb), layers)
    records = compile_graph(graph, CONFIGS[2]).layers
    assert records[0].output.placement.start == records[2].output.placement.start  # it does work in placement
    check(graph, CONFIGS[2], keep_tensors=False)


@pytest.mark.parametrize("name", MLPERF_TINY)
def test_mlperf_tiny_fits_the_board_and_is_exact(name: str) -> None:
    config = preset("ulx3s-85f")
    path = model_path(name)
    program = compile_model(path, config)
    again = compile_model(path.read_bytes(), config, name=path.stem)
    assert np.array_equal(program.words, again.words)
    assert (again.model, again.weights) == (path.stem, program.weights)
    check(run_passes(load_tflite(path)), config, keep_tensors=False)


def test_keep_tensors_gives_every_tensor_its_own_memory() -> None:
    graph = resnet(Maker(12))
    config = wide(preset("ulx3s-85f"))
    program = compile_graph(graph, config, keep_tensors=True)
    regions = sorted({(r.output.placement.start, r.output.placement.size) for r in program.layers if r.mark >= 0})
    assert len(regions) == sum(record.mark >= 0 for record in program.layers)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(regions))
    assert program.activation_bytes_used <= config.activation_bytes
