"""Intermediate representation: a list of layers over int8 tensors, all arithmetic already in integers.

The importer (``systola_firmware.tflite.importer``) produces a :class:`Graph`, the passes
(``systola_firmware.ir.passes``) rewrite it, the scheduler (``systola_firmware.lowering.schedule``) turns it into a
program. Layers hold exactly the numbers that the engine uses (multipliers, shifts, tables): nothing after the importer
knows a scale, except to label inputs and outputs.

Every activation tensor is NHWC of rank 4: a tensor of another rank is stored as ``(1, 1, rows, last axis)`` with
``rows`` the product of all axes but the last (a vector is one row). :attr:`Tensor.shape` keeps the model's own shape,
:attr:`Tensor.nhwc` is the stored one.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from systola_firmware.numerics.arrays import Int8Array, Int32Array
from systola_firmware.numerics.requantization import Requantization


@dataclass(frozen=True)
class Tensor:
    """An int8 activation tensor.

    ``scale`` and ``zero_point`` describe the real value ``scale * (q - zero_point)``. ``index`` is the tensor's number
    in the model file, -1 for one that a pass made. ``constant`` holds the values of a tensor that is not computed.
    Along ``batch_axis`` the inferences of a graph with a ``batch`` lie side by side.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    index: int = -1
    constant: Int8Array | None = None
    batch_axis: int = 0

    @property
    def nhwc(self) -> tuple[int, int, int, int]:
        """The stored shape."""
        if len(self.shape) == 4:
            n, h, w, c = self.shape
            return n, h, w, c
        if not self.shape:
            return 1, 1, 1, 1
        return 1, 1, math.prod(self.shape[:-1]), self.shape[-1]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Padding:
    """Border in pixels. For a pooling layer the border is *not* part of the window's valid taps."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


@dataclass(frozen=True)
class Layer:
    """Base of all layers. ``name`` is for people (operator and number); ``operators`` are the model operator indices it
    covers."""

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    operators: tuple[int, ...] = ()

    @property
    def operator(self) -> str:
        """Name of the operation in reports."""
        return type(self).__name__

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the model (not of the engine)."""
        return 0


@dataclass(frozen=True)
class Convolution(Layer):
    """CONV_2D, or FULLY_CONNECTED as a 1×1 convolution over ``(1, 1, rows, features)``.

    ``weights`` is int8 ``[out, kernel_height, kernel_width, in]``, ``bias`` int32 ``[out]`` as in the model (the
    input's zero point is *not* folded in yet). The border has the value ``inputs[0].zero_point``.
    """

    weights: Int8Array = field(kw_only=True)
    bias: Int32Array = field(kw_only=True)
    requantization: Requantization = field(kw_only=True)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = Padding()
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


@dataclass(frozen=True)
class DepthwiseConvolution(Layer):
    """DEPTHWISE_CONV_2D. ``weights`` is int8 ``[kernel_height, kernel_width, out]``; output channel ``o`` reads input
    channel ``o // multiplier`` with ``multiplier = out / in``. The border has the value ``inputs[0].zero_point``."""

    weights: Int8Array = field(kw_only=True)
    bias: Int32Array = field(kw_only=True)
    requantization: Requantization = field(kw_only=True)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = Padding()
    minimum: int = -128
    maximum: int = 127

    @property
    def macs(self) -> int:
        n, h, w, _ = self.output.nhwc
        return n * h * w * self.weights.size


@dataclass(frozen=True)
class Add(Layer):
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
class Pool(Layer):
    """AVERAGE_POOL_2D (sum over the valid taps divided by their number, half away from zero) or MAX_POOL_2D."""

    kind: PoolKind = field(kw_only=True)
    window: tuple[int, int] = field(kw_only=True)
    stride: tuple[int, int] = field(kw_only=True)
    padding: Padding = Padding()
    minimum: int = -128
    maximum: int = 127

    @property
    def operator(self) -> str:
        return "AveragePool" if self.kind is PoolKind.AVERAGE else "MaximumPool"


@dataclass(frozen=True)
class Lookup(Layer):
    """Any unary element-wise operation: ``table[x & 0xFF]``, int8[256] (LOGISTIC, TANH, QUANTIZE, RELU …)."""

    table: Int8Array = field(kw_only=True)
    function: str = "Lookup"

    @property
    def operator(self) -> str:
        return self.function


@dataclass(frozen=True)
class Pad(Layer):
    """PAD that no convolution absorbed: ``value`` around the image (``padding``) and its ``channels`` (before,
    after)."""

    padding: Padding = field(kw_only=True)
    value: int = field(kw_only=True)
    channels: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Reshape(Layer):
    """The same elements in row-major order under another shape."""


@dataclass(frozen=True)
class Slice(Layer):
    """STRIDED_SLICE: elements ``begin[a] + i * step[a]`` along each axis ``a`` of the input; axes of one element may
    vanish.

    ``begin`` and ``step`` have one entry for each axis of the input, normalised (not negative, step positive); ``size``
    is the number of elements taken.
    """

    begin: tuple[int, ...] = field(kw_only=True)
    size: tuple[int, ...] = field(kw_only=True)
    step: tuple[int, ...] = field(kw_only=True)


@dataclass(frozen=True)
class Lstm(Layer):
    """UNIDIRECTIONAL_SEQUENCE_LSTM: int8 activations, int16 cell state, no peephole, projection or layer norm.

    The input is ``(batch, time, features)``, or ``(time, batch, features)`` if ``time_major``; the output likewise with
    ``hidden`` in place of features. Gates are in the order input, forget, cell, output. Per gate ``k``, for each time
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
class Softmax(Layer):
    """SOFTMAX over the last axis; only as the model's last layer, run by the driver
    (``systola_firmware.numerics.softmax``)."""

    beta: float = 1.0

    @property
    def operator(self) -> str:
        return "Softmax (driver)"


@dataclass(frozen=True)
class Graph:
    """Layers in execution order. ``inputs`` and ``outputs`` in the model's order.

    ``batch`` inferences of the model run side by side (``systola_firmware.ir.rebatch``); shapes are those of all of
    them together.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    batch: int = 1

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)
