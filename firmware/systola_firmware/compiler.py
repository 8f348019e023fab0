"""The compiler: it makes a :class:`~systola_firmware.spec.program.Program` for one configuration from a model file or
an integer graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from systola_firmware.errors import CompileError, DoesNotFit
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm, Softmax
from systola_firmware.ir.tensor import Tensor
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.cost import predict
from systola_firmware.lowering.schedule import Scheduled, schedule
from systola_firmware.lowering.weights import WeightImage
from systola_firmware.memory.plan import Plan, input_part_row, plan_memory
from systola_firmware.operators.lower import lower
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import encode_program
from systola_firmware.spec.program import Binding, LayerRecord, Program, SoftmaxStep, State


def compile_model(
    model: str | Path | bytes,
    config: Config,
    *,
    name: str = "",
    keep_tensors: bool = False,
    stateful: bool = False,
    batch: int = 1,
) -> Program:
    """Compile a ``.tflite`` file, by path or as its bytes, under ``name`` (default: the file's).

    ``keep_tensors`` and ``stateful`` mean the same as in :func:`compile_graph`. The program runs ``batch`` inferences
    at once, which share each load of weights and need that many times the activation memory. Raises
    :class:`~systola_firmware.errors.CompileError` and its subclasses.
    """
    from systola_firmware.importer import import_tflite, load_tflite
    from systola_firmware.ir.passes import fold_constants, run_passes
    from systola_firmware.ir.rebatch import rebatch

    graph = import_tflite(model) if isinstance(model, bytes) else load_tflite(Path(model))
    # Constants are folded first: until they have the shape of an operand, they may have no axis for the batch.
    graph = rebatch(fold_constants(replace(graph, name=name or graph.name)), batch)
    graph = run_passes(graph)
    return compile_graph(graph, config, keep_tensors=keep_tensors, stateful=stateful)


def compile_graph(graph: Graph, config: Config, *, keep_tensors: bool = False, stateful: bool = False) -> Program:
    """Compile an integer graph.

    With ``keep_tensors`` no memory is used twice, so that after a run every tensor is still there
    (``Program.layers[i].output``); it needs much more activation memory. With ``stateful`` recurrent layers continue in
    each run from where the run before left them (``Program.states``); otherwise each run begins anew. Raises
    :class:`DoesNotFit` when a memory is too small, with the bytes (or words) needed and available, and
    :class:`CompileError` for a graph that the engine cannot run.
    """
    if stateful and graph.batch > 1:
        raise CompileError(f"a stateful program runs one stream, not {graph.batch} side by side: compile it with a batch of 1")
    plan = plan_memory(graph, config, keep_tensors=keep_tensors, stateful=stateful)
    image = WeightImage(config)
    context = Context(plan, image, config)
    lowered = [lower(layer, context) for layer in graph.layers]
    weights = image.finish()
    scheduled = schedule(lowered, config.trace_marks)
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
        inputs=tuple(_binding(tensor, plan, graph.batch) for tensor in graph.inputs),
        outputs=outputs,
        layers=_records(graph, plan, scheduled, config),
        constants=_constants(graph, plan),
        softmax=softmax,
        activation_bytes_used=plan.used,
        notes=tuple(_notes(graph, plan, config)),
        states=_states(graph, plan),
        stateful=stateful,
        batch=graph.batch,
    )


def _notes(graph: Graph, plan: Plan, config: Config) -> Iterator[str]:
    if graph.batch > 1:
        yield f"{graph.batch} inferences run side by side: all figures are for these together"
    for layer in graph.layers:
        if isinstance(layer, Softmax):
            yield f"{layer.name} runs in the driver, not on the device"
        elif isinstance(layer, Lstm) and (steps := plan.lstms[layer.output.name].steps) < layer.steps:
            needed = layer.batch * layer.steps * input_part_row(layer, config)
            yield (
                f"{layer.name} runs in {-(-layer.steps // steps)} intervals of at most {steps} time steps, because the input part "
                f"of all {layer.steps} needs {needed} bytes of activation memory"
            )
    if plan.stateful and not plan.lstms:
        yield "the model has no recurrent layer, so it keeps no state"


def _states(graph: Graph, plan: Plan) -> tuple[State, ...]:
    """Hidden and cell state of every LSTM of a stateful program."""
    states = []
    for layer in graph.layers if plan.stateful else ():
        if isinstance(layer, Lstm):
            memory, shape = plan.lstms[layer.output.name], (layer.batch, layer.hidden)
            hidden = np.full(shape, layer.output.zero_point, np.int8).tobytes()
            states.append(State(f"{layer.name} hidden", memory.state, hidden, shape, "int8", layer.hidden_index))
            states.append(State(f"{layer.name} cell", memory.cell, bytes(2 * len(hidden)), shape, "int16", layer.cell_index))
    return tuple(states)


def _binding(tensor: Tensor, plan: Plan, batch: int) -> Binding:
    axis = tensor.batch_axis
    shape = tuple(size // batch if number == axis else size for number, size in enumerate(tensor.shape))
    return Binding(tensor.name, shape, tensor.scale, tensor.zero_point, plan.placements[tensor.name], tensor.index, axis)


def _outputs(graph: Graph, plan: Plan) -> tuple[tuple[Binding, ...], tuple[SoftmaxStep, ...]]:
    """Bindings of the outputs as the device leaves them, and the SOFTMAX steps that the driver adds."""
    final = {layer.output.name: layer for layer in graph.layers if isinstance(layer, Softmax)}
    bindings, steps = [], []
    for position, tensor in enumerate(graph.outputs):
        softmax = final.get(tensor.name)
        if softmax is None:
            bindings.append(_binding(tensor, plan, graph.batch))
            continue
        source = softmax.inputs[0]
        bindings.append(_binding(source, plan, graph.batch))
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
                output=_binding(layer.inputs[0] if isinstance(layer, Softmax) else layer.output, plan, graph.batch),
                predicted_cycles=after - before,
                operators=layer.operators,
                steps=layer.steps if isinstance(layer, Lstm) else 0,
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
