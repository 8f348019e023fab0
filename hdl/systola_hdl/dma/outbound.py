"""Moves bytes from one of the engine's memories to the host's."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import DMA_BEAT_BYTES, Config
from systola_firmware.spec.dma import LENGTH_BITS
from systola_firmware.spec.memory_map import REGION_SHIFT, Region, region_bytes
from systola_hdl.common.memory_ports import BeatRead
from systola_hdl.dma.layouts import MEMORIES, MOVE
from systola_hdl.host.host_port import HostMemory

__all__ = ["QUEUE_DEPTH", "Outbound"]

#: Entries of the queue, each reserved when its beat is requested from a memory: more than the cycles from a request to
#: its beat, so that one beat a cycle is sustained.
QUEUE_DEPTH = 16


class Outbound(Component):
    """Throughput is a beat a cycle while the memory delivers and the link is ready. Alignment is dealt with as in
    :class:`~systola_hdl.dma.inbound.Inbound`, in the other direction.

    Members
    -------
    start: In(stream of MOVE)
        Taken while no transfer is in progress. The transfer lies inside the memory and is aligned as the memory
        demands.
    program, activation, weight: Out(BeatRead)
        The memories.
    write, write_data:
        The host's memory.
    done: Out(1)
        For one cycle: the link has taken the last beat.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(MOVE)),
                **{memory.name.lower(): Out(BeatRead(region_bytes(config, memory))) for memory in MEMORIES},
                "write": Out(stream.Signature(HostMemory.TRANSFER)),
                "write_data": Out(stream.Signature(HostMemory.WRITE_DATA)),
                "done": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = SyncFIFO(width=8 * DMA_BEAT_BYTES, depth=QUEUE_DEPTH)
        start, begins = self.start.payload, Signal()
        shifted, prime = Signal(), Signal()
        left = Signal(LENGTH_BITS)  # bytes still to be written
        half = Signal(32)  # the upper one of the beat before
        output, room, needs_input, advances = self.write_data, Signal(), Signal(), Signal()
        odd = (start.device_address[REGION_SHIFT:] != Region.ACTIVATION) & start.device_address[2]
        m.d.comb += [
            room.eq(~output.valid | output.ready),
            needs_input.eq(prime | ~shifted | (left > DMA_BEAT_BYTES // 2)),
            begins.eq(self.start.valid & self.start.ready),
        ]
        self._build_reads(m, queue, begins)
        with m.If(output.ready):
            m.d.sync += output.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                m.d.sync += [
                    shifted.eq(odd),
                    prime.eq(odd),
                    left.eq(start.length),
                    self.write.payload.host_address.eq(start.host_address),
                    self.write.payload.length.eq(start.length),
                ]
                with m.If(self.start.valid):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.write.valid.eq(1)
                with m.If(self.write.ready):
                    m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += [advances.eq(room & (queue.r_rdy | ~needs_input)), queue.r_en.eq(room & needs_input)]
                with m.If(advances):
                    m.d.sync += [half.eq(queue.r_data[32:]), prime.eq(0)]
                with m.If(advances & ~prime):
                    m.d.sync += [
                        output.valid.eq(1),
                        output.payload.data.eq(Mux(shifted, Cat(half, queue.r_data[:32]), queue.r_data)),
                        left.eq(left - DMA_BEAT_BYTES),
                    ]
                    with m.If(left <= DMA_BEAT_BYTES):
                        m.next = "FINISH"
            with m.State("FINISH"):
                with m.If(~output.valid):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
        return m

    def _build_reads(self, m: Module, queue: SyncFIFO, begins: Signal) -> None:
        """Request beats from the memory, no more than the queue has entries for."""
        start = self.start.payload
        region, address = Signal(32 - REGION_SHIFT), Signal(REGION_SHIFT)
        beats = Signal(range((1 << LENGTH_BITS) // DMA_BEAT_BYTES + 2))  # still to be requested
        held = Signal(range(QUEUE_DEPTH + 1))  # entries reserved: requested and not yet taken from the queue
        asks, taken, pops = Signal(), Signal(), Signal()
        m.d.comb += [asks.eq((beats != 0) & (held != QUEUE_DEPTH)), pops.eq(queue.r_en & queue.r_rdy)]
        for memory in MEMORIES:
            port = getattr(self, memory.name.lower())
            m.d.comb += [port.valid.eq(asks & (region == memory)), port.address.eq(address)]
            with m.If((region == memory) & port.ready):
                m.d.comb += taken.eq(asks)
            with m.If(port.data_valid):
                m.d.comb += [queue.w_en.eq(1), queue.w_data.eq(port.data)]
        m.d.sync += held.eq(held + taken - pops)
        with m.If(taken):
            m.d.sync += [address.eq(address + DMA_BEAT_BYTES), beats.eq(beats - 1)]
        with m.If(begins):
            odd = (start.device_address[REGION_SHIFT:] != Region.ACTIVATION) & start.device_address[2]
            m.d.sync += [
                region.eq(start.device_address[REGION_SHIFT:]),
                address.eq(start.device_address[:REGION_SHIFT] - (odd << 2)),
                beats.eq((start.length + (odd << 2) + DMA_BEAT_BYTES - 1)[3:]),
            ]
