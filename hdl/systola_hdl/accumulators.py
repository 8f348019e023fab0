"""Accumulators at the foot of the array: two halves, one fills while the other drains."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.config import Config
from systola_hdl.dot_cell import delayed, partial_sum_bits
from systola_hdl.interfaces import AccumulatorDrain
from systola_hdl.systolic_array import VECTOR_CONTROL

__all__ = ["AccumulatorBuffer"]


class AccumulatorBuffer(Component):
    """Adds the array's sums into int32 accumulators, one position a column a cycle; the post-processor drains full halves.

    A job fills one half: position 0 is its first valid sum, and again the one after ``pass_last``. ``first`` overwrites, else
    the sum is added, wrapping at 32 bits. After ``job_last`` the next job fills the other half, which must be claimed before
    its first sum arrives. Column ``c`` comes ``c * hop_registers`` cycles after column 0; the control follows along the foot.

    Read, add and write are one position a cycle, but a position may come again only ``shortest_pass`` cycles later.
    A half is full when the last column has written its last sum.

    Attributes
    ----------
    sums:
        One partial sum a column, skewed as the array delivers them.
    control:
        :data:`VECTOR_CONTROL` of column 0.
    free:
        A half is free. ``claim`` in a cycle with ``free`` takes one for the next job.
    drain:
        :class:`AccumulatorDrain`, flipped: data ``read_latency`` cycles after the address.
    """

    #: Cycles from a read of a position to the first read that sees its new value: read, register, add, write.
    shortest_pass = 4
    #: Cycles from a drain address to its data: address register, memory, output register.
    read_latency = 3

    def __init__(self, config: Config) -> None:
        self.config = config
        #: One memory a half and column, for inspection by tests: ``halves[half][column].data[position]``.
        self.halves = [
            [Memory(shape=signed(32), depth=config.accumulator_depth, init=[]) for _ in range(config.columns)] for _ in range(2)
        ]
        super().__init__(
            {
                "sums": In(data.ArrayLayout(signed(partial_sum_bits(config)), config.columns)),
                "control": In(VECTOR_CONTROL),
                "free": Out(1),
                "claim": In(1),
                "drain": In(AccumulatorDrain(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        position_bits = ceil_log2(self.config.accumulator_depth)
        hop = self.config.hop_registers

        claimed = Signal(2)  # halves filling or full
        full = Signal(2)
        drained = Signal()  # the half that is drained now or next
        m.d.comb += [self.free.eq(claimed < 2), self.drain.full.eq(full.bit_select(drained, 1))]
        m.d.sync += claimed.eq(claimed + (self.claim & self.free) - self.drain.release)
        with m.If(self.drain.release):
            m.d.sync += [full.bit_select(drained, 1).eq(0), drained.eq(~drained)]

        # Position and half are counted at column 0 and travel along the foot from there.
        position = Signal(position_bits)
        half = Signal()
        with m.If(self.control.valid):
            m.d.sync += position.eq(Mux(self.control.pass_last, 0, position + 1))
            m.d.sync += half.eq(half ^ self.control.job_last)

        drain_address = delayed(m, self.drain.address, 1, "drain_address")
        drain_full = delayed(m, full, 1, "drain_full", init=0)
        drain_half = delayed(m, drained, self.read_latency, "drain_half")
        travelling = Cat(self.control.valid, self.control.first, self.control.job_last, half, position)
        for column in range(self.config.columns):
            valid, first, job_last, fills, place = (travelling[0], travelling[1], travelling[2], travelling[3], travelling[4:])
            old = []
            place_written = delayed(m, place, 3, f"place{column}")
            fills_written = delayed(m, fills, 3, f"fills{column}")
            written = delayed(m, valid, 3, f"written{column}", init=0)
            # Cycle 2: old value and sum are registered. Cycle 3: the new value is written.
            new = Signal(signed(32), name=f"new{column}", reset_less=True)
            for index in range(2):
                m.submodules[f"half{index}_column{column}"] = memory = self.halves[index][column]
                read, write = memory.read_port(), memory.write_port()
                # Cycle 0: the address. A full half belongs to the drain.
                m.d.comb += [read.en.eq(1), read.addr.eq(Mux(drain_full[index], drain_address, place))]
                m.d.comb += [write.addr.eq(place_written), write.data.eq(new), write.en.eq(written & (fills_written == index))]
                old.append(delayed(m, read.data, 1, f"old{index}_{column}"))
            kept = Signal(signed(32), name=f"kept{column}")
            overwrites, fills_old = delayed(m, first, 2, f"first{column}"), delayed(m, fills, 2, f"fills_old{column}")
            with m.If(~overwrites):
                m.d.comb += kept.eq(Mux(fills_old, old[1], old[0]))
            m.d.sync += new.eq(kept + delayed(m, self.sums[column], 2, f"sum{column}"))
            m.d.comb += self.drain.data[column].eq(Mux(drain_half, old[1], old[0]))
            if column + 1 < self.config.columns:
                travelling = delayed(m, travelling, hop, f"travelling{column}", init=0)

        # With cycle 3 of the last column everything is written.
        finished = delayed(m, valid & job_last, 3, "finished", init=0)
        finished_half = delayed(m, fills, 3, "finished_half")
        with m.If(finished):
            m.d.sync += full.bit_select(finished_half, 1).eq(1)
        return m
