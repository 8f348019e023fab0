"""Random integer graphs for the compiler's tests: layers of every kind, odd shapes, branches, batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Add, Convolution, DepthwiseConvolution, Lookup, Pad, Pool, PoolKind, Reshape, Softmax
from systola_firmware.ir.tensor import Padding, Tensor
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.isa import Rounding

__all__ = ["random_graph", "random_input"]

KINDS = ("convolution", "depthwise", "fully_connected", "add", "pool", "lookup", "pad", "reshape")


class _Builder:
    def __init__(self, generator: np.random.Generator) -> None:
        self.g = generator
        self.layers: list[Layer] = []
        self.tensors: list[Tensor] = []
        self.count = 0

    def integer(self, low: int, high: int) -> int:
        """Uniform, both ends included."""
        return int(self.g.integers(low, high + 1))

    def tensor(self, shape: tuple[int, ...], constant: np.ndarray | None = None) -> Tensor:
        self.count += 1
        return Tensor(f"t{self.count}", shape, 0.1, self.integer(-128, 127), self.count, constant)

    def int8(self, *shape: int) -> np.ndarray:
        return self.g.integers(-128, 128, shape).astype(np.int8)

    def requantization(self, channels: int, reduction: int) -> Requantization:
        size = channels if self.g.random() < 0.6 else 1
        typical = -(5 + int(np.log2(reduction)) // 2)
        return Requantization(
            self.g.integers(1 << 30, 1 << 31, size, dtype=np.int64).astype(np.int32),
            np.clip(typical + self.g.integers(-2, 3, size), -31, 6).astype(np.int32),
            Rounding(self.integer(0, 2)),
        )

    def window(self, height: int, width: int) -> tuple[tuple[int, int], ...] | None:
        """Kernel, stride, dilation, (top, bottom), (left, right) and the output's size, or None if it does not fit."""
        result = []
        for size in (height, width):
            kernel, stride, dilation = self.integer(1, 4), self.integer(1, 3), self.integer(1, 2)
            reach = (kernel - 1) * dilation + 1
            if self.g.random() < 0.6:  # SAME
                out = -(-size // stride)
                total = max((out - 1) * stride + reach - size, 0)
                before, after = total // 2, total - total // 2
            else:
                before = self.integer(0, 2) if self.g.random() < 0.2 else 0
                after = 0
                if size + before < reach:
                    return None
                out = (size + before - reach) // stride + 1
            result.append((kernel, stride, dilation, before, after, out))
        return tuple(zip(*result, strict=True))

    def clamp(self) -> dict[str, Any]:
        if self.g.random() < 0.5:
            return {}
        low = self.integer(-128, 0)
        return {"minimum": low, "maximum": self.integer(low, 127)}

    def append(self, kind: str) -> None:
        g = self.g
        # Recent tensors more often, older ones sometimes: branches.
        x = self.tensors[-1] if g.random() < 0.7 else self.tensors[int(g.integers(len(self.tensors)))]
        n, h, w, c = x.nhwc
        name = f"{kind} {len(self.layers)}"
        layer: Layer | None = None
        if kind in {"convolution", "depthwise"}:
            window = self.window(h, w) if len(x.shape) == 4 else None
            if window is None:
                return
            kernel, stride, dilation, before, after, out = window
            common: dict[str, Any] = {
                "stride": stride,
                "dilation": dilation,
                "padding": Padding(before[0], after[0], before[1], after[1]),
                **self.clamp(),
            }
            if kind == "convolution":
                o = self.integer(1, 21)
                layer = Convolution(
                    name,
                    (x,),
                    self.tensor((n, *out, o)),
                    weights=self.int8(o, *kernel, c),
                    bias=g.integers(-(1 << 15), 1 << 15, o).astype(np.int32),
                    requantization=self.requantization(o, kernel[0] * kernel[1] * c),
                    **common,
                )
            else:
                o = c * (self.integer(1, 5) if g.random() < 0.5 else 1)
                layer = DepthwiseConvolution(
                    name,
                    (x,),
                    self.tensor((n, *out, o)),
                    weights=self.int8(*kernel, o),
                    bias=g.integers(-(1 << 12), 1 << 12, o).astype(np.int32),
                    requantization=self.requantization(o, kernel[0] * kernel[1]),
                    **common,
                )
        elif kind == "fully_connected":
            features = c if g.random() < 0.5 else h * w * c
            rows = x.elements // features
            o = self.integer(1, 21)
            if features > 1200 or (features != c and rows != n):
                return
            layer = Convolution(
                name,
                (x,),
                self.tensor((rows, o)),
                weights=self.int8(o, 1, 1, features),
                bias=g.integers(-(1 << 15), 1 << 15, o).astype(np.int32),
                requantization=self.requantization(o, features),
                fully_connected=True,
                **self.clamp(),
            )
        elif kind == "add":
            others = [t for t in self.tensors if t.shape == x.shape]
            y = others[int(g.integers(len(others)))]
            if g.random() < 0.2:
                y = self.tensor(x.shape, self.int8(*x.shape))
            operands = (x, y) if g.random() < 0.5 else (y, x)
            tables = tuple(g.integers(-(1 << 28), 1 << 28, 256).astype(np.int32) for _ in range(2))
            layer = Add(
                name,
                operands,
                self.tensor(x.shape),
                tables=(tables[0], tables[1]),
                requantization=Requantization(np.array([(1 << 30) + 12345], np.int32), np.array([-20], np.int32)),
                **self.clamp(),
            )
        elif kind == "pool":
            window = self.window(h, w) if len(x.shape) == 4 else None
            if window is None:
                return
            kernel, stride, _, before, after, out = window
            # A dilation of 1 may need less border than the window above; recompute the far side.
            far = [(o - 1) * s + k - b - size for o, s, k, b, size in zip(out, stride, kernel, before, (h, w), strict=True)]
            if any(b >= k for b, k in zip(before, kernel, strict=True)) or any(f >= k for f, k in zip(far, kernel, strict=True)):
                return
            kind_ = PoolKind.AVERAGE if g.random() < 0.5 else PoolKind.MAXIMUM
            layer = Pool(
                name,
                (x,),
                self.tensor((n, *out, c)),
                kind=kind_,
                window=kernel,
                stride=stride,
                padding=Padding(before[0], max(far[0], 0), before[1], max(far[1], 0)),
                **self.clamp(),
            )
        elif kind == "lookup":
            layer = Lookup(name, (x,), self.tensor(x.shape), table=self.int8(256))
        elif kind == "pad":
            if len(x.shape) != 4:
                return
            pad = Padding(*(self.integer(0, 2) for _ in range(4)))
            channels = (self.integer(0, 2), self.integer(0, 2)) if g.random() < 0.3 else (0, 0)
            shape = (n, h + pad.top + pad.bottom, w + pad.left + pad.right, c + sum(channels))
            layer = Pad(name, (x,), self.tensor(shape), padding=pad, value=self.integer(-128, 127), channels=channels)
        else:
            shapes = [(1, x.elements), (n, w, h, c), (n, h * w, 1, c), (1, 1, n * h, w * c), (n, h, c, w)]
            layer = Reshape(name, (x,), self.tensor(shapes[self.integer(0, len(shapes) - 1)]))
        if layer.output.elements <= 1500:
            self.layers.append(layer)
            self.tensors.append(layer.output)


def random_graph(seed: int, layers: int = 6, kinds: tuple[str, ...] = KINDS) -> Graph:
    """A graph of at most ``layers`` layers: random choices that do not fit are left out. Every tensor nobody reads is
    an output."""
    generator = np.random.default_rng(seed)
    builder = _Builder(generator)
    side = 9 if generator.random() < 0.5 else 5
    shape = (
        1 if generator.random() < 0.7 else 2,
        builder.integer(1, side),
        builder.integer(1, side),
        builder.integer(1, 20),
    )
    inputs = [builder.tensor(shape)]
    if generator.random() < 0.2:
        inputs.append(builder.tensor(shape))
    builder.tensors += inputs
    while len(builder.layers) < layers:
        before = len(builder.layers)
        for _ in range(8):
            builder.append(str(generator.choice(kinds)))
            if len(builder.layers) > before:
                break
        else:
            break
    read = {tensor.name for layer in builder.layers for tensor in layer.inputs}
    outputs = [layer.output for layer in builder.layers if layer.output.name not in read]
    graph_layers = list(builder.layers)
    if outputs and generator.random() < 0.3:
        logits = outputs[-1]
        result = Tensor("softmax", logits.shape, 1 / 256, -128, 999)
        graph_layers.append(Softmax("softmax", (logits,), result))
        outputs[-1] = result
    used = [tensor for tensor in inputs if tensor.name in read] or inputs[:1]
    return Graph(f"random {seed}", tuple(used), tuple(outputs), tuple(graph_layers))


def random_input(seed: int, tensor: Tensor) -> np.ndarray:
    """Random int8 values with corners mixed in: −128, 127, the zero point."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-128, 128, tensor.shape)
    corner = generator.choice(np.array([-128, 127, tensor.zero_point]), tensor.shape)
    return np.where(generator.random(tensor.shape) < 0.2, corner, values).astype(np.int8)
