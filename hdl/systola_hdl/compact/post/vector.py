"""Operands of VECTOR in the compact engine: bytes of the activation memory, mapped through tables in the weight
memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.compact.memory.activation_memory import ActivationMemory

__all__ = ["Operands"]


class Operands(Component):
    """Reads one byte for each item of the walker, or two of a VECTOR with two sources, and delivers operands in that
    order.

    Without tables, a byte a cycle, but: without taps, at most four operands are under way, which is an output every two
    or three cycles; with taps, an output's first is read when that of the output before has been taken.

    With tables, one operand is under way at a time: byte, then entry.

    Attributes
    ----------
    valid:
        An item: its address lies inside, as does its output's.
    address, first, last:
        Where its byte is; if ``second``, that of the second source. ``first`` and ``last`` of its output.
    second:
        It is about the second source.
    item_taken:
        The item's last byte is read.
    taps, two, table, identity_maximum:
        Several operands an output from one source; two sources; with tables; the maximum's identity, not the sum's.
        Constant.
    table_number, table_place:
        First word of that table, from two cycles after the byte's read on.
    inject:
        For one cycle: deliver the combination's identity, as an output's only operand.
    values_taken, value_waits:
        An operand was taken by the sum; a complete sum waits.
    under_way:
        Some operand has not been taken.
    operand_valid, operand, operand_first, operand_last:
        What comes out; it cannot be refused.
    """

    def __init__(self, config: Config) -> None:
        if ActivationMemory.read_latency != 1:
            raise ValueError(f"the activation memory must answer after 1 cycle, not {ActivationMemory.read_latency}")
        self.config = config
        activation_bits, weight_bits = ceil_log2(config.activation_bytes), ceil_log2(config.weight_words)
        super().__init__(
            {
                "valid": In(1),
                "address": In(activation_bits),
                "first": In(1),
                "last": In(1),
                "second": Out(1),
                "item_taken": Out(1),
                "taps": In(1),
                "two": In(1),
                "table": In(1),
                "identity_maximum": In(1),
                "table_number": Out(1),
                "table_place": In(weight_bits),
                "inject": In(1),
                "values_taken": In(1),
                "value_waits": In(1),
                "under_way": Out(1),
                "operand_valid": Out(1),
                "operand": Out(signed(32)),
                "operand_first": Out(1),
                "operand_last": Out(1),
                "read_valid": Out(1),
                "read_ready": In(1),
                "read_address": Out(activation_bits),
                "read_data": In(32),
                "read_data_valid": In(1),
                "weights_valid": Out(1),
                "weights_ready": In(1),
                "weights_address": Out(weight_bits),
                "weights_data": In(32),
                "weights_data_valid": In(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        under_way = Signal(4)  # operands read and not taken
        room = Signal()
        issued = Signal()
        waits = self.taps & self.first  # for all before
        with m.If(self.table | waits):
            m.d.comb += room.eq(~under_way.any() & ~(self.value_waits & waits))
        with m.Else():
            m.d.comb += room.eq(self.taps | (under_way[2:] == 0))
        m.d.comb += [
            self.under_way.eq(under_way.any()),
            self.read_valid.eq(self.valid & room),
            self.read_address.eq(Cat(Const(0, 1), self.address[1:])),
            issued.eq(self.read_valid & self.read_ready),
            self.item_taken.eq(issued & (self.second | ~self.two)),
        ]
        m.d.sync += under_way.eq(under_way + (issued | self.inject) - self.values_taken)
        with m.If(issued):
            m.d.sync += self.second.eq(self.two & ~self.second)

        # What the read is for; with tables it stays until the entry is there.
        odd = Signal()
        with m.If(issued | self.inject):
            m.d.sync += [
                odd.eq(self.address[0]),
                self.table_number.eq(self.second),
                self.operand_first.eq(self.inject | (self.first & ~self.second)),
                self.operand_last.eq(self.inject | (self.last & (self.second | ~self.two))),
            ]
        byte = Signal(signed(8))
        looked_up = Signal(8)
        injected = Signal()
        m.d.comb += byte.eq(
            Mux(injected, Cat(Const(0, 7), self.identity_maximum), Mux(odd, self.read_data[8:16], self.read_data[:8]))
        )
        m.d.sync += injected.eq(self.inject)
        with m.If(self.read_data_valid):
            m.d.sync += [looked_up.eq(byte), self.weights_valid.eq(self.table)]
        with m.If(self.weights_valid & self.weights_ready):
            m.d.sync += self.weights_valid.eq(0)
        m.d.comb += [
            self.weights_address.eq(self.table_place + looked_up),
            self.operand_valid.eq(injected | Mux(self.table, self.weights_data_valid, self.read_data_valid)),
            self.operand.eq(Mux(self.table & ~injected, self.weights_data.as_signed(), byte)),
        ]
        return m
