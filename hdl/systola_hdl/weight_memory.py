"""Weight memory: one word of several rows of weights a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.wiring import Component, In
from amaranth.utils import exact_log2

from systola_firmware.config import Config
from systola_hdl.dot_cell import delayed
from systola_hdl.interfaces import Bus, WeightRead
from systola_hdl.segmented_memory import SegmentedMemory

__all__ = ["WeightMemory"]


class WeightMemory(Component):
    """``weight_words`` words of ``weight_word_bytes``, as banks of 32 bits: the host writes one bank, readers take all.

    One word is read a cycle, for the first of: post-processor (parameters, tables), weight loader, host.

    Attributes
    ----------
    read_post, read_loader:
        :class:`WeightRead`, flipped.
    host:
        :class:`Bus`, flipped; the address is the byte offset in this memory, in range and a multiple of 4. One request at a time.
    """

    #: Cycles from an accepted address to its word: request, memory, output register.
    read_latency = 3

    def __init__(self, config: Config) -> None:
        self.config = config
        #: 32-bit banks, for tests to fill: byte ``a`` of word ``w`` is byte ``a % 4`` of word ``w`` of ``banks[a // 4]``.
        self.banks = [SegmentedMemory(config.weight_words) for _ in range(config.weight_word_bytes // 4)]
        super().__init__({"read_post": In(WeightRead(config)), "read_loader": In(WeightRead(config)), "host": In(Bus())})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        post, loader, request, response = self.read_post, self.read_loader, self.host.request, self.host.response
        bank_bits = exact_log2(len(self.banks))
        host_word = request.payload.address[2 + bank_bits :]
        host_bank = Signal(range(len(self.banks)))
        m.d.comb += host_bank.eq(request.payload.address[2 : 2 + bank_bits])

        reading = Signal()
        host_free = ~reading & ~response.valid
        turn = request.payload.write | (~post.valid & ~loader.valid)
        m.d.comb += [post.ready.eq(1), loader.ready.eq(~post.valid), request.ready.eq(host_free & turn)]
        accepted = Signal()
        m.d.comb += accepted.eq(request.valid & request.ready)

        # Cycle 0: the winner. Cycle 1: the memory reads (or, for the host, writes). Cycle 3: the word, registered.
        address = delayed(
            m, Mux(post.valid, post.address, Mux(loader.valid, loader.address, host_word[: len(post.address)])), 1, "address"
        )
        write_address = delayed(m, host_word[: len(post.address)], 1, "write_address")
        write_data = delayed(m, request.payload.data, 1, "write_data")
        words = []
        for index, bank in enumerate(self.banks):
            m.submodules[f"bank{index}"] = bank
            writes = delayed(m, accepted & request.payload.write & (host_bank == index), 1, f"write{index}", init=0)
            m.d.comb += [
                bank.read_address.eq(address),
                bank.write_address.eq(write_address),
                bank.write_data.eq(write_data),
                bank.write_enable.eq(writes),
            ]
            words.append(delayed(m, bank.read_data, 1, f"word{index}"))
        word = Cat(*words)
        for client, taken in ((post, post.valid), (loader, loader.valid & ~post.valid)):
            m.d.comb += [client.data.eq(word), client.data_valid.eq(delayed(m, taken, self.read_latency, "taken", init=0))]

        arrived = delayed(m, accepted & ~request.payload.write, self.read_latency, "host_taken", init=0)
        bank = Signal.like(host_bank)
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        with m.If(arrived):
            m.d.sync += [reading.eq(0), response.valid.eq(1), response.payload.data.eq(word.word_select(bank, 32))]
        with m.If(accepted):
            m.d.sync += [reading.eq(~request.payload.write), response.valid.eq(request.payload.write)]
            m.d.sync += [response.payload.data.eq(0), bank.eq(host_bank)]
        return m
