"""Operands of VECTOR in the compact engine: bytes of the activation memory, mapped through tables in the weight
memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.common.memory_ports import ActivationRead, WeightRead
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.post.layouts import FIELDS, OPERAND

__all__ = ["Operands"]


class Operands(Component):
    """Reads the byte of each request and delivers operands in that order.

    Without tables it reads a byte a cycle, with two exceptions: without taps, at most four operands are under way,
    which is an output every two or three cycles; with taps, an output's first operand is read when all of the output
    before have been taken.

    With tables, one operand is under way at a time: its byte is read, then the table's entry.

    Attributes
    ----------
    fields:
        Of the instruction: :data:`~systola_hdl.compact.post.layouts.FIELDS`.
    requests:
        Bytes to read: ``address``, inside the memory; of the ``second`` source or the first; of the ``first`` or the
        ``last`` tap of its output.
    table_number, table_address:
        First word of that table, from two cycles after the byte's read on.
    inject:
        For one cycle: deliver the combination's identity, as an output's only operand.
    values_taken, value_waits:
        An operand was taken by the sum; a complete sum waits.
    under_way:
        Some operand has not been taken.
    o:
        Operands: :data:`~systola_hdl.compact.post.layouts.OPERAND`.
    read, weights:
        Ports of the memories.
    """

    def __init__(self, config: Config) -> None:
        if ActivationMemory.read_latency != 1:
            raise ValueError(f"the activation memory must answer after 1 cycle, not {ActivationMemory.read_latency}")
        self.config = config
        request = {"address": ceil_log2(config.activation_bytes), "second": 1, "first": 1, "last": 1}
        super().__init__(
            {
                "fields": In(FIELDS),
                "requests": In(stream.Signature(data.StructLayout(request))),
                "table_number": Out(1),
                "table_address": In(ceil_log2(config.weight_words)),
                "inject": In(1),
                "values_taken": In(1),
                "value_waits": In(1),
                "under_way": Out(1),
                "o": Out(stream.Signature(OPERAND, always_ready=True)),
                "read": Out(ActivationRead(config)),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        fields, request, o = self.fields, self.requests.payload, self.o.payload
        read_data, weights_data = self.read.data.as_value(), self.weights.data.as_value()
        under_way = Signal(4)  # operands read and not taken
        room = Signal()
        issued = Signal()
        waits = fields.has_taps & request.first  # for all operands before
        with m.If(fields.table | waits):
            m.d.comb += room.eq(~under_way.any() & ~(self.value_waits & waits))
        with m.Else():
            m.d.comb += room.eq(fields.has_taps | (under_way[2:] == 0))
        m.d.comb += [
            self.under_way.eq(under_way.any()),
            self.read.valid.eq(self.requests.valid & room),
            self.read.address.eq(Cat(Const(0, 1), request.address[1:])),
            issued.eq(self.read.valid & self.read.ready),
            self.requests.ready.eq(issued),
        ]
        m.d.sync += under_way.eq(under_way + (issued | self.inject) - self.values_taken)

        # What the read is for; with tables it stays until the entry is there.
        odd = Signal()
        with m.If(issued | self.inject):
            m.d.sync += [
                odd.eq(request.address[0]),
                self.table_number.eq(request.second),
                o.first.eq(self.inject | (request.first & ~request.second)),
                o.last.eq(self.inject | (request.last & (request.second | ~fields.two_sources))),
            ]
        byte = Signal(signed(8))
        looked_up = Signal(8)
        injected = Signal()
        m.d.comb += byte.eq(Mux(injected, Cat(Const(0, 7), fields.takes_maximum), Mux(odd, read_data[8:16], read_data[:8])))
        m.d.sync += injected.eq(self.inject)
        with m.If(self.read.data_valid):
            m.d.sync += [looked_up.eq(byte), self.weights.valid.eq(fields.table)]
        with m.If(self.weights.valid & self.weights.ready):
            m.d.sync += self.weights.valid.eq(0)
        m.d.comb += [
            self.weights.address.eq(self.table_address + looked_up),
            self.o.valid.eq(injected | Mux(fields.table, self.weights.data_valid, self.read.data_valid)),
            o.value.eq(Mux(fields.table & ~injected, weights_data.as_signed(), byte)),
        ]
        return m
