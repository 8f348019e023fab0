"""Weight memory of the compact engine, which holds the program as well: two single-port memories side by side."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, In

from systola_firmware.spec.config import Config
from systola_hdl.cells.single_port_memory import SinglePortMemory
from systola_hdl.common.logic import moved
from systola_hdl.common.memory_ports import WeightRead
from systola_hdl.compact.interfaces import HostAccess, ProgramFetch, stored_words

__all__ = ["WeightMemory"]


class WeightMemory(Component):
    """Words of 32 bits: the weights from word 0, the program behind them. One access a cycle, by fixed priority: the
    sequencer's fetch, POST (parameters, tables), the weight loader, the host.

    Attributes
    ----------
    fetch:
        :class:`ProgramFetch`, flipped.
    read_post, read_loader:
        :class:`WeightRead`, flipped.
    host:
        :class:`HostAccess` of all words, flipped: done a cycle after its turn.
    """

    #: Cycles from an accepted address to its word.
    read_latency = SinglePortMemory.read_latency
    fetch_latency = SinglePortMemory.read_latency

    def __init__(self, config: Config) -> None:
        self.config = config
        words = stored_words(config)
        #: Low and high halfwords, for tests to fill.
        self.banks = [SinglePortMemory(words) for _ in range(2)]
        super().__init__(
            {
                "fetch": In(ProgramFetch(config)),
                "read_post": In(WeightRead(config)),
                "read_loader": In(WeightRead(config)),
                "host": In(HostAccess(words)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.low, m.submodules.high = self.banks
        fetch, post, loader, host = self.fetch, self.read_post, self.read_loader, self.host
        serves_host = Signal()
        m.d.comb += [
            fetch.ready.eq(1),
            post.ready.eq(~fetch.valid),
            loader.ready.eq(~fetch.valid & ~post.valid),
            serves_host.eq(host.valid & ~host.done & ~fetch.valid & ~post.valid & ~loader.valid),
        ]
        address = Signal.like(host.address)
        with m.If(fetch.valid):
            m.d.comb += address.eq(moved(fetch.address, self.config.weight_bytes // 4, self.config.program_words))
        with m.Elif(post.valid):
            m.d.comb += address.eq(post.address)
        with m.Elif(loader.valid):
            m.d.comb += address.eq(loader.address)
        with m.Else():
            m.d.comb += address.eq(host.address)
        for index, bank in enumerate(self.banks):
            m.d.comb += [
                bank.enable.eq(1),
                bank.write.eq(serves_host & host.write),
                bank.address.eq(address),
                bank.write_data.eq(host.data[16 * index : 16 * index + 16]),
                bank.mask.eq(0b11),
            ]
        word = Cat(bank.read_data for bank in self.banks)
        m.d.comb += [client.data.eq(word) for client in (fetch, post, loader)]
        m.d.comb += host.read_data.eq(word)
        m.d.sync += [client.data_valid.eq(client.valid & client.ready) for client in (fetch, post, loader)]
        m.d.sync += host.done.eq(serves_host)
        return m
