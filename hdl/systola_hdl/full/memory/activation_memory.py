"""Activation memory: reads and writes vectors at any byte address."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In
from amaranth.utils import exact_log2

from systola_firmware.spec.config import DMA_BEAT_BYTES, Config
from systola_hdl.cells.block_memory import BlockMemory
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import ActivationRead, ActivationWrite, BeatRead, BeatWrite
from systola_hdl.host.bus import Bus

__all__ = ["ActivationMemory"]


class ActivationMemory(Component):
    """``rows`` byte lanes, each a memory of its own: byte ``a`` is in lane ``a % rows``, line ``a // rows``.

    A vector at address ``a`` is made of line ``a // rows`` of the lanes from ``a % rows`` on and of the next line of
    the lanes before them, rotated. Addresses wrap at the end of the memory. One read and one write a cycle; each side
    serves its clients by fixed priority: post-processor, streamer (reads only), host, DMA. The post-processor's read
    passes two registers on its way here. The streamer's ``ready``, a register as well, is derived from the first of
    them: it is low in the cycle that the post-processor takes.

    Attributes
    ----------
    read_post, read_stream:
        :class:`ActivationRead`, flipped.
    write:
        :class:`ActivationWrite`, flipped; always ready.
    host:
        :class:`Bus`, flipped; the address is the byte offset in this memory, in range and a multiple of 4. One request
        at a time.
    dma_read, dma_write:
        :class:`BeatRead` and :class:`BeatWrite`, flipped; only with ``config.dma``. Reads have the streamer's latency.
    """

    #: Cycles from the streamer's accepted address to its vector: line addresses, lanes, memory, rotator in two.
    read_latency = 2 + BlockMemory.read_latency + 2
    #: The same for the post-processor.
    post_latency = 2 + read_latency
    #: Cycles from an accepted write to the first read that sees it.
    write_latency = 3

    def __init__(self, config: Config) -> None:
        self.config = config
        self.depth = config.activation_bytes // config.rows
        #: Byte lanes, for inspection by tests: ``lanes[a % rows].data[a // rows]``.
        self.lanes = [BlockMemory(8, self.depth) for _ in range(config.rows)]
        members = {
            "read_post": In(ActivationRead(config)),
            "read_stream": In(ActivationRead(config)),
            "write": In(ActivationWrite(config)),
            "host": In(Bus()),
        }
        if config.dma:
            members["dma_read"] = In(BeatRead(config.activation_bytes))
            members["dma_write"] = In(BeatWrite(config.activation_bytes))
        super().__init__(members)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        for index, lane in enumerate(self.lanes):
            m.submodules[f"lane{index}"] = lane
        wants = {name: Signal(name=f"host_{name}") for name in ("read", "write")}
        turns = {name: Signal(name=f"host_{name}_turn") for name in wants}
        self._held = Signal.like(self.host.request.payload, name="held")
        vector, arrived = self._build_read(m, wants["read"], turns["read"])
        self._build_write(m, wants["write"], turns["write"])
        self._build_host(m, turns, wants, vector, arrived)
        return m

    def _split(self, m: Module, address: Value, name: str) -> tuple[Signal, Signal, Signal]:
        """Registered line, line after it (wrapping) and offset of a byte address."""
        rows = self.config.rows
        line = Signal(range(self.depth), name=f"{name}_line")
        following = Signal(range(self.depth), name=f"{name}_following")
        offset = Signal(range(rows), name=f"{name}_offset")
        here = address[exact_log2(rows) :]
        after = here + 1 if self.depth & (self.depth - 1) == 0 else Mux(here == self.depth - 1, 0, here + 1)
        m.d.sync += [line.eq(here), following.eq(after), offset.eq(address)]
        return line, following, offset

    def _build_read(self, m: Module, host_read: Signal, host_turn: Signal) -> tuple[data.View, Signal]:
        rows = self.config.rows
        post, stream = self.read_post, self.read_stream
        post_first = delayed(m, post.valid, 1, "post_first", init=0)
        post_valid = delayed(m, post_first, 1, "post_valid", init=0)
        post_address = delayed(m, post.address, 2, "post_address")
        stream_ready = Signal(init=1, attrs={"keep": 1})
        m.d.sync += stream_ready.eq(~post_first)
        m.d.comb += [
            post.ready.eq(1),
            stream.ready.eq(stream_ready),
            host_turn.eq(~post_valid & ~stream.valid),
        ]

        # Cycle 0: the client that is served. Cycle 1: line and offset of its address, and the next line.
        host_address = self._held.address[: len(stream.address)]
        if self.config.dma:
            host_address = Mux(host_read, host_address, self.dma_read.address)
        address = Mux(post_valid, post_address, Mux(stream.valid, stream.address, host_address))
        line, following, offset = self._split(m, address, "read")
        lanes = []
        for index, lane in enumerate(self.lanes):
            # Cycle 2: the lane's address. Cycle 4: the memory's registered output.
            lane_line = delayed(m, Mux(index < offset, following, line), 1, f"read_place{index}", keep=True)
            m.d.comb += lane.read_address.eq(lane_line)
            lanes.append(lane.read_data)
        # Cycles 5 and 6: the bytes are rotated, so that the addressed one comes first.
        vector = Signal(data.ArrayLayout(8, rows))
        early = delayed(m, offset, BlockMemory.read_latency, "read_offset")
        amounts = [delayed(m, early, 1, f"read_amount{copy}", keep=True) for copy in range(rows // 4)]
        turned = _rotated(m, lanes, amounts, 1, "read")
        m.d.comb += vector.as_value().eq(Cat(*turned))
        for client, accepted in ((post, post_valid), (stream, stream.valid & stream.ready)):
            m.d.comb += client.data.eq(vector)
            m.d.comb += client.data_valid.eq(delayed(m, accepted, self.read_latency, "accepted", init=0))
        if self.config.dma:
            dma = self.dma_read
            m.d.comb += [dma.ready.eq(host_turn & ~host_read), dma.data.eq(vector.as_value()[: len(dma.data)])]
            m.d.comb += dma.data_valid.eq(delayed(m, dma.valid & dma.ready, self.read_latency, "dma_accepted", init=0))
        return vector, delayed(m, host_read & host_turn, self.read_latency, "host_accepted", init=0)

    def _build_write(self, m: Module, host_write: Signal, host_turn: Signal) -> None:
        rows = self.config.rows
        count = max(self.config.requantize_lanes, DMA_BEAT_BYTES if self.config.dma else 4)
        # Cycle 1: the write port in registers. Cycle 2: the client that is served. Cycles 3 and 4: its bytes are
        # rotated to their lanes. They are written at the end of cycle 4.
        valid = delayed(m, self.write.valid, 1, "write_valid", init=0)
        came_address = delayed(m, self.write.address, 1, "came_address")
        came_data = delayed(m, self.write.data.as_value(), 1, "came_data")
        came_mask = delayed(m, self.write.mask, 1, "came_mask")
        values, mask = Signal(8 * count), Signal(count)
        address = Signal.like(self.write.address)
        m.d.comb += [self.write.ready.eq(1), host_turn.eq(~valid)]
        with m.If(valid):
            m.d.comb += [address.eq(came_address), values.eq(came_data), mask.eq(came_mask)]
        with m.Else():
            m.d.comb += [address.eq(self._held.address), values.eq(self._held.data), mask.eq(Mux(host_write, 0xF, 0))]
            if self.config.dma:
                dma = self.dma_write
                m.d.comb += dma.ready.eq(~host_write)
                with m.If(~host_write):
                    m.d.comb += [address.eq(dma.address), values.eq(dma.data), mask.eq(Mux(dma.valid, dma.mask, 0))]
        line, following, offset = self._split(m, address, "write")
        held_values, held_mask = delayed(m, values, 1, "write_values"), delayed(m, mask, 1, "write_mask", init=0)
        elements = [Cat(held_values.word_select(i, 8), held_mask[i]) if i < count else C(0, 9) for i in range(rows)]
        turned = _rotated(m, elements, [offset], -1, "write", init=0)
        for index, lane in enumerate(self.lanes):
            lane_line = delayed(m, Mux(index < offset, following, line), 2, f"write_place{index}")
            m.d.comb += [
                lane.write_address.eq(lane_line),
                lane.write_data.eq(turned[index][:8]),
                lane.write_enable.eq(turned[index][8]),
            ]

    def _build_host(
        self, m: Module, turns: dict[str, Signal], wants: dict[str, Signal], vector: data.View, arrived: Signal
    ) -> None:
        """Hold the host's request until a cycle that no client before it needs."""
        request, response, held = self.host.request, self.host.response, self._held
        waiting, reading = Signal(), Signal()
        m.d.comb += [
            wants["read"].eq(waiting & ~held.write),
            wants["write"].eq(waiting & held.write),
            request.ready.eq(~waiting & ~reading & ~response.valid),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += [held.eq(request.payload), waiting.eq(1)]
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        with m.If(arrived):
            m.d.sync += [reading.eq(0), response.valid.eq(1), response.payload.data.eq(vector.as_value()[:32])]
        with m.If((wants["read"] & turns["read"]) | (wants["write"] & turns["write"])):
            m.d.sync += [waiting.eq(0), reading.eq(~held.write), response.valid.eq(held.write), response.payload.data.eq(0)]


def _rotated(
    m: Module, elements: list[Value], amounts: list[Value], direction: int, name: str, *, init: int | None = None
) -> list[Value]:
    """Element ``i`` of the result, two cycles later, is element ``i + direction*amount``, modulo their number (a power
    of two).

    Each cycle rotates by one half of the bits of the amount. ``amounts`` are equal copies of it, each for an equal
    share of neighbouring elements, to limit their fan-out.
    """
    bits = len(amounts[0])
    for stage in (range(bits // 2), range(bits // 2, bits)):
        share = len(elements) // len(amounts)
        for bit in stage:
            step = direction * (1 << bit)
            elements = [
                Mux(amounts[index // share][bit], elements[(index + step) % len(elements)], element)
                for index, element in enumerate(elements)
            ]
        elements = [delayed(m, element, 1, f"{name}_turn{stage.stop}_{index}", init=init) for index, element in enumerate(elements)]
        copies = len(elements) // 4
        amounts = [
            delayed(m, amounts[copy * len(amounts) // copies], 1, f"{name}_amount{copy}", keep=True) for copy in range(copies)
        ]
    return elements
