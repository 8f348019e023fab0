"""The LSTM cell with few resources: one activation function, one multiplier and one requantizer, a hidden unit every
five cycles."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component

from systola_firmware.spec.isa import Rounding
from systola_hdl.cells.product import Product
from systola_hdl.full.post.lstm.activation import GATE_EXPONENT, Function, LstmActivation
from systola_hdl.full.post.lstm.cell import (
    GATES,
    LSTM_CELL,
    ZERO_POINT_LATENCY,
    CellState,
    Preactivations,
    multiplied,
    with_zero_point,
)
from systola_hdl.full.post.requantizer import Requantizer

__all__ = ["SerialLstmCell"]

#: REQ's multiplier for a power of two.
_HALF = 1 << 30


class SerialLstmCell(Component):
    """:class:`~systola_hdl.full.post.lstm.cell.LstmCell` with the same ports and results, at one hidden unit every
    :attr:`interval` cycles.

    Design::

                          ┌───────────────── clamped sum ◀─────┐
                          ▼                                    │
        i ─▶ hold ─▶ activation ─▶ multiplier ─▶ requantizer ──┴─▶ zero point ─▶ o

    Activation, multiplier and requantizer each serve several units at a time, by a fixed schedule of :attr:`interval`
    phases: in phases 0 to 3 the activation takes the gates of one unit, in phase 4 the new cell state of an earlier
    one. The times below are counted from a unit's first gate. Their remainder modulo :attr:`interval` is the phase, and
    no block serves two units in the same phase. An item is held until the next phase 0, up to :attr:`interval` - 1
    cycles.

    Resources: one :class:`~systola_hdl.full.post.lstm.activation.LstmActivation`, one 16 × 16 multiplier, one
    :class:`~systola_hdl.full.post.requantizer.Requantizer`.

    Attributes
    ----------
    constants, i, o:
        See :data:`~systola_hdl.full.post.lstm.cell.LSTM_CELL`; at least :attr:`interval` cycles from one ``i.valid`` to
        the next.
    """

    #: Least cycles from one item to the next.
    interval = len(GATES) + 1

    # Times: the cycle in which a value leaves its block.
    _input, _forget, _candidate, _output = (LstmActivation.latency + gate for gate in range(len(GATES)))
    _kept = _forget + Product.latency + Requantizer.latency
    _added = _candidate + Product.latency + Requantizer.latency
    _state = _added + CellState.latency
    _state_in = _state + (len(GATES) - _state) % interval  # when the new cell state enters the activation
    _squashed = _state_in + LstmActivation.latency
    _hidden = _squashed + Product.latency + Requantizer.latency + ZERO_POINT_LATENCY

    #: Most cycles from ``i.valid`` to ``o.valid``; the least is ``interval - 1`` less.
    latency = Preactivations.latency + (interval - 1) + 1 + _hidden

    def __init__(self) -> None:
        super().__init__(LSTM_CELL)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        constants = self.constants
        phase = Signal(range(self.interval))
        m.d.sync += phase.eq(Mux(phase == self.interval - 1, 0, phase + 1))
        is_last = phase == self.interval - 1

        # The next unit waits in the registers of its preactivations until its turn.
        m.submodules.preactivations = preactivations = Preactivations()
        arguments = preactivations.o.payload
        full, waiting, begin = Signal(), Signal(), Signal()
        gates = Signal.like(arguments.gate)
        m.d.comb += [
            preactivations.i.valid.eq(self.i.valid),
            preactivations.i.payload.eq(self.i.payload),
            waiting.eq(preactivations.o.valid | full),
            begin.eq(waiting & is_last),
        ]
        m.d.sync += [full.eq(waiting & ~begin), gates.eq(Mux(is_last, arguments.gate, gates.as_value() >> 16))]

        # The activation: four gates, then an older unit's cell state.
        m.submodules.activation = activation = LstmActivation()
        m.submodules.state = state = CellState()
        m.d.comb += [
            activation.i_value.eq(
                Mux(is_last, self._kept_until(m, phase, state.o, "next", at=self._state, until=self._state_in), gates[0])
            ),
            activation.i_function.eq(Array([*GATES.values(), Function.TANH])[phase]),
            activation.i_exponent.eq(Mux(is_last, constants.exponent, GATE_EXPONENT)),
        ]

        # The multiplier: the output of the activation times an operand that has waited for it.
        waited = Signal(signed(16))
        old = self._kept_until(m, phase, arguments.cell, "old", at=-1, until=self._forget)
        input_gate = self._kept_until(m, phase, activation.o, "input", at=self._input, until=self._candidate)
        output_gate = self._kept_until(m, phase, activation.o, "output", at=self._output, until=self._squashed)
        with m.Switch(phase):
            with m.Case(self._forget % self.interval):
                m.d.comb += waited.eq(old)
            with m.Case(self._candidate % self.interval):
                m.d.comb += waited.eq(input_gate)
            with m.Default():
                m.d.comb += waited.eq(output_gate)
        product = multiplied(m, "gate", activation.o, waited)

        # The requantizer: from Q0.30 to the cell state's scale, or to the hidden state's.
        m.submodules.requantizer = requantizer = Requantizer()
        factor = Signal.like(requantizer.i_factor)
        m.d.comb += [requantizer.i_value.eq(product), requantizer.i_rounding.eq(Rounding.DOUBLE), requantizer.i_factor.eq(factor)]
        # The factor is chosen in the cycle before it is needed.
        with m.Switch(phase):
            with m.Case((self._forget + Product.latency - 1) % self.interval):
                m.d.sync += [factor.multiplier.eq(_HALF), factor.shift.eq(-14)]
            with m.Case((self._candidate + Product.latency - 1) % self.interval):
                m.d.sync += [factor.multiplier.eq(_HALF), factor.shift.eq(-29 - constants.exponent)]
            with m.Default():
                m.d.sync += factor.eq(constants.factor)

        # Either product's contribution to the cell state fits int16, see LstmCell.
        contribution = requantizer.o[:16].as_signed()
        m.d.comb += [
            state.i_clip.eq(constants.clip),
            state.i_kept.eq(self._kept_until(m, phase, contribution, "kept", at=self._kept, until=self._added)),
            state.i_added.eq(contribution),
        ]
        valid = Signal(self._hidden + 1)
        m.d.sync += valid.eq(Cat(begin, valid))
        m.d.comb += [
            self.o.payload.cell.eq(self._kept_until(m, phase, state.o, "new", at=self._state, until=self._hidden)),
            self.o.payload.hidden.eq(with_zero_point(m, requantizer.o, constants.zero_point)),
            self.o.valid.eq(valid[-1]),
        ]
        return m

    def _kept_until(self, m: Module, phase: Signal, value: Value, name: str, *, at: int, until: int) -> Value:
        """The ``value`` of a unit's cycle ``at``, for use in its cycle ``until``: a delay line that advances once in an
        interval."""
        for index in range(-((at - until) // self.interval)):
            register = Signal.like(value, name=f"{name}_{index}", reset_less=True)
            with m.If(phase == at % self.interval):
                m.d.sync += register.eq(value)
            value = register
        return value
