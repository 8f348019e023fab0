"""Random integer graphs with LSTM layers and slices, made without any model file: for the compiler's tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Convolution, Lookup, Lstm, Slice
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.requantization import Requantization

__all__ = ["lstm_graph", "random_layer", "random_lstm_graph", "sliced"]


def _requantization(generator: np.random.Generator, count: int, low: int, high: int) -> Requantization:
    multiplier = generator.integers(1 << 30, 1 << 31, count, dtype=np.int64).astype(np.int32)
    return Requantization(multiplier, generator.integers(low, high + 1, count).astype(np.int32))


def _int8(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(-128, 128, shape).astype(np.int8)


def random_layer(generator: np.random.Generator, x: Tensor, hidden: int, *, time_major: bool, name: str = "lstm") -> Lstm:
    """An LSTM over ``x`` whose gates are now in their middle, now saturated."""
    features = x.shape[2]
    y = Tensor(f"{name}_y", (*x.shape[:2], hidden), 0.1, int(generator.integers(-128, 128)))
    # Sums are about 5500 times the root of their terms; preactivations should come to some thousands.
    down = [round(0.5 * np.log2(terms)) for terms in (features, hidden)]
    return Lstm(
        name,
        (x,),
        y,
        input_weights=_int8(generator, 4, hidden, features),
        recurrent_weights=_int8(generator, 4, hidden, hidden),
        bias=generator.integers(-(1 << 13), 1 << 13, (4, hidden)).astype(np.int32),
        input_requantization=_requantization(generator, 4, -2 - down[0], 1 - down[0]),
        recurrent_requantization=_requantization(generator, 4, -3 - down[1], 0 - down[1]),
        hidden_requantization=_requantization(generator, 1, -24, -22),
        cell_exponent=int(generator.integers(-15, -8)),
        clip=int(generator.choice([0, 0, 32767, int(generator.integers(1, 20_000))])),
        time_major=time_major,
        hidden_index=11,
        cell_index=12,
    )


def lstm_graph(
    seed: int, *, batch: int = 1, steps: int = 5, features: int = 6, hidden: int = 7, time_major: bool = False, layers: int = 1
) -> Graph:
    """LSTM layers in a row, all of ``hidden`` units."""
    generator = np.random.default_rng(seed)
    outer = (steps, batch) if time_major else (batch, steps)
    x = Tensor("x", (*outer, features), 0.1, int(generator.integers(-128, 128)))
    made: list[Layer] = []
    for number in range(layers):
        source = made[-1].output if made else x
        made.append(random_layer(generator, source, hidden, time_major=time_major, name=f"lstm_{number}"))
    return Graph(f"lstm {seed}", (x,), (made[-1].output,), tuple(made))


def sliced(x: Tensor, begin: tuple[int, ...], size: tuple[int, ...], step: tuple[int, ...], *, name: str, drop: bool) -> Slice:
    """A slice of ``x``; with ``drop`` the axes of one element vanish."""
    shape = tuple(n for n in size if n > 1 or not drop) or (1,)
    return Slice(name, (x,), Tensor(name, shape, x.scale, x.zero_point), begin=begin, size=size, step=step)


def _dense(generator: np.random.Generator, x: Tensor, name: str) -> Convolution:
    features, outputs = x.shape[-1], int(generator.integers(1, 9))
    return Convolution(
        name,
        (x,),
        Tensor(name, (x.elements // features, outputs), 0.1, 3),
        weights=_int8(generator, outputs, 1, 1, features),
        bias=generator.integers(-999, 999, outputs).astype(np.int32),
        requantization=_requantization(generator, outputs, -9, -7),
        fully_connected=True,
    )


def random_lstm_graph(seed: int) -> Graph:
    """One or two LSTMs, often with slices, tables in place and a dense layer before or behind."""
    generator = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    batch, steps, time_major = draw(1, 3), draw(1, 9), bool(generator.random() < 0.5)
    outer: Any = (steps, batch) if time_major else (batch, steps)
    x = Tensor("x", (*outer, draw(1, 20)), 0.1, draw(-128, 127))
    layers: list[Layer] = []
    current = x
    if generator.random() < 0.3:
        layers.append(Lookup("first", (x,), Tensor("t0", x.shape, 0.1, draw(-128, 127)), table=_int8(generator, 256)))
        current = layers[-1].output
    for number in range(draw(1, 2)):
        layers.append(random_layer(generator, current, draw(1, 20), time_major=time_major, name=f"lstm_{number}"))
        current = layers[-1].output
    outputs = [current] if generator.random() < 0.5 else []
    if generator.random() < 0.7:
        begin, size, step = [], [], []
        for length in current.shape:
            stride = draw(1, 2)
            start = draw(0, length - 1)
            count = draw(1, -(-(length - start) // stride))
            whole = generator.random() < 0.5
            begin.append(0 if whole else start)
            size.append(length if whole else count)
            step.append(1 if whole else stride)
        layers.append(sliced(current, tuple(begin), tuple(size), tuple(step), name="slice", drop=bool(generator.random() < 0.5)))
        current = layers[-1].output
    if generator.random() < 0.4:
        layers.append(Lookup("last", (current,), Tensor("t1", current.shape, 0.1, draw(-128, 127)), table=_int8(generator, 256)))
        current = layers[-1].output
    if generator.random() < 0.5:
        layers.append(_dense(generator, current, "dense"))
        current = layers[-1].output
    return Graph(f"random lstm {seed}", (x,), tuple({t.name: t for t in (*outputs, current)}.values()), tuple(layers))
