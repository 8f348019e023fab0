"""One operator of a ``.tflite`` file with checked, typed access to its tensors and options, which the operators'
importers use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from systola_firmware.errors import ModelFileError, UnsupportedModel, UnsupportedOperator
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.numerics.quantization import INT8_MAX, INT8_MIN, Activation, activation_range
from systola_firmware.tflite.file import FileOperator, FileTensor, ModelFile

#: Most elements of a tensor, border included: above every configuration's memory, and small enough to hold on the host.
ELEMENT_LIMIT = 1 << 24

#: How to get a model that the engine runs.
INT8_ADVICE = (
    "convert the model with full integer quantization (a representative data set, "
    "inference_input_type = inference_output_type = tf.int8)"
)

#: Fused activations by their numbers: those that the engine's clamp computes, and names of the others for messages.
_ACTIVATIONS = {0: Activation.NONE, 1: Activation.RELU, 2: Activation.RELU_N1_TO_1, 3: Activation.RELU6}
_OTHER_ACTIVATIONS = {4: "TANH", 5: "SIGN_BIT"}
_PADDING_SAME, _PADDING_VALID = 0, 1


def activation_tensor(tensor: FileTensor) -> Tensor:
    """The graph's tensor for an activation of the model, or for a constant that is used as one.

    Raises :class:`UnsupportedModel` for anything but a static int8 tensor with one scale and one zero point.
    """
    where = f"tensor {tensor.name!r} (number {tensor.index})"
    if tensor.dtype != "int8":
        raise UnsupportedModel(f"{where} is {tensor.dtype} where the engine computes in int8: {INT8_ADVICE}")
    if tensor.variable:
        raise UnsupportedModel(f"{where} is a variable that lives from one inference to the next: convert a stateless model")
    if tensor.sparse:
        raise UnsupportedModel(f"{where} is stored sparse: convert the model without sparsity")
    if any(size < 1 for size in tensor.shape):
        raise UnsupportedModel(f"{where} has the dynamic or empty shape {list(tensor.shape)}: convert the model with fixed sizes")
    if tensor.elements > ELEMENT_LIMIT:
        raise UnsupportedModel(
            f"{where} has {tensor.elements} elements and no configuration holds more than {ELEMENT_LIMIT}: use a smaller model"
        )
    if len(tensor.scales) != 1 or len(tensor.zero_points) > 1:
        raise UnsupportedModel(f"{where} has {len(tensor.scales)} scales where an activation has one: {INT8_ADVICE}")
    scale, zero_point = tensor.scales[0], tensor.zero_points[0] if tensor.zero_points else 0
    if not (math.isfinite(scale) and scale > 0 and INT8_MIN <= zero_point <= INT8_MAX):
        raise UnsupportedModel(f"{where} has the impossible scale {scale:.6g} or zero point {zero_point}: convert the model again")
    constant = None if tensor.data is None else tensor.array(np.int8)
    return Tensor(tensor.name, tensor.shape, scale, zero_point, tensor.index, constant)


@dataclass(frozen=True)
class Weights:
    """Constant int8 weights with one scale, or one for each output channel."""

    values: Int8Array
    scales: tuple[float, ...]


class OperatorReader:
    """An operator and its tensors.

    Parameters
    ----------
    model:
        The file.
    operator:
        The operator.
    activations:
        Activation tensors by number, as far as they are known; the reader adds those that it reads, so that each exists
        once.
    integers:
        Integer tensors whose values are known: constants and folded shape arithmetic.
    """

    def __init__(
        self,
        model: ModelFile,
        operator: FileOperator,
        activations: dict[int, Tensor],
        integers: Mapping[int, npt.NDArray[np.int64]],
    ) -> None:
        self.operator = operator
        self._model = model
        self._activations = activations
        self._integers = integers

    @property
    def name(self) -> str:
        """The layer's name: the operator's with its number."""
        return f"{self.operator.name.lower()}_{self.operator.index}"

    def refuse(self, reason: str) -> UnsupportedOperator:
        """The error for a variant that is not supported; ``reason`` continues "operator CONV_2D (number 3, …)"."""
        outputs = self.operator.outputs
        tensor = self._model.tensors[outputs[0]].name if outputs else ""
        return UnsupportedOperator(self.operator.name, self.operator.index, tensor, reason)

    def damaged(self, reason: str) -> ModelFileError:
        """The error for an operator that contradicts itself."""
        return ModelFileError(f"{self.refuse(reason)}: the file is damaged, get it again")

    def has_input(self, position: int) -> bool:
        """Whether the input is there (it may be left out at the end, or be -1)."""
        return position < len(self.operator.inputs) and self.operator.inputs[position] >= 0

    def _file_tensor(self, position: int) -> FileTensor:
        if not self.has_input(position):
            raise self.damaged(f"has no input {position}")
        return self._model.tensors[self.operator.inputs[position]]

    def _activation(self, tensor: FileTensor) -> Tensor:
        if tensor.index not in self._activations:
            self._activations[tensor.index] = activation_tensor(tensor)
        return self._activations[tensor.index]

    def input(self, position: int = 0) -> Tensor:
        """An activation (or a constant that is used as one)."""
        return self._activation(self._file_tensor(position))

    def output(self) -> Tensor:
        """The only output."""
        if len(self.operator.outputs) != 1:
            raise self.damaged(f"has {len(self.operator.outputs)} outputs where one belongs")
        return self._activation(self._model.tensors[self.operator.outputs[0]])

    def option(self, field: str) -> Any:
        """A field of the operator's options."""
        if field not in self.operator.options:
            raise self.damaged("has no options")
        return self.operator.options[field]

    def integers(self, position: int) -> npt.NDArray[np.int64] | None:
        """The values of an integer input, None if it is left out or only known at run time."""
        return self._integers.get(self.operator.inputs[position]) if self.has_input(position) else None

    def weights(self, position: int, rank: int, channel_axis: int) -> Weights:
        """Constant symmetric int8 weights with one scale, or one for each index of ``channel_axis``."""
        tensor = self._file_tensor(position)
        if tensor.data is None:
            raise self.refuse(f"computes its weights {tensor.name!r} at run time: the engine wants constants")
        if tensor.dtype != "int8":
            raise self.refuse(f"has {tensor.dtype} weights {tensor.name!r}: {INT8_ADVICE}")
        if tensor.sparse:
            raise self.refuse(f"has sparse weights {tensor.name!r}: convert the model without sparsity")
        if len(tensor.shape) != rank or tensor.elements < 1:
            raise self.damaged(f"has weights of the shape {list(tensor.shape)}")
        if any(tensor.zero_points):
            raise self.refuse(
                f"has weights {tensor.name!r} with a zero point that is not 0: convert the model with symmetric weights"
            )
        channels = tensor.shape[channel_axis]
        if len(tensor.scales) not in (1, channels) or (len(tensor.scales) > 1 and tensor.axis != channel_axis):
            raise self.refuse(
                f"has weights {tensor.name!r} with {len(tensor.scales)} scales along dimension {tensor.axis} "
                f"where 1 or {channels} along dimension {channel_axis} belong: {INT8_ADVICE}"
            )
        if not all(math.isfinite(scale) and scale >= 0 for scale in tensor.scales):
            raise self.damaged(f"has weights {tensor.name!r} with an impossible scale")
        return Weights(tensor.array(np.int8), tensor.scales)

    def bias(self, position: int, channels: int) -> Int32Array:
        """The int32 bias, zeros if it is left out."""
        if not self.has_input(position):
            return np.zeros(channels, dtype=np.int32)
        tensor = self._file_tensor(position)
        if tensor.data is None or tensor.dtype != "int32":
            raise self.refuse(f"has a bias {tensor.name!r} that is not a constant of int32: {INT8_ADVICE}")
        values: Int32Array = tensor.array(np.int32).reshape(-1)
        if values.size != channels:
            raise self.damaged(f"has {values.size} biases for {channels} channels")
        return values

    def state(self, position: int, dtype: str, elements: int) -> FileTensor:
        """A variable tensor that only this operator reads and writes. It starts at its zero point, which is 0 unless it
        is int8."""
        tensor = self._file_tensor(position)
        if not tensor.variable:
            raise self.refuse(f"has a state {tensor.name!r} that is not a variable tensor: convert the model again")
        if tensor.dtype != dtype:
            raise self.refuse(f"has a state {tensor.name!r} of {tensor.dtype} where the engine keeps {dtype}: {INT8_ADVICE}")
        if tensor.data is not None:
            raise self.refuse(f"has a state {tensor.name!r} with values in the file, which the kernels ignore: remove them")
        if tensor.elements != elements:
            raise self.damaged(f"has a state of the shape {list(tensor.shape)} where {elements} elements belong")
        uses = [operator.index for operator in self._model.operators for index in operator.inputs if index == tensor.index]
        if len(uses) != 1 or any(tensor.index in operator.outputs for operator in self._model.operators):
            raise self.refuse(f"shares its state {tensor.name!r} with another operator, which is not supported")
        if len(tensor.scales) != 1 or len(tensor.zero_points) > 1 or (dtype != "int8" and any(tensor.zero_points)):
            raise self.refuse(f"has a state {tensor.name!r} without one scale and a fitting zero point: {INT8_ADVICE}")
        return tensor

    def activation_name(self) -> str:
        """The fused activation function by its schema name, for an operator that does not clamp."""
        code = self.option("FusedActivationFunction")
        return _ACTIVATIONS[code].value if code in _ACTIVATIONS else str(_OTHER_ACTIVATIONS.get(code, code))

    def fused_activation(self) -> Activation:
        """The fused activation function."""
        code = self.option("FusedActivationFunction")
        if code not in _ACTIVATIONS:
            raise self.refuse(f"has the fused activation {self.activation_name()}, which is not supported")
        return _ACTIVATIONS[code]

    def clamp(self, target: Tensor) -> tuple[int, int]:
        """The fused activation as the minimum and maximum of a layer with this output."""
        return activation_range(self.fused_activation(), target.scale, target.zero_point)

    def pair(self, prefix: str, suffix: str = "") -> tuple[int, int]:
        """Two positive options by their schema names, height first: ``StrideH`` and ``StrideW``."""
        values = self.option(f"{prefix}H{suffix}"), self.option(f"{prefix}W{suffix}")
        if min(values) < 1:
            raise self.damaged(f"has the {prefix.lower()} {values[0]}×{values[1]}")
        return values

    def window(self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Padding:
        """The border of a sliding window over input 0, after checking that input and output are images of the right
        sizes."""
        source, target = self.input(0), self.output()
        if len(source.shape) != 4 or len(target.shape) != 4:
            raise self.damaged(f"has an input of the shape {list(source.shape)} and an output of {list(target.shape)}, not images")
        code = self.option("Padding")
        if code not in (_PADDING_SAME, _PADDING_VALID):
            raise self.damaged(f"has the unknown padding {code}")
        sizes, borders = [], []
        for size, taps, step, spread in zip(source.shape[1:3], kernel, stride, dilation, strict=True):
            extent = (taps - 1) * spread + 1
            count = -(-size // step) if code == _PADDING_SAME else (size - extent) // step + 1
            total = max((count - 1) * step + extent - size, 0)
            sizes.append(count)
            borders.append((total // 2, total - total // 2))
        if (source.shape[0], *sizes) != target.shape[:3]:
            raise self.damaged(
                f"has an output of the shape {list(target.shape)} where its input makes {sizes[0]}×{sizes[1]} pixels"
            )
        padding = Padding(*borders[0], *borders[1])
        self.check_size(source, padding)
        return padding

    def check_size(self, source: Tensor, padding: Padding) -> None:
        """Refuse a border that no memory holds."""
        n, h, w, c = source.nhwc
        elements = n * (h + padding.top + padding.bottom) * (w + padding.left + padding.right) * c
        if elements > ELEMENT_LIMIT:
            raise self.refuse(
                f"needs its input with a border, {elements} bytes, and no configuration holds that: use a smaller model"
            )
