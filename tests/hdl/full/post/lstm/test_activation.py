"""LstmActivation against ``systola_sim.golden.lstm_cell``: every argument of every function."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from support.benches.stream_block import CompiledStream

from systola_firmware.spec.isa import CELL_EXPONENT_MAXIMUM, CELL_EXPONENT_MINIMUM
from systola_hdl.common.delay import delayed
from systola_hdl.full.post.lstm.activation import (
    EXPONENT_BITS,
    GATE_EXPONENT,
    Function,
    LstmActivation,
)
from systola_sim.golden import lstm_cell as model

ARGUMENTS = np.arange(-(1 << 15), 1 << 15)
_ITEM = data.StructLayout({"value": signed(16), "function": 1, "exponent": signed(EXPONENT_BITS)})


class Harnessed(Component):
    """An activation between streams."""

    def __init__(self) -> None:
        super().__init__(
            {
                "constants": In(1),
                "i": In(stream.Signature(_ITEM, always_ready=True)),
                "o": Out(stream.Signature(signed(16), always_ready=True)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.activation = activation = LstmActivation()
        item = self.i.payload
        m.d.comb += [
            activation.i_value.eq(item.value),
            activation.i_function.eq(item.function),
            activation.i_exponent.eq(item.exponent),
            self.o.valid.eq(delayed(m, self.i.valid, LstmActivation.latency, init=0)),
            self.o.payload.eq(activation.o),
        ]
        return m


def test_every_argument_of_every_function() -> None:
    """In random order, so that function and exponent change from cycle to cycle."""
    exponents = range(CELL_EXPONENT_MINIMUM, CELL_EXPONENT_MAXIMUM + 1)
    cases = [(Function.SIGMOID, GATE_EXPONENT, model.sigmoid(ARGUMENTS))]
    cases += [(Function.TANH, exponent, model.tanh(ARGUMENTS, exponent)) for exponent in exponents]
    words = [
        (ARGUMENTS & 0xFFFF) | function.value << 16 | (exponent & ((1 << EXPONENT_BITS) - 1)) << 17
        for function, exponent, _ in cases
    ]
    order = np.random.default_rng(6).permutation(len(cases) * len(ARGUMENTS))
    items = np.concatenate(words)[order].astype("<u4").view(np.uint8).reshape(-1, 4)
    expected = np.concatenate([result for *_, result in cases])[order]

    results, ends = CompiledStream(Harnessed()).run(0, items, np.arange(len(items)), drain=100)

    np.testing.assert_array_equal(ends, np.arange(len(items)) + LstmActivation.latency)
    np.testing.assert_array_equal(results.view("<i2")[:, 0], expected)
