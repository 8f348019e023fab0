"""The layers of the integer graph, and what must be known of each kind: its border, its memory, its batches.

How a kind comes from a model file and what the engine does for it is registered in :mod:`systola_firmware.operators`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from systola_firmware.ir.graph import Layer
from systola_firmware.ir.semantics import IN_PLACE, OWN, Batch, OutputMemory, any_batch, batch_of_images, no_border
from systola_firmware.ir.tensor import NO_BORDER, Padding
from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.numerics.requantization import Requantization


def _window_border(layer: Convolution | DepthwiseConvolution, kernel: tuple[int, ...]) -> Padding:
    """The border that the windows of a convolution read; with a stride it can be less than the padding."""
    _, height, width, _ = layer.inputs[0].nhwc
    _, out_height, out_width, _ = layer.output.nhwc
    pad = layer.padding

    def after(axis: int, outputs: int, before: int, size: int) -> int:
        reach = (outputs - 1) * layer.stride[axis] + (kernel[axis] - 1) * layer.dilation[axis] + 1
        return max(0, reach - before - size)

    return Padding(
        top=pad.top,
        bottom=after(0, out_height, pad.top, height),
        left=pad.left,
        right=after(1, out_width, pad.left, width),
    )


def _convolution_border(layer: Convolution) -> Padding:
    return NO_BORDER if layer.fully_connected else _window_border(layer, layer.weights.shape[1:3])


def _convolution_batch(layer: Convolution, batch: Batch) -> tuple[Layer, int]:
    if not layer.fully_connected:
        return batch_of_images(layer, batch)
    if math.prod(layer.inputs[0].shape[batch.axis :]) % layer.weights.shape[-1]:
        raise batch.refuse(f"has the time before the batch where {layer.name} wants all of one inference in a row")
    return layer, batch.runs


@dataclass(frozen=True)
class Convolution(Layer, border=_convolution_border, memory=OWN, batch=_convolution_batch, on_device=True):
    """CONV_2D, or FULLY_CONNECTED as a 1×1 convolution over ``(1, 1, rows, features)``.

    ``weights`` is int8 ``[out, kernel_height, kernel_width, in]``, ``bias`` int32 ``[out]`` as in the model (the
    input's zero point is *not* folded in yet). The border has the value ``inputs[0].zero_point``.
    """

    weights: Int8Array = field(kw_only=True)
    bias: Int32Array = field(kw_only=True)
    requantization: Requantization = field(kw_only=True)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = NO_BORDER
    minimum: int = -128
    maximum: int = 127
    fully_connected: bool = False

    @property
    def operator(self) -> str:
        return "FullyConnected" if self.fully_connected else "Convolution"

    @property
    def macs(self) -> int:
        n, h, w, _ = self.output.nhwc
        return n * h * w * self.weights.size


def _depthwise_border(layer: DepthwiseConvolution) -> Padding:
    return _window_border(layer, layer.weights.shape[0:2])


@dataclass(frozen=True)
class DepthwiseConvolution(Layer, border=_depthwise_border, memory=OWN, batch=batch_of_images, on_device=True):
    """DEPTHWISE_CONV_2D. ``weights`` is int8 ``[kernel_height, kernel_width, out]``; output channel ``o`` reads input
    channel ``o // multiplier`` with ``multiplier = out / in``. The border has the value ``inputs[0].zero_point``."""

    weights: Int8Array = field(kw_only=True)
    bias: Int32Array = field(kw_only=True)
    requantization: Requantization = field(kw_only=True)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = NO_BORDER
    minimum: int = -128
    maximum: int = 127

    @property
    def macs(self) -> int:
        n, h, w, _ = self.output.nhwc
        return n * h * w * self.weights.size


def _add_batch(layer: Add, batch: Batch) -> tuple[Layer, int]:
    if any(tensor.batch_axis != batch.axis for tensor in batch.inputs):
        raise batch.refuse(f"has the batch on another axis than the operand that {layer.name} adds")
    return layer, batch.runs


@dataclass(frozen=True)
class Add(Layer, border=no_border, memory=IN_PLACE, batch=_add_batch, on_device=True):
    """``clamp(REQ(table_0[x0] + table_1[x1]) + output.zero_point)``; tables are int32[256], indexed by ``x & 0xFF``.

    The two inputs have the output's shape, or one of them is a constant (already broadcast to that shape).
    """

    tables: tuple[Int32Array, Int32Array] = field(kw_only=True)
    requantization: Requantization = field(kw_only=True)
    minimum: int = -128
    maximum: int = 127


class PoolKind(enum.Enum):
    AVERAGE = "average"
    MAXIMUM = "maximum"


@dataclass(frozen=True)
class Pool(Layer, border=no_border, memory=OWN, batch=batch_of_images, on_device=True):
    """AVERAGE_POOL_2D (sum over the valid taps divided by their number, half away from zero) or MAX_POOL_2D."""

    kind: PoolKind = field(kw_only=True)
    window: tuple[int, int] = field(kw_only=True)
    stride: tuple[int, int] = field(kw_only=True)
    padding: Padding = NO_BORDER
    minimum: int = -128
    maximum: int = 127

    @property
    def operator(self) -> str:
        return "AveragePool" if self.kind is PoolKind.AVERAGE else "MaximumPool"


@dataclass(frozen=True)
class Lookup(Layer, border=no_border, memory=IN_PLACE, batch=any_batch, on_device=True):
    """Any unary element-wise operation: ``table[x & 0xFF]``, int8[256] (LOGISTIC, TANH, QUANTIZE, RELU …)."""

    table: Int8Array = field(kw_only=True)
    function: str = "Lookup"

    @property
    def operator(self) -> str:
        return self.function


@dataclass(frozen=True)
class Pad(Layer, border=no_border, memory=OWN, batch=batch_of_images, on_device=True):
    """PAD that no convolution absorbed: ``value`` around the image (``padding``) and its ``channels`` (before,
    after)."""

    padding: Padding = field(kw_only=True)
    value: int = field(kw_only=True)
    channels: tuple[int, int] = (0, 0)


_RESHAPED = OutputMemory(view=lambda _layer: 0)


@dataclass(frozen=True)
class Reshape(Layer, border=no_border, memory=_RESHAPED, batch=any_batch, on_device=True):
    """The same elements in row-major order under another shape."""


def slice_offset(layer: Slice) -> int | None:
    """Elements from the start of the input to the slice, if it takes consecutive elements, else None."""
    offsets = slice_elements(layer)
    first = int(offsets[0])
    return first if int(offsets[-1]) - first == offsets.size - 1 else None


def slice_elements(layer: Slice) -> npt.NDArray[np.int64]:
    """Row-major positions in the input of the slice's elements, in increasing order."""
    shape = layer.inputs[0].shape
    offsets = np.zeros(1, np.int64)
    for axis, (begin, size, step) in enumerate(zip(layer.begin, layer.size, layer.step, strict=True)):
        along = (begin + step * np.arange(size, dtype=np.int64)) * math.prod(shape[axis + 1 :])
        offsets = (offsets[:, np.newaxis] + along).reshape(-1)
    return offsets


def _slice_batch(layer: Slice, batch: Batch) -> tuple[Layer, int]:
    axis = batch.axis
    if layer.size[axis] != layer.inputs[0].shape[axis]:
        raise batch.refuse(f"is cut by {layer.name} along the batch, axis {axis}")
    # All elements along the axis are taken: the step of a single one may be anything, that of several must be 1.
    step = (*layer.step[:axis], 1, *layer.step[axis + 1 :])
    return replace(layer, size=batch.wider(layer.size), step=step), math.prod(layer.size[:axis])


_SLICED = OutputMemory(view=slice_offset)


@dataclass(frozen=True)
class Slice(Layer, border=no_border, memory=_SLICED, batch=_slice_batch, on_device=True):
    """STRIDED_SLICE: elements ``begin[a] + i * step[a]`` along each axis ``a`` of the input; axes of one element may
    vanish.

    ``begin`` and ``step`` have one entry for each axis of the input, normalised (not negative, step positive); ``size``
    is the number of elements taken.
    """

    begin: tuple[int, ...] = field(kw_only=True)
    size: tuple[int, ...] = field(kw_only=True)
    step: tuple[int, ...] = field(kw_only=True)


def sequences_interleave(layer: Lstm) -> bool:
    """Whether the rows of all sequences for one time step follow each other, rather than all rows of one sequence."""
    return layer.time_major or layer.steps == 1


def lead_rows(layer: Lstm) -> int:
    """Rows of hidden state that lie in front of an LSTM's output: the initial states, except those that lie where
    another sequence has its last step (:mod:`systola_firmware.memory.sharing`)."""
    return layer.batch if sequences_interleave(layer) else 1


def _lstm_batch(layer: Lstm, batch: Batch) -> tuple[Layer, int]:
    if batch.axis != int(layer.time_major):
        raise batch.refuse(f"has the batch on axis {batch.axis} where {layer.name} has it on axis {int(layer.time_major)}")
    return layer, batch.runs


#: The recurrence reads the hidden states of the previous step from the output, so the initial ones lie in front of it.
_BEHIND_INITIAL_STATES = OutputMemory(lead=lambda layer: lead_rows(layer) * layer.hidden)


@dataclass(frozen=True)
class Lstm(Layer, border=no_border, memory=_BEHIND_INITIAL_STATES, batch=_lstm_batch, on_device=True):
    """UNIDIRECTIONAL_SEQUENCE_LSTM: int8 activations, int16 cell state, no peephole, projection or layer norm.

    The input is ``(batch, time, features)``, or ``(time, batch, features)`` if ``time_major``; the output likewise,
    with ``hidden`` as its last axis. Gates are in the order input, forget, cell, output. Per gate ``k``, for each time
    step::

        pre[k] = sat16(sat16(REQ(bias[k] + Σ (x - z_x)·W[k]; input_requantization[k]))
                       + sat16(REQ(Σ (h - z_h)·R[k]; recurrent_requantization[k])))
        i, f, o = sigmoid(pre), g = tanh(pre)
        c = sat16(sat16(REQ(f·c; 2^30, -14)) + sat16(REQ(i·g; 2^30, -29 - cell_exponent))), clamped to ±clip if clip
        h = clamp8(REQ(o·tanh(c); hidden_requantization) + z_h)

    ``z_x`` and ``z_h`` are the zero points of input and output. Initially c = 0 and h = z_h.

    ``input_weights`` is int8 ``[4, hidden, features]``, ``recurrent_weights`` int8 ``[4, hidden, hidden]``, ``bias``
    int32 ``[4, hidden]`` as in the model; the two gate requantizations have four elements, one for each gate, the
    hidden one has one. ``cell_exponent`` is log2 of the cell state's scale, -15 to -9. ``hidden_index`` and
    ``cell_index`` are the numbers of the state tensors in the model file.
    """

    input_weights: Int8Array = field(kw_only=True)
    recurrent_weights: Int8Array = field(kw_only=True)
    bias: Int32Array = field(kw_only=True)
    input_requantization: Requantization = field(kw_only=True)
    recurrent_requantization: Requantization = field(kw_only=True)
    hidden_requantization: Requantization = field(kw_only=True)
    cell_exponent: int = field(kw_only=True)
    clip: int = 0
    time_major: bool = False
    hidden_index: int = -1
    cell_index: int = -1

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return int(self.recurrent_weights.shape[1])

    @property
    def features(self) -> int:
        """Input features."""
        return int(self.input_weights.shape[2])

    @property
    def batch(self) -> int:
        """Sequences side by side."""
        return self.inputs[0].shape[1 if self.time_major else 0]

    @property
    def steps(self) -> int:
        """Time steps."""
        return self.inputs[0].shape[0 if self.time_major else 1]

    @property
    def macs(self) -> int:
        return self.batch * self.steps * (self.input_weights.size + self.recurrent_weights.size)


@dataclass(frozen=True)
class Softmax(Layer, border=no_border, memory=OWN, batch=any_batch, on_device=False):
    """SOFTMAX over the last axis; only as the model's last layer, run by the driver
    (``systola_firmware.numerics.softmax``)."""

    beta: float = 1.0

    @property
    def operator(self) -> str:
        return "Softmax (driver)"
