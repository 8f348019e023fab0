"""An LSTM of random weights: what the engine's speed is measured with, as cycles depend on sizes and not on values."""

from __future__ import annotations

import numpy as np

from systola.device import Device
from systola.errors import ProgramError
from systola.measure.benchmark import measure
from systola.measure.record import Record
from systola_firmware.compiler import compile_graph
from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Graph
from systola_firmware.ir.layers import Lstm
from systola_firmware.ir.tensor import Tensor
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.program import Program

__all__ = ["BATCHES", "STEPS", "UNITS", "compile_lstm", "lstm_graph", "measure_lstm"]

#: Hidden units, and features of the input, of the LSTM that ``make bench`` measures; its sequences side by side; its
#: time steps.
UNITS = 128
BATCHES = (1, 2, 4)
STEPS = 8

#: The multiplier of all requantizations here. It stands for one half, so that the requantizations are shifts.
_HALF = 1 << 30


def lstm_graph(units: int = UNITS, features: int = UNITS, *, steps: int = STEPS, batch: int = 1, seed: int = 0) -> Graph:
    """One LSTM over an int8 input of the shape ``(batch, steps, features)``.

    With 128 units and features, preactivations are in the range where the gates are not saturated, so the answers
    depend on every weight.
    """
    generator = np.random.default_rng(seed)

    def shift(count: int, exponent: int) -> Requantization:
        return Requantization(np.full(count, _HALF, np.int32), np.full(count, exponent, np.int32))

    x = Tensor("x", (batch, steps, features), 1 / 128, 0, 0)
    layer = Lstm(
        "lstm",
        (x,),
        Tensor("y", (batch, steps, units), 1 / 128, 0, 1),
        (0,),
        input_weights=generator.integers(-127, 128, (4, units, features), dtype=np.int8),
        recurrent_weights=generator.integers(-127, 128, (4, units, units), dtype=np.int8),
        bias=generator.integers(-999, 1000, (4, units)).astype(np.int32),
        # Sums are about 60,000, so half of 2^-4 of them is about half of 1 in Q3.12. o·tanh(c) is Q0.30, and h has the
        # scale 2^-7.
        input_requantization=shift(4, -4),
        recurrent_requantization=shift(4, -4),
        hidden_requantization=shift(1, -22),
        cell_exponent=-12,
    )
    return Graph(f"lstm_{units}_batch_{batch}", (x,), (layer.output,), (layer,))


def compile_lstm(graph: Graph, config: Config) -> Program:
    """The program of such a graph. Raises :class:`~systola.errors.ProgramError` where the engine has no room or no LSTM
    cell."""
    try:
        return compile_graph(graph, config)
    except CompileError as error:
        raise ProgramError(f"{graph.name}: {error}") from error


def measure_lstm(device: Device, batch: int, *, units: int = UNITS, steps: int = STEPS) -> Record:
    """The record of an LSTM of as many features as units; its entry ``batch`` is the number of sequences.

    Raises :class:`~systola.errors.ProgramError` if it does not fit, :class:`~systola.errors.DeviceError` for a device
    without a cycle counter.
    """
    graph = lstm_graph(units, units, steps=steps, batch=batch)
    record = measure(device.load(compile_lstm(graph, device.config)), graph.name)
    return {**record, "batch": batch}
