"""Activation memory: reads and writes vectors at any byte address."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In
from amaranth.utils import exact_log2

from systola_firmware.config import Config
from systola_hdl.dot_cell import delayed
from systola_hdl.interfaces import ActivationRead, ActivationWrite, Bus

__all__ = ["ActivationMemory"]


class ActivationMemory(Component):
    """``rows`` byte lanes, each a memory of its own: byte ``a`` is in lane ``a % rows``, line ``a // rows``.

    A vector at address ``a`` is line ``a // rows`` of the lanes from ``a % rows`` on and the next line of those before, rotated.
    Addresses wrap at the end of the memory. One read and one write a cycle; each side serves its
    clients by fixed priority: post-processor, streamer (reads only), host.

    Attributes
    ----------
    read_post, read_stream:
        :class:`ActivationRead`, flipped.
    write:
        :class:`ActivationWrite`, flipped; always ready.
    host:
        :class:`Bus`, flipped; the address is the byte offset in this memory, in range and a multiple of 4. One request at a time.
    """

    #: Cycles from an accepted address to its vector: request, line addresses, memory, rotator.
    read_latency = 4
    #: Cycles from an accepted write to the first read that sees it.
    write_latency = 2

    def __init__(self, config: Config) -> None:
        self.config = config
        self.depth = config.activation_bytes // config.rows
        #: Byte lanes, for inspection by tests: ``lanes[a % rows].data[a // rows]``.
        self.lanes = [Memory(shape=8, depth=self.depth, init=[]) for _ in range(config.rows)]
        super().__init__(
            {
                "read_post": In(ActivationRead(config)),
                "read_stream": In(ActivationRead(config)),
                "write": In(ActivationWrite(config)),
                "host": In(Bus()),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for index, lane in enumerate(self.lanes):
            m.submodules[f"lane{index}"] = lane
        host_read, host_write = Signal(), Signal()  # the host's request, if its turn has come
        vector, arrived = self._build_read(m, host_read)
        self._build_write(m, host_write)
        self._build_host(m, host_read, host_write, vector, arrived)
        return m

    def _split(self, m: Module, address: Signal, name: str) -> tuple[Signal, Signal, Signal]:
        """Registered line, line after it (wrapping) and offset of a byte address."""
        rows = self.config.rows
        line = Signal(range(self.depth), name=f"{name}_line")
        following = Signal(range(self.depth), name=f"{name}_following")
        offset = Signal(range(rows), name=f"{name}_offset")
        here = address[exact_log2(rows) :]
        m.d.sync += [line.eq(here), following.eq(Mux(here == self.depth - 1, 0, here + 1)), offset.eq(address)]
        return line, following, offset

    def _build_read(self, m: Module, host_read: Signal) -> tuple[data.View, Signal]:
        rows = self.config.rows
        post, stream = self.read_post, self.read_stream
        m.d.comb += [post.ready.eq(1), stream.ready.eq(~post.valid)]
        host_accepted = Signal()
        m.d.comb += host_accepted.eq(host_read & ~post.valid & ~stream.valid)

        # Cycle 0: the winner. Cycle 1: its line in each lane.
        address = Signal.like(post.address)
        m.d.comb += address.eq(Mux(post.valid, post.address, Mux(stream.valid, stream.address, self.host.request.payload.address)))
        line, following, offset = self._split(m, address, "read")
        lanes = []
        for index, lane in enumerate(self.lanes):
            port = lane.read_port()
            m.d.comb += [port.en.eq(1), port.addr.eq(Mux(index < offset, following, line))]
            # Cycle 2: the memory's output. Cycle 3: registered.
            lanes.append(delayed(m, port.data, 1, f"lane{index}_data"))
        # Cycle 4: rotated.
        vector = Signal(data.ArrayLayout(8, rows))
        rotation = delayed(m, offset, 2, "rotation")
        m.d.sync += vector.as_value().eq(Cat(*_rotated(m, lanes, rotation, 1, "read")))
        for client, accepted in ((post, post.valid), (stream, stream.valid & ~post.valid)):
            m.d.comb += client.data.eq(vector)
            m.d.comb += client.data_valid.eq(delayed(m, accepted, self.read_latency, "accepted", init=0))
        return vector, delayed(m, host_accepted, self.read_latency, "host_accepted", init=0)

    def _build_write(self, m: Module, host_write: Signal) -> None:
        rows = self.config.rows
        m.d.comb += self.write.ready.eq(1)
        # Cycle 0: the winner. Cycle 1: rotated to the lanes. Cycle 2: written.
        request = self.host.request.payload
        count = max(self.config.requantize_lanes, 4)
        values, mask = Signal(8 * count), Signal(count)
        address = Signal.like(self.write.address)
        with m.If(self.write.valid):
            m.d.comb += [address.eq(self.write.address), values.eq(self.write.data.as_value()), mask.eq(self.write.mask)]
        with m.Else():
            m.d.comb += [address.eq(request.address), values.eq(request.data), mask.eq(Mux(host_write, 0xF, 0))]
        line, following, offset = self._split(m, address, "write")
        held_values, held_mask = delayed(m, values, 1, "write_values"), delayed(m, mask, 1, "write_mask", init=0)
        slots = [Cat(held_values.word_select(i, 8), held_mask[i]) if i < count else C(0, 9) for i in range(rows)]
        turned = _rotated(m, slots, offset, -1, "write")
        for index, lane in enumerate(self.lanes):
            port = lane.write_port()
            slot = delayed(m, turned[index], 1, f"write_slot{index}", init=0)
            place = delayed(m, Mux(index < offset, following, line), 1, f"write_line{index}")
            m.d.comb += [port.addr.eq(place), port.data.eq(slot[:8]), port.en.eq(slot[8])]

    def _build_host(self, m: Module, host_read: Signal, host_write: Signal, vector: data.View, arrived: Signal) -> None:
        request, response = self.host.request, self.host.response
        reading = Signal()
        free = ~reading & ~response.valid
        turn = Mux(request.payload.write, ~self.write.valid, ~self.read_post.valid & ~self.read_stream.valid)
        m.d.comb += [
            host_read.eq(request.valid & free & ~request.payload.write),
            host_write.eq(request.valid & free & request.payload.write),
            request.ready.eq(free & turn),
        ]
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        with m.If(arrived):
            m.d.sync += [reading.eq(0), response.valid.eq(1), response.payload.data.eq(vector.as_value()[:32])]
        with m.If(request.valid & request.ready):
            m.d.sync += [reading.eq(~request.payload.write), response.valid.eq(request.payload.write), response.payload.data.eq(0)]


def _rotated(m: Module, slots: list[Value], amount: Signal, direction: int, name: str) -> list[Value]:
    """Slot ``i`` of the result is slot ``i + direction*amount``, modulo their number (a power of two)."""
    for bit in range(len(amount)):
        turned = [Signal(len(slot), name=f"{name}_turn{bit}_{index}") for index, slot in enumerate(slots)]
        for index, slot in enumerate(slots):
            m.d.comb += turned[index].eq(Mux(amount[bit], slots[(index + direction * (1 << bit)) % len(slots)], slot))
        slots = list(turned)
    return slots
