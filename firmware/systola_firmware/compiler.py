"""The compiler: a model file or an integer graph to a :class:`~systola_firmware.program.Program` for one configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from systola_firmware.allocation import Buffer, allocate
from systola_firmware.config import Config
from systola_firmware.cost import predict
from systola_firmware.errors import DoesNotFit
from systola_firmware.graph import Graph, Softmax, Tensor
from systola_firmware.isa import encode_program
from systola_firmware.layout import plan_layouts, round_up, share_buffers
from systola_firmware.lowering import Plan, lower
from systola_firmware.program import Binding, LayerRecord, Program, SoftmaxStep
from systola_firmware.schedule import Scheduled, schedule
from systola_firmware.weights import WeightImage


def compile_model(model: str | Path | bytes, config: Config, *, name: str = "", keep_tensors: bool = False) -> Program:
    """Compile a ``.tflite`` file, by path or as its bytes, under ``name`` (default: the file's).

    Raises :class:`~systola_firmware.errors.CompileError` and its subclasses.
    """
    from systola_firmware.passes import run_passes
    from systola_firmware.tflite_import import import_tflite, load_tflite

    graph = import_tflite(model) if isinstance(model, bytes) else load_tflite(Path(model))
    graph = run_passes(replace(graph, name=name or graph.name))
    return compile_graph(graph, config, keep_tensors=keep_tensors)


def compile_graph(graph: Graph, config: Config, *, keep_tensors: bool = False) -> Program:
    """Compile an integer graph.

    With ``keep_tensors`` no memory is used twice, so that after a run every tensor is still there (``Program.layers[i].output``);
    it needs much more activation memory. Raises :class:`DoesNotFit` when a memory is too small, with the bytes (or words) needed
    and available, and :class:`CompileError` for a graph that the engine cannot run.
    """
    plan, used = plan_memory(graph, config, keep_tensors=keep_tensors)
    image = WeightImage(config)
    lowered = [lower(layer, plan, image, config) for layer in graph.layers]
    weights = image.finish()
    scheduled = schedule(lowered)
    words = encode_program(scheduled.operations)
    if len(words) > config.program_words:
        raise DoesNotFit("program store", len(words), config.program_words, unit="words")
    outputs, softmax = _outputs(graph, plan)
    return Program(
        model=graph.name,
        preset=config.name,
        configuration=config.program_fields(),
        words=np.array(words, dtype=np.uint32),
        weights=weights,
        inputs=tuple(_binding(tensor, plan) for tensor in graph.inputs),
        outputs=outputs,
        layers=_records(graph, plan, scheduled, config),
        constants=_constants(graph, plan),
        softmax=softmax,
        activation_bytes_used=used,
        notes=tuple(f"{layer.name} runs in the driver, not on the device" for layer in graph.layers if isinstance(layer, Softmax)),
    )


@dataclass
class _Life:
    size: int
    first: int
    last: int


def plan_memory(graph: Graph, config: Config, *, keep_tensors: bool = False) -> tuple[Plan, int]:
    """Layouts, buffers and addresses of all tensors, and the bytes used. Raises :class:`DoesNotFit` with the layer that needs
    most."""
    layouts = plan_layouts(graph)
    names = {index: f"layer {layer.name}" for index, layer in enumerate(graph.layers)}
    failure: DoesNotFit | None = None
    for in_place in (False,) if keep_tensors else (True, False):
        buffers = share_buffers(graph, layouts, in_place=in_place)
        lives = _lifetimes(graph, buffers, {name: round_up(layout.size, config.rows) for name, layout in layouts.items()})
        if keep_tensors:
            for life in lives.values():
                life.first, life.last = 0, len(graph.layers)
        requests = [Buffer(name, life.size, life.first, life.last) for name, life in lives.items()]
        try:
            starts = allocate(requests, config.activation_bytes, names)
        except DoesNotFit as error:
            if failure is None or error.needed < failure.needed:
                failure = error
            continue
        placements = {
            name: layout.place(starts[buffers[name]], round_up(layout.size, config.rows)) for name, layout in layouts.items()
        }
        return Plan(layouts, buffers, placements), max((starts[b.name] + b.size for b in requests), default=0)
    assert failure is not None
    raise failure


def _lifetimes(graph: Graph, buffers: dict[str, str], sizes: dict[str, int]) -> dict[str, _Life]:
    """Size, first and last layer of every buffer; inputs are written before the first layer, outputs are read after the last."""
    lives: dict[str, _Life] = {}
    end = len(graph.layers)

    def use(tensor: Tensor, step: int) -> None:
        if tensor.name not in buffers:
            return  # computed by the driver
        life = lives.setdefault(buffers[tensor.name], _Life(0, step, step))
        life.size = max(life.size, sizes[tensor.name])
        life.first, life.last = min(life.first, step), max(life.last, step)
        if tensor.constant is not None:
            life.first, life.last = 0, end

    for tensor in graph.inputs:
        use(tensor, 0)
    for step, layer in enumerate(graph.layers):
        for tensor in layer.inputs:
            use(tensor, end if isinstance(layer, Softmax) else step)
        use(layer.output, step)
    for tensor in graph.outputs:
        use(tensor, end)
    return lives


def _binding(tensor: Tensor, plan: Plan) -> Binding:
    return Binding(tensor.name, tensor.shape, tensor.scale, tensor.zero_point, plan.placements[tensor.name], tensor.index)


def _outputs(graph: Graph, plan: Plan) -> tuple[tuple[Binding, ...], tuple[SoftmaxStep, ...]]:
    """Bindings of the outputs as the device leaves them, and the SOFTMAX steps that the driver adds."""
    final = {layer.output.name: layer for layer in graph.layers if isinstance(layer, Softmax)}
    bindings, steps = [], []
    for position, tensor in enumerate(graph.outputs):
        softmax = final.get(tensor.name)
        if softmax is None:
            bindings.append(_binding(tensor, plan))
            continue
        source = softmax.inputs[0]
        bindings.append(_binding(source, plan))
        steps.append(SoftmaxStep(position, softmax.beta, source.scale, tensor.name, tensor.scale, tensor.zero_point, tensor.index))
    return tuple(bindings), tuple(steps)


def _records(graph: Graph, plan: Plan, scheduled: Scheduled, config: Config) -> tuple[LayerRecord, ...]:
    addresses = [0]
    for operation in scheduled.operations:
        addresses.append(addresses[-1] + operation.definition.length)
    done = predict(scheduled.operations, config)
    records = []
    before = 0
    for layer, positions, mark in zip(graph.layers, scheduled.layers, scheduled.marks, strict=True):
        after = done[positions.stop - 1] if positions else before
        records.append(
            LayerRecord(
                name=layer.name,
                operator=layer.operator,
                macs=layer.macs,
                first=addresses[positions.start],
                end=addresses[positions.stop],
                mark=mark,
                output=_binding(layer.inputs[0] if isinstance(layer, Softmax) else layer.output, plan),
                predicted_cycles=after - before,
                operators=layer.operators,
            )
        )
        before = after
    return tuple(records)


def _constants(graph: Graph, plan: Plan) -> tuple[tuple[int, bytes], ...]:
    """Regions of constant operands: written once, when the program is loaded."""
    tensors = [*graph.outputs, *(tensor for layer in graph.layers for tensor in layer.inputs)]
    regions = {}
    for tensor in tensors:
        if tensor.constant is not None:
            placement = plan.placements[tensor.name]
            regions[placement.start] = placement.pack(tensor.constant)
    return tuple(sorted(regions.items()))
