"""TensorFlow Lite Micro's reference kernels: the oracle of every bit-exactness test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

#: Bytes of an element of each tensor type that occurs here.
_TYPE_BYTES = {schema.TensorType.INT8: 1, schema.TensorType.UINT8: 1, schema.TensorType.INT16: 2, schema.TensorType.INT64: 8}

#: The arena is tried this large before a failure to prepare counts as the model's.
_ARENA_TRIES = 3


def _arena_bytes(model: Any) -> int:
    """A generous estimate: every tensor kept, and TFLM's own structures, per-channel parameters and scratch buffers."""
    total = 64 * 1024
    for tensor in model.subgraphs[0].tensors:
        elements = 1 if tensor.shape is None else int(np.prod(tensor.shape, dtype=np.int64))
        total += 256 + 2 * elements * _TYPE_BYTES.get(tensor.type, 4)
    return total


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFLM prints from C to the process's own stderr; a failure that is expected should not litter the test log."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class OracleError(Exception):
    """TFLM refused to prepare or run the model."""


class Oracle:
    """One model in TFLM's interpreter, with every intermediate tensor readable.

    Parameters
    ----------
    model:
        The ``.tflite`` file's bytes, or its path. Raises :class:`OracleError` if TFLM does not prepare it.
    stateful:
        Whether a recurrent model continues from the state that the last :meth:`run` left, until :meth:`reset`; else
        each run starts from the initial state. TFLM's own interpreter continues.
    """

    def __init__(self, model: bytes | Path, *, stateful: bool = False) -> None:
        data = model.read_bytes() if isinstance(model, Path) else model
        parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
        self._graph = parsed.subgraphs[0]
        self._constants = {
            index
            for index, tensor in enumerate(self._graph.tensors)
            if tensor.buffer < len(parsed.buffers) and parsed.buffers[tensor.buffer].data is not None
        }
        self._variables = [index for index, tensor in enumerate(self._graph.tensors) if tensor.isVariable]
        self._stateful = stateful
        self._interpreter = self._prepare(data, _arena_bytes(parsed))

    @staticmethod
    def _prepare(data: bytes, arena: int) -> Any:
        for attempt in range(_ARENA_TRIES):
            with _quiet():
                try:
                    return runtime.Interpreter.from_bytes(
                        data, arena_size=arena << 2 * attempt, intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors
                    )
                except RuntimeError:
                    pass
        raise OracleError("TFLM does not prepare this model")

    def run(self, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Run one inference. ``inputs`` in the model's order and of the model's shapes and types; outputs likewise.

        Raises :class:`OracleError` if a kernel fails.
        """
        if self._variables and not self._stateful:
            self.reset()
        for index, values in enumerate(inputs):
            self._interpreter.set_input(np.ascontiguousarray(values), index)
        with _quiet():
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise OracleError("TFLM fails while it runs this model") from error
        return [np.array(self._interpreter.get_output(index)) for index in range(len(self._graph.outputs))]

    def reset(self) -> None:
        """Set every variable tensor to its initial value: int8 to its zero point, others to 0."""
        self._interpreter.reset()

    def states(self) -> dict[int, npt.NDArray[Any]]:
        """Every variable tensor by its number: of an LSTM the int8 hidden and the int16 cell state."""
        return {index: self.tensor(index) for index in self._variables}

    def tensor(self, index: int) -> npt.NDArray[Any]:
        """The tensor with this number in the model file, after :meth:`run`."""
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"])

    def computed(self) -> dict[int, npt.NDArray[Any]]:
        """Every int8 tensor that the last :meth:`run` computed or was given, by number: inputs, intermediates,
        outputs."""
        return {
            index: self.tensor(index)
            for index, tensor in enumerate(self._graph.tensors)
            if tensor.type == schema.TensorType.INT8 and index not in self._constants and index in self._used
        }

    @property
    def _used(self) -> set[int]:
        """Tensors that some operator reads or writes: TFLM allocates no others."""
        used = set(self._graph.inputs) | set(self._graph.outputs)
        for operator in self._graph.operators:
            used |= set(operator.inputs) | set(operator.outputs)
        return used

    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the model's inputs."""
        return [tuple(int(size) for size in self._graph.tensors[index].shape) for index in self._graph.inputs]


def run_once(model: bytes | Path, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Outputs of one inference of a fresh interpreter."""
    return Oracle(model).run(*inputs)
