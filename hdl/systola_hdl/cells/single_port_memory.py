"""A memory of 16-bit words with a single port: an SPRAM block of an iCE40 UltraPlus."""

from __future__ import annotations

from amaranth.hdl import C, Cat, ClockSignal, Elaboratable, Instance, MemoryData, Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_hdl.cells.families import Family, family_of

__all__ = ["SinglePortMemory"]


class SinglePortMemory(Component):
    """``depth`` words of 16 bits; one is read or written a cycle.

    After a write ``read_data`` is undefined, as the SPRAM's output is, until the next read; so are the contents at
    power-on.

    Implementation: iCE40 one ``SB_SPRAM256KA`` (SBTICETechnologyLibrary201708, "SB_SPRAM256KA"), whatever the depth;
    elsewhere a memory.

    Parameters
    ----------
    depth:
        Words, at most :attr:`largest`.

    Attributes
    ----------
    enable, write:
        Read, or with ``write`` write, in this cycle.
    address:
        Word.
    write_data, mask:
        Byte ``i`` is written if ``mask[i]``.
    read_data:
        The word that was read last, from :attr:`read_latency` cycles after its ``enable`` on.
    """

    #: Words of an SPRAM.
    largest = 1 << 14
    read_latency = 1

    def __init__(self, depth: int) -> None:
        if not 2 <= depth <= self.largest:
            raise ValueError(f"depth must be from 2 to {self.largest}, not {depth}")
        #: Contents, for simulation.
        self.data = MemoryData(shape=16, depth=depth, init=[])
        super().__init__(
            {
                "enable": In(1),
                "write": In(1),
                "address": In(ceil_log2(depth)),
                "write_data": In(16),
                "mask": In(2),
                "read_data": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if family_of(platform) is Family.ICE40:
            m.submodules.memory = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_CHIPSELECT=self.enable,
                i_WREN=self.write,
                i_ADDRESS=Cat(self.address, C(0, ceil_log2(self.largest) - len(self.address))),
                i_DATAIN=self.write_data,
                i_MASKWREN=Cat(self.mask[0].replicate(2), self.mask[1].replicate(2)),  # one enable bit for each four data bits
                i_STANDBY=C(0),
                i_SLEEP=C(0),
                i_POWEROFF=C(1),  # active low
                o_DATAOUT=self.read_data,
            )
            return m
        m.submodules.memory = memory = Memory(self.data)
        write, read = memory.write_port(granularity=8), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.write_data),
            read.addr.eq(self.address),
            read.en.eq(self.enable & ~self.write),
            self.read_data.eq(read.data),
        ]
        for index in range(2):
            m.d.comb += write.en[index].eq(self.enable & self.write & self.mask[index])
        return m
