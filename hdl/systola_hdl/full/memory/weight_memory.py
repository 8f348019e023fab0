"""Weight memory: one word of several rows of weights a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In
from amaranth.utils import exact_log2

from systola_firmware.spec.config import Config
from systola_hdl.cells.segmented_memory import SegmentedMemory
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import BeatRead, BeatWrite, WeightRead
from systola_hdl.host.bus import Bus

__all__ = ["WeightMemory"]


class WeightMemory(Component):
    """``weight_words`` words of ``weight_word_bytes``, as banks of 32 bits: the host writes one bank, readers take all.

    One word is read a cycle, for the first of: post-processor (parameters, tables), weight loader, host, DMA. The
    post-processor's request passes two registers on its way here. The loader's ``ready``, a register as well, is
    derived from the first of them: it is low in the cycle that the post-processor takes.

    Attributes
    ----------
    read_post, read_loader:
        :class:`WeightRead`, flipped.
    host:
        :class:`Bus`, flipped; the address is the byte offset in this memory, in range and a multiple of 4. One request
        at a time.
    dma_read, dma_write:
        :class:`BeatRead` and :class:`BeatWrite`, flipped; only with ``config.dma``. A beat is two banks beside each
        other.
    """

    #: Cycles from an accepted address of the loader to its word: winner, banks.
    read_latency = 1 + SegmentedMemory.read_latency
    #: The same for the post-processor.
    post_latency = 2 + read_latency
    #: Cycles from an accepted address of the DMA to its beat: the memory, and a register behind the choice of the beat.
    dma_latency = read_latency + 1

    def __init__(self, config: Config) -> None:
        self.config = config
        #: 32-bit banks, for tests to fill: byte ``a`` of word ``w`` is byte ``a % 4`` of word ``w`` of ``banks[a //
        #: 4]``.
        self.banks = [SegmentedMemory(config.weight_words) for _ in range(config.weight_word_bytes // 4)]
        members = {"read_post": In(WeightRead(config)), "read_loader": In(WeightRead(config)), "host": In(Bus())}
        if config.dma:
            members["dma_read"] = In(BeatRead(config.weight_bytes))
            members["dma_write"] = In(BeatWrite(config.weight_bytes))
        super().__init__(members)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        post, loader, request, response = self.read_post, self.read_loader, self.host.request, self.host.response
        bank_bits = exact_log2(len(self.banks))
        address_bits = len(post.address)

        # Post-processor: two registers. Host: held until a cycle that no client before it needs.
        post_first = delayed(m, post.valid, 1, "post_first", init=0)
        post_valid = delayed(m, post_first, 1, "post_valid", init=0)
        post_address = delayed(m, post.address, 2, "post_address")
        loader_ready = Signal(init=1, attrs={"keep": 1})
        m.d.sync += loader_ready.eq(~post_first)
        held, waiting, reading = Signal.like(request.payload), Signal(), Signal()
        host_word = held.address[2 + bank_bits :][:address_bits]
        host_bank = held.address[2 : 2 + bank_bits]
        turn, host_reads, host_writes = Signal(), Signal(), Signal()
        m.d.comb += [
            post.ready.eq(1),
            loader.ready.eq(loader_ready),
            request.ready.eq(~waiting & ~reading & ~response.valid),
            turn.eq(waiting & (held.write | (~post_valid & ~loader.valid))),
            host_reads.eq(turn & ~held.write),
            host_writes.eq(turn & held.write),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += [held.eq(request.payload), waiting.eq(1)]

        # Cycle 0: the client that is served. Cycle 1: its address at the banks.
        read_word, write_word, written = host_word, host_word, [held.data]
        if self.config.dma:
            wants = waiting & ~held.write
            read_word = Mux(wants, host_word, self.dma_read.address[2 + bank_bits :])
            m.d.comb += [self.dma_read.ready.eq(~post_valid & ~loader.valid & ~wants), self.dma_write.ready.eq(~host_writes)]
            write_word = Mux(host_writes, host_word, self.dma_write.address[2 + bank_bits :])
            low, high = self.dma_write.data[:32], self.dma_write.data[32:]
            written = [Mux(host_writes, held.data, low), Mux(host_writes, held.data, high)]
        address = delayed(m, Mux(post_valid, post_address, Mux(loader.valid, loader.address, read_word)), 1, "address")
        write_address, write_data = delayed(m, write_word, 1, "write_address"), _all_delayed(m, written)
        words = []
        for index, bank in enumerate(self.banks):
            m.submodules[f"bank{index}"] = bank
            enable = host_writes & (host_bank == index)
            if self.config.dma:
                enable |= self._dma_writes(index)
            writes = delayed(m, enable, 1, f"write{index}", init=0)
            m.d.comb += [
                bank.read_address.eq(address),
                bank.write_address.eq(write_address),
                bank.write_data.eq(write_data[index % len(write_data)]),
                bank.write_enable.eq(writes),
            ]
            words.append(bank.read_data)
        word = Cat(*words)
        for client, taken in ((post, post_valid), (loader, loader.valid & loader.ready)):
            m.d.comb += [client.data.eq(word), client.data_valid.eq(delayed(m, taken, self.read_latency, "taken", init=0))]

        if self.config.dma:
            dma = self.dma_read
            pair = delayed(m, dma.address[3 : 2 + bank_bits], self.read_latency, "dma_pair")
            taken = delayed(m, dma.valid & dma.ready, self.dma_latency, "dma_taken", init=0)
            m.d.comb += [dma.data.eq(delayed(m, word.word_select(pair, 64), 1, "dma_beat")), dma.data_valid.eq(taken)]

        arrived = delayed(m, host_reads, self.read_latency, "host_taken", init=0)
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        with m.If(arrived):
            m.d.sync += [reading.eq(0), response.valid.eq(1), response.payload.data.eq(word.word_select(host_bank, 32))]
        with m.If(turn):
            m.d.sync += [waiting.eq(0), reading.eq(~held.write), response.valid.eq(held.write), response.payload.data.eq(0)]
        return m

    def _dma_writes(self, bank: int) -> Value:
        """Whether the DMA writes this bank, unless the host writes."""
        dma, pair_end = self.dma_write, 2 + exact_log2(len(self.banks))
        pair = dma.address[3:pair_end]
        return dma.valid & dma.ready & (pair == bank // 2) & dma.mask[4 * (bank % 2)]


def _all_delayed(m: Module, values: list[Value]) -> list[Value]:
    """Each value a cycle later."""
    return [delayed(m, value, 1, "write_data") for value in values]
