"""LSTM cell: from gate sums and cell state to the new cell state and int8 hidden state, one hidden unit a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from systola_firmware.spec import isa
from systola_firmware.spec.isa import CELL_EXPONENT_MAXIMUM, CELL_EXPONENT_MINIMUM, Rounding
from systola_hdl.cells.product import Product
from systola_hdl.common.delay import delayed
from systola_hdl.full.post.lstm.activation import (
    EXPONENT_BITS,
    GATE_EXPONENT,
    Function,
    LstmActivation,
)
from systola_hdl.full.post.requantizer import FACTOR, Requantizer, add_half, below_half

__all__ = [
    "GATES",
    "GATE_ARGUMENTS",
    "LSTM_CELL",
    "LSTM_CONSTANTS",
    "LSTM_ITEM",
    "LSTM_RESULT",
    "ZERO_POINT_LATENCY",
    "CellState",
    "LstmCell",
    "Preactivations",
    "multiplied",
    "saturate",
    "with_zero_point",
]

#: Gates of a unit in the instruction set's order, each with its function.
GATES = {gate: Function.TANH if gate == "cell" else Function.SIGMOID for gate in isa.GATES}
#: Cycles of :func:`with_zero_point`.
ZERO_POINT_LATENCY = 2
#: Fraction bits of a gate's value.
_Q15 = 15

#: One hidden unit: requantized sums of the recurrent product, the input part (Q3.12) and the cell state.
LSTM_ITEM = data.StructLayout(
    {
        "recurrent": data.ArrayLayout(signed(32), len(GATES)),
        "preactivation": data.ArrayLayout(signed(16), len(GATES)),
        "cell": signed(16),
    }
)
#: One hidden unit after :class:`Preactivations`.
GATE_ARGUMENTS = data.StructLayout({"gate": data.ArrayLayout(signed(16), len(GATES)), "cell": signed(16)})
#: New state of one hidden unit.
LSTM_RESULT = data.StructLayout({"cell": signed(16), "hidden": signed(8)})
#: Fields of the LSTM instruction: log2 of the cell state's scale, -15 to -9; clip, 0 for none; factor and zero point of
#: the hidden state.
LSTM_CONSTANTS = data.StructLayout({"exponent": signed(EXPONENT_BITS), "clip": 15, "factor": FACTOR, "zero_point": signed(8)})

#: Ports of a cell. ``constants`` hold from the first ``i.valid`` until the last ``o.valid`` of an instruction.
LSTM_CELL = Signature(
    {
        "constants": In(LSTM_CONSTANTS),
        "i": In(stream.Signature(LSTM_ITEM, always_ready=True)),
        "o": Out(stream.Signature(LSTM_RESULT, always_ready=True)),
    }
)


def saturate(value: Value, bits: int) -> Value:
    """A signed ``value`` clamped to the range of signed ``bits``."""
    sign, above = value[-1], value[bits - 1 : -1]
    return Mux(above == sign.replicate(len(above)), value[:bits], Cat((~sign).replicate(bits - 1), sign)).as_signed()


def halved(value: Value) -> Value:
    """REQ's first rounding, ``(value * q + 2^30) >> 31``, of a signed ``value`` for q = 2^30."""
    return value[1:].as_signed() + value[0]


def multiplied(m: Module, name: str, a: Value, b: Value) -> Value:
    """Product of two int16, :attr:`~systola_hdl.cells.product.Product.latency` cycles after both."""
    m.submodules[f"{name}_product"] = product = Product(16, 16)
    m.d.comb += [product.a.eq(a), product.b.eq(b)]
    return product.p


def with_zero_point(m: Module, value: Value, zero_point: Value) -> Value:
    """``sat8(value + zero_point)``, :data:`ZERO_POINT_LATENCY` cycles after ``value``."""
    total = Signal(signed(33), name="with_zero_point", reset_less=True)
    result = Signal(signed(8), name="saturated", reset_less=True)
    m.d.sync += [total.eq(value + zero_point), result.eq(saturate(total, 8))]
    return result


class Preactivations(Component):
    """The arguments of the gates' functions: ``sat16(preactivation + sat16(recurrent))``, :attr:`latency` cycles after
    ``i``.

    Attributes
    ----------
    i:
        :data:`LSTM_ITEM`.
    o:
        :data:`GATE_ARGUMENTS`, with the cell state beside them; an item's values stay until those of the next item
        come.
    """

    latency = 2

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(LSTM_ITEM, always_ready=True)),
                "o": Out(stream.Signature(GATE_ARGUMENTS, always_ready=True)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        valid = Signal()
        cell = delayed(m, self.i.payload.cell, 1, "cell")
        m.d.sync += [valid.eq(self.i.valid), self.o.valid.eq(valid)]
        with m.If(valid):
            m.d.sync += self.o.payload.cell.eq(cell)
        for gate in range(len(GATES)):
            recurrent = Signal(signed(16), name=f"recurrent{gate}")
            added = Signal(signed(16), name=f"added{gate}")
            total = Signal(signed(17), name=f"total{gate}")
            m.d.sync += [
                recurrent.eq(saturate(self.i.payload.recurrent[gate], 16)),
                added.eq(self.i.payload.preactivation[gate]),
            ]
            m.d.comb += total.eq(recurrent + added)
            with m.If(valid):
                m.d.sync += self.o.payload.gate[gate].eq(saturate(total, 16))
        return m


class CellState(Component):
    """The new cell state, ``clamp(i_kept + i_added)``, one a cycle, :attr:`latency` cycles after both.

    Attributes
    ----------
    i_clip:
        Limit of the magnitude; 0 for that of int16.
    i_kept, i_added:
        What the old state and the candidate contribute, int16.
    o:
        int16.
    """

    latency = 3

    def __init__(self) -> None:
        super().__init__({"i_clip": In(15), "i_kept": In(signed(16)), "i_added": In(signed(16)), "o": Out(signed(16))})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        none = self.i_clip == 0
        low, high = Signal(signed(16)), Signal(signed(16))
        total, same = (Signal(signed(17), name=name, reset_less=True) for name in ("total", "same"))
        above, below = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            high.eq(Mux(none, (1 << 15) - 1, self.i_clip)),
            low.eq(Mux(none, -(1 << 15), -self.i_clip)),
            total.eq(self.i_kept + self.i_added),
            same.eq(total),
            above.eq(total > high),
            below.eq(total < low),
            self.o.eq(Mux(above, high, Mux(below, low, same))),
        ]
        return m


