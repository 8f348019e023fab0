"""Memory of the program: fetched by the sequencer, written and read by the host."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.config import Config
from systola_hdl.bus_target import BusTarget
from systola_hdl.interfaces import Bus

__all__ = ["ProgramStore"]


class ProgramStore(Component):
    """``config.program_words`` words of 32 bits with one read port, so that it takes no more block RAM than its bits.

    A fetch always wins the read port; the host's access waits for a cycle without one (the sequencer has many: it stops when
    its slots are full, and a program ends).

    Members
    -------
    fetch_enable: In(1), fetch_address: In
        Read a word; the address counts words.
    fetch_data: Out(32)
        The word, one cycle after ``fetch_enable``; only in that cycle, as the host's reads change it.
    host:
        The host's access; the address is the byte offset in the region.
    """

    def __init__(self, config: Config) -> None:
        self._words = config.program_words
        super().__init__(
            {
                "fetch_enable": In(1),
                "fetch_address": In(ceil_log2(config.program_words)),
                "fetch_data": Out(32),
                "host": In(Bus()),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=self._words, init=[])
        m.submodules.target = target = BusTarget()
        connect(m, flipped(self.host), target.bus)
        write, read = memory.write_port(), memory.read_port()
        word = target.address[2 : 2 + ceil_log2(self._words)]
        m.d.comb += [
            target.grant.eq(~self.fetch_enable),
            write.addr.eq(word),
            write.data.eq(target.data),
            write.en.eq(target.enable & target.write),
            read.addr.eq(Mux(self.fetch_enable, self.fetch_address, word)),
            read.en.eq(self.fetch_enable | target.enable),
            self.fetch_data.eq(read.data),
            target.read_data.eq(read.data),
        ]
        return m
