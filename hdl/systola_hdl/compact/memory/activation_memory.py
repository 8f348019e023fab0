"""Activation memory of the compact engine: two single-port memories, which together read 4 bytes from any even
address."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.wiring import Component, In

from systola_firmware.spec.config import Config
from systola_hdl.cells.single_port_memory import SinglePortMemory
from systola_hdl.common.memory_ports import ActivationRead
from systola_hdl.compact.interfaces import ActivationWrite, HostAccess

__all__ = ["ActivationMemory"]


class ActivationMemory(Component):
    """Even halfwords in one memory, odd ones in the other; one access a cycle, by fixed priority: POST's write, POST's
    read, the streamer's read, the host; but the host has its turn before the streamer in a cycle after one without the
    streamer's.

    An aligned word, or four bytes from an even address, are one access. Four bytes from an odd address are two in two
    cycles, of which the second has priority over everything; its ``ready`` comes with the second. A client that wants
    single bytes asks for the even address below and picks one. Addresses wrap at the end of the memory.

    Attributes
    ----------
    read_post, read_stream:
        :class:`ActivationRead`, flipped.
    write:
        :class:`ActivationWrite`, flipped.
    host:
        :class:`HostAccess`, flipped: done a cycle after its turn.
    """

    #: Cycles from an accepted address to its vector.
    read_latency = SinglePortMemory.read_latency
    #: Cycles from an accepted write to the first read that sees it.
    write_latency = 1

    def __init__(self, config: Config) -> None:
        size = config.activation_bytes
        if size & (size - 1):
            raise ValueError(f"activation_bytes must be a power of two in a compact engine, not {size}")
        self.config = config
        self.lines = size // 4
        #: Even and odd halfwords, for tests to fill: the halfword at byte ``2*h`` is ``banks[h % 2].data[h // 2]``.
        self.banks = [SinglePortMemory(self.lines) for _ in range(2)]
        super().__init__(
            {
                "read_post": In(ActivationRead(config)),
                "read_stream": In(ActivationRead(config)),
                "write": In(ActivationWrite(config)),
                "host": In(HostAccess(self.lines)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.even, m.submodules.odd = even, odd = self.banks
        post, stream, write, host = self.read_post, self.read_stream, self.write, self.host

        # The winner of this cycle. A read from an odd address keeps its turn for a second cycle.
        second, second_stream = Signal(), Signal()
        writes, reads_post, reads_stream, serves_host = Signal(), Signal(), Signal(), Signal()
        begins, idle = Signal(), Signal()
        turn_host = Signal()  # unless POST wants it
        m.d.comb += [
            turn_host.eq(host.valid & ~host.done & idle & ~second),
            writes.eq(write.valid & ~second),
            reads_post.eq(post.valid & Mux(second, ~second_stream, ~write.valid)),
            reads_stream.eq(stream.valid & Mux(second, second_stream, ~write.valid & ~post.valid & ~serves_host)),
            serves_host.eq(turn_host & ~write.valid & ~post.valid),
            begins.eq(~second & ((reads_post & post.address[0]) | (reads_stream & stream.address[0]))),
            write.ready.eq(~second),
            post.ready.eq(reads_post & ~begins),
            stream.ready.eq(reads_stream & ~begins),
        ]
        m.d.sync += [second.eq(begins), second_stream.eq(reads_stream)]
        # The host's turn does not look at the streamer's request, which comes late in a cycle, but at that of the cycle
        # before.
        m.d.sync += idle.eq(~stream.valid)

        # A vector that begins in an odd halfword ends in the even one of the next line; so does the rest of an odd
        # address. Requests come late in a cycle, POST's write latest: lines are added up before one is chosen, and no
        # choice looks at those that overrule it.
        half, turn_post = Signal(), Signal()
        m.d.comb += [
            turn_post.eq(Mux(second, ~second_stream, post.valid)),
            half.eq(Mux(turn_post, post.address[1], stream.address[1])),
        ]
        for index, bank in enumerate(self.banks):
            part = slice(16 * index, 16 * index + 16)
            line_post, line_stream = (
                (client.address[2:] + (second if index else second | client.address[1]))[: len(bank.address)]
                for client in (post, stream)
            )
            read = Mux(turn_post, line_post, Mux(turn_host, host.address, line_stream))
            m.d.comb += [
                bank.enable.eq(1),
                bank.write.eq(writes | (serves_host & host.write)),
                bank.address.eq(Mux(writes, write.address, read)),
                bank.write_data.eq(Mux(writes, write.data.as_value()[part], host.data[part])),
                bank.mask.eq(Mux(writes, write.mask[2 * index : 2 * index + 2], 0b11)),
            ]

        # Cycle 1: the halfwords in order; of an odd address, the last three bytes of the first read and the first of
        # the second.
        turned, joined = Signal(), Signal()
        vector, kept, post_valid, stream_valid = Signal(32), Signal(24, reset_less=True), Signal(), Signal()
        m.d.sync += [turned.eq(half), joined.eq(second), kept.eq(vector[8:]), host.done.eq(serves_host)]
        m.d.sync += [post_valid.eq(post.valid & post.ready), stream_valid.eq(stream.valid & stream.ready)]
        m.d.comb += vector.eq(Mux(turned, Cat(odd.read_data, even.read_data), Cat(even.read_data, odd.read_data)))
        for client, valid in ((post, post_valid), (stream, stream_valid)):
            m.d.comb += client.data.eq(Mux(joined, Cat(kept, vector[:8]), vector))
            m.d.comb += client.data_valid.eq(valid)
        m.d.comb += host.read_data.eq(Cat(even.read_data, odd.read_data))
        return m