class LstmCell(Component):
    """Steps one hidden unit a cycle, as LSTM in :mod:`systola_firmware.spec.isa` says, bit for bit.

    Design::

        i ─▶ preactivations ─▶ i, f, g, o ─▶ f·c, i·g ─▶ rounded ─▶ clamped sum ─▶ tanh ─▶ o·tanh
          ─▶ requantizer ─▶ zero point ─▶ o

    The two products of the cell state are rescaled by powers of two, so REQ's two roundings are two additions and a
    shift. Neither result exceeds int16: |f·c| <= 32767 · 2^15 and |i·g| < 2^30, and both lose 15 bits or more. Only
    their sum saturates.

    The pipeline cannot stop: before an item enters, its producer reserves an entry of the queue that takes the result.

    Resources: five :class:`~systola_hdl.full.post.lstm.activation.LstmActivation`, three 16 × 16 multipliers, one
    :class:`~systola_hdl.full.post.requantizer.Requantizer`.

    Attributes
    ----------
    constants, i, o:
        See :data:`LSTM_CELL`.
    """

    #: Least cycles from one item to the next.
    interval = 1
    #: Cycles from ``i.valid`` to ``o.valid``.
    latency = (
        Preactivations.latency
        + LstmActivation.latency
        + Product.latency
        + 3  # rounding
        + CellState.latency
        + LstmActivation.latency
        + Product.latency
        + Requantizer.latency
        + ZERO_POINT_LATENCY
    )

    def __init__(self) -> None:
        super().__init__(LSTM_CELL)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        constants = self.constants
        m.submodules.preactivations = preactivations = Preactivations()
        m.d.comb += [preactivations.i.valid.eq(self.i.valid), preactivations.i.payload.eq(self.i.payload)]
        gates = {
            name: self._activation(
                m, name, preactivations.o.payload.gate[index], function, Const(GATE_EXPONENT, signed(EXPONENT_BITS))
            )
            for index, (name, function) in enumerate(GATES.items())
        }
        old = delayed(m, preactivations.o.payload.cell, LstmActivation.latency, "old")

        m.submodules.state = state = CellState()
        m.d.comb += [
            state.i_clip.eq(constants.clip),
            state.i_kept.eq(self._rescaled(m, "kept", (gates["forget"], old), Const(_Q15 - 1))),
            state.i_added.eq(self._rescaled(m, "added", (gates["input"], gates["cell"]), 2 * _Q15 - 1 + constants.exponent)),
        ]
        squashed = self._activation(m, "state_tanh", state.o, Function.TANH, constants.exponent)

        # product, requantization, zero point
        m.submodules.requantizer = requantizer = Requantizer()
        output = delayed(m, gates["output"], Product.latency + 3 + CellState.latency + LstmActivation.latency, "output")
        m.d.comb += [
            requantizer.i_value.eq(multiplied(m, "hidden", output, squashed)),
            requantizer.i_factor.eq(constants.factor),
            requantizer.i_rounding.eq(Rounding.DOUBLE),
            self.o.payload.hidden.eq(with_zero_point(m, requantizer.o, constants.zero_point)),
        ]

        new = delayed(m, state.o, LstmActivation.latency + Product.latency + Requantizer.latency + ZERO_POINT_LATENCY, "new")
        valid = Signal(self.latency)
        m.d.sync += valid.eq(Cat(self.i.valid, valid))
        m.d.comb += [self.o.payload.cell.eq(new), self.o.valid.eq(valid[-1])]
        return m

    def _activation(self, m: Module, name: str, value: Value, function: Function, exponent: Value) -> Signal:
        m.submodules[name] = activation = LstmActivation()
        m.d.comb += [activation.i_value.eq(value), activation.i_function.eq(function), activation.i_exponent.eq(exponent)]
        return activation.o

    def _rescaled(self, m: Module, name: str, factors: tuple[Value, Value], shift: Value) -> Value:
        """REQ(product of ``factors``, 2^30, -``shift``), rounded DOUBLE, int16. After the product there are three
        cycles: first rounding, second rounding, right shift."""
        limit = 2 * _Q15 - 1 + CELL_EXPONENT_MAXIMUM
        exact = multiplied(m, name, *factors)
        first = Signal(signed(31), name=f"{name}_halved")
        ones = Signal(limit - 1, name=f"{name}_ones")
        second = Signal(signed(32), name=f"{name}_rounded")
        result = Signal(signed(16), name=f"{name}_result")
        m.d.sync += [
            first.eq(halved(exact)),
            ones.eq(below_half(shift, limit)),
            second.eq(add_half(first, ones, first[-1])),
        ]
        shortest = min(2 * _Q15 - 1 + CELL_EXPONENT_MINIMUM, _Q15 - 1)
        m.d.sync += result.eq((second >> shortest) >> Value.cast(shift - shortest)[:3])
        return result
