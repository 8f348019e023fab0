"""From a ``.tflite`` file to the integer graph."""

from __future__ import annotations

from pathlib import Path

from systola_firmware.errors import ModelFileError, UnsupportedModel
from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Softmax
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.quantization import QuantizationError
from systola_firmware.operators.registry import IMPORTERS
from systola_firmware.tflite.file import FileOperator, FileTensor, ModelFile, read_model
from systola_firmware.tflite.operator import INT8_ADVICE, OperatorReader, activation_tensor
from systola_firmware.tflite.shape_arithmetic import fold, integer_constants, is_integer


def load_tflite(path: Path) -> Graph:
    """Import a model file; the graph is named after it.

    Raises
    ------
    ModelFileError
        The file cannot be read, is not a ``.tflite`` file, or is damaged.
    UnsupportedModel
        The model is sound, but has something that the engine cannot run (``UnsupportedOperator`` names the operator).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}): check the path") from error
    return import_tflite(data, path.stem)


def import_tflite(data: bytes, name: str = "model") -> Graph:
    """Import a model from a file's bytes. Raises as :func:`load_tflite` does."""
    model = read_model(data)
    _check_types(model)
    _check_operators(model)
    _check_order(model)
    integers = integer_constants(model)
    activations: dict[int, Tensor] = {}
    layers: list[Layer] = []
    for operator in model.operators:
        reader = OperatorReader(model, operator, activations, integers)
        if _is_integer(model, operator):
            integers[operator.outputs[0]] = fold(reader, model)
            continue
        try:
            layers += IMPORTERS[operator.name](reader)
        except QuantizationError as error:
            raise reader.refuse(str(error)) from error

    def boundary(indices: tuple[int, ...]) -> tuple[Tensor, ...]:
        return tuple(activations.setdefault(index, activation_tensor(model.tensors[index])) for index in indices)

    graph = Graph(name, boundary(model.inputs), boundary(model.outputs), tuple(layers))
    _check_boundary(graph)
    return graph


def _is_integer(model: ModelFile, operator: FileOperator) -> bool:
    return bool(operator.outputs) and all(is_integer(model.tensors[index]) for index in operator.outputs)


def _describe(tensor: FileTensor) -> str:
    return f"{tensor.name!r} is {tensor.dtype}"


def _check_types(model: ModelFile) -> None:
    """Refuse a model that does not compute in int8, and say how to convert it, before any operator is examined."""
    if not any(tensor.dtype == "int8" for tensor in model.tensors):
        dtypes = sorted({tensor.dtype for tensor in model.tensors})
        raise UnsupportedModel(f"the model computes in {', '.join(dtypes) or 'nothing'} and has no int8 tensor: {INT8_ADVICE}")
    for kind, indices in (("input", model.inputs), ("output", model.outputs)):
        if not indices:
            raise ModelFileError(f"the model has no {kind}: the file is damaged, get it again")
        for index in indices:
            tensor = model.tensors[index]
            if tensor.dtype != "int8":
                raise UnsupportedModel(f"the model's {kind} {_describe(tensor)} where the engine takes int8: {INT8_ADVICE}")


def _check_operators(model: ModelFile) -> None:
    """Refuse the first operator that is not known, before the details of any other are examined."""
    for operator in model.operators:
        if not _is_integer(model, operator) and operator.name not in IMPORTERS:
            raise OperatorReader(model, operator, {}, {}).refuse(
                f"is not supported: the engine runs {', '.join(sorted(IMPORTERS))}"
            )


def _check_order(model: ModelFile) -> None:
    """Operators come in execution order and every tensor is computed once; variable tensors have a value from the
    start."""
    known = set(model.inputs) | {tensor.index for tensor in model.tensors if tensor.data is not None}
    for operator in model.operators:
        for index in operator.inputs:
            if index >= 0 and index not in known and not model.tensors[index].variable:
                raise ModelFileError(
                    f"operator {operator.name} (number {operator.index}) reads tensor {model.tensors[index].name!r} before "
                    "it is computed: the file is damaged, get it again"
                )
        if known & set(operator.outputs):
            raise ModelFileError(
                f"operator {operator.name} (number {operator.index}) writes a tensor that has a value already: "
                "the file is damaged, get it again"
            )
        known |= set(operator.outputs)
    for index in model.outputs:
        if index not in known:
            raise ModelFileError(
                f"no operator computes the output {model.tensors[index].name!r}: the file is damaged, get it again"
            )


def _check_boundary(graph: Graph) -> None:
    """Refuse a SOFTMAX before the model's end, since the driver computes it, and inputs or outputs that are
    constants."""
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.constant is not None:
            raise UnsupportedModel(f"the model's input or output {tensor.name!r} is a constant: remove it from the model")
    last = {tensor.index for tensor in graph.outputs}
    read = {tensor.index for layer in graph.layers for tensor in layer.inputs}
    for layer in graph.layers:
        if isinstance(layer, Softmax) and (layer.output.index in read or layer.output.index not in last):
            raise UnsupportedModel(
                f"layer {layer.name} (tensor {layer.output.name!r}) is a SOFTMAX before the model's end, which is not supported: "
                "end the model with it or remove it"
            )
