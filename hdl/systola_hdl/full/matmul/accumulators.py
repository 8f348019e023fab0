"""Accumulators below the array: two halves, one fills while the other drains."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_hdl.cells.block_memory import BlockMemory
from systola_hdl.common.delay import delayed
from systola_hdl.full.interfaces import AccumulatorDrain
from systola_hdl.full.matmul.dot_cell import partial_sum_bits
from systola_hdl.full.matmul.systolic_array import VECTOR_CONTROL

__all__ = ["AccumulatorBuffer"]


class AccumulatorBuffer(Component):
    """Adds the array's sums into int32 accumulators, one position a column a cycle; the post-processor drains full
    halves.

    A job fills one half. Its valid sums belong to the positions 0, 1, 2 …; after ``pass_last`` they begin at 0 again.
    With ``first`` a sum overwrites the accumulator, otherwise it is added, wrapping at 32 bits. After ``job_last`` the
    next job fills the other half, which must be free when its first sum arrives: both are free after reset, and each
    :attr:`freed` means that one more is. Column ``c`` comes ``c * hop_registers`` cycles after column 0; the control
    signals pass from column to column with the same delay.

    Throughput is one position a cycle, but the same position may come again only ``shortest_pass`` cycles later. A half
    is full when the last column has written its last sum.

    Attributes
    ----------
    sums:
        One partial sum a column, skewed as the array delivers them.
    control:
        :data:`VECTOR_CONTROL` of column 0.
    freed:
        For one cycle: a half was released, so another job may begin.
    drain:
        :class:`AccumulatorDrain`, flipped: data ``read_latency`` cycles after the address.
    """

    #: Halves, all of them free after reset.
    count = 2
    #: Least cycles between two reads of the same position: memory (two), multiplexer, adder. The memory has the new
    #: value one cycle later than that; at exactly this distance it is forwarded.
    shortest_pass = 4
    #: Cycles from a drain address to its data: a register on the way there, address register, memory and its output
    #: register, choice of half, a register on the way back.
    read_latency = 6

    def __init__(self, config: Config) -> None:
        self.config = config
        #: One memory a half and column, for inspection by tests: ``halves[half][column].data[position]``.
        self.halves = [
            [BlockMemory(signed(32), config.accumulator_depth) for _ in range(config.columns)] for _ in range(self.count)
        ]
        super().__init__(
            {
                "sums": In(data.ArrayLayout(signed(partial_sum_bits(config)), config.columns)),
                "control": In(VECTOR_CONTROL),
                "freed": Out(1),
                "drain": In(AccumulatorDrain(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        position_bits = ceil_log2(self.config.accumulator_depth)
        hop = self.config.hop_registers

        full = Signal(self.count)
        drained = Signal()  # the half that is drained now or next
        m.d.comb += self.drain.full.eq(full.bit_select(drained, 1))
        m.d.sync += self.freed.eq(self.drain.release)
        with m.If(self.drain.release):
            m.d.sync += [full.bit_select(drained, 1).eq(0), drained.eq(~drained)]

        # Position and half are counted at column 0 and travel from column to column.
        position = Signal(position_bits)
        half = Signal()
        with m.If(self.control.valid):
            m.d.sync += position.eq(Mux(self.control.pass_last, 0, position + 1))
            m.d.sync += half.eq(half ^ self.control.job_last)

        drain_address = delayed(m, self.drain.address, 1, "drain_address")
        drain_full = delayed(m, full, 1, "drain_full", init=0)
        drain_half = delayed(m, drained, self.read_latency - 3, "drain_half")
        travelling = Cat(self.control.valid, self.control.first, self.control.job_last, half, position)
        # `again`: the same position of the same half came `shortest_pass` cycles ago, so the memory is not up to date.
        recent = Cat(self.control.valid, half, position)
        again = delayed(m, recent == delayed(m, recent, self.shortest_pass, "recent", init=0), 1, "again")
        for column in range(self.config.columns):
            valid, first, job_last, fills, entry = (travelling[0], travelling[1], travelling[2], travelling[3], travelling[4:])
            entry_written = delayed(m, entry, 5, f"place{column}")
            old = []
            # Cycle 4: the old value. Cycle 5: the new value; it is written.
            new = Signal(signed(32), name=f"new{column}", reset_less=True)
            for index in range(self.count):
                m.submodules[f"half{index}_column{column}"] = memory = self.halves[index][column]
                # Cycle 1: the address, in a register of each memory. A full half is addressed by the drain.
                address = Signal(position_bits, name=f"address{index}_{column}", reset_less=True, attrs={"keep": 1})
                m.d.sync += address.eq(Mux(drain_full[index], drain_address, entry))
                m.d.comb += [
                    memory.read_address.eq(address),
                    memory.write_address.eq(entry_written),
                    memory.write_data.eq(new),
                    memory.write_enable.eq(delayed(m, valid & (fills == index), 5, f"written{index}_{column}", init=0)),
                ]
                old.append(memory.read_data)  # cycle 3
            kept = Signal(signed(32), name=f"kept{column}", reset_less=True)
            fills_now, first_now = delayed(m, fills, 1, f"fills{column}"), delayed(m, first, 1, f"first{column}")
            chosen = 0
            for name, source, choice in (
                ("half0", old[0], ~again & ~fills_now),
                ("half1", old[1], ~again & fills_now),
                ("recent", delayed(m, new, self.shortest_pass - 2, f"recent_value{column}"), again),
            ):
                chosen |= Mux(delayed(m, choice & ~first_now, 2, f"{name}_is_kept{column}"), source, 0)
            m.d.sync += [kept.eq(chosen), new.eq(kept + delayed(m, self.sums[column], 4, f"sum{column}"))]
            drains = Signal(name=f"drains{column}", attrs={"keep": 1})  # a copy for each column: it drives 32 multiplexers
            m.d.sync += drains.eq(drain_half)
            drain_data = delayed(m, Mux(drains, old[1], old[0]), 1, f"drained{column}")
            m.d.sync += self.drain.data[column].eq(drain_data)
            if column + 1 < self.config.columns:
                travelling = delayed(m, travelling, hop, f"travelling{column}", init=0)
                again = delayed(m, again, hop, f"again{column}")

        # After cycle 5 of the last column everything is written.
        finished = delayed(m, valid & job_last, 5, "finished", init=0)
        finished_half = delayed(m, fills, 5, "finished_half")
        with m.If(finished):
            m.d.sync += full.bit_select(finished_half, 1).eq(1)
        return m
