"""Moves what was read from the host's memory into one of the engine's."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import DMA_BEAT_BYTES, Config
from systola_firmware.spec.dma import LENGTH_BITS
from systola_firmware.spec.memory_map import REGION_SHIFT, Region, region_bytes
from systola_hdl.common.memory_ports import BeatWrite
from systola_hdl.dma.layouts import MEMORIES, MOVE
from systola_hdl.host.host_port import DMA_ERROR, HostMemory

__all__ = ["Inbound", "beat_mask"]


def beat_mask(left: Value) -> Value:
    """A bit for each of the first ``left`` bytes of a beat, all if there are more."""
    return Cat(left > index for index in range(DMA_BEAT_BYTES))


class Inbound(Component):
    """Throughput is a beat a cycle while data comes and the memory is ready; latency is two cycles.

    The activation memory takes a beat at any byte address. The memories of program and weights take beats at multiples
    of 8 bytes only. A transfer to an odd word is therefore shifted by half a beat: each beat written is made of halves
    of two beats that came. Byte ``i`` of the transfer always goes to ``device_address + i``.

    Members
    -------
    start: In(stream of MOVE)
        Taken while no transfer is in progress. The transfer lies inside the memory and is aligned as the memory
        demands.
    i: In(stream of READ_DATA)
        The bytes.
    program, activation, weight: Out(BeatWrite)
        The memories.
    done: Out(1), error_code: Out(8)
        ``done`` for one cycle: all is written or, if ``error_code`` is not NONE, the read has failed and the beats
        before the failure are written.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(MOVE)),
                "i": In(stream.Signature(HostMemory.READ_DATA)),
                **{memory.name.lower(): Out(BeatWrite(region_bytes(config, memory))) for memory in MEMORIES},
                "done": Out(1),
                "error_code": Out(DMA_ERROR),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        start = self.start.payload
        region, shifted, first = Signal(32 - REGION_SHIFT), Signal(), Signal()
        address = Signal(REGION_SHIFT)  # of the next beat
        left = Signal(LENGTH_BITS + 1)  # bytes from that address on, those skipped in the first beat included
        half = Signal(32)  # the upper one of the beat before
        # The beat to be written next, and its address, `place`.
        valid, place, beat, mask = Signal(), Signal(REGION_SHIFT), Signal(8 * DMA_BEAT_BYTES), Signal(DMA_BEAT_BYTES)
        taken, room, needs_input = Signal(), Signal(), Signal()
        for memory in MEMORIES:
            port = getattr(self, memory.name.lower())
            m.d.comb += [port.valid.eq(valid & (region == memory)), port.address.eq(place), port.data.eq(beat), port.mask.eq(mask)]
            with m.If((region == memory) & port.ready):
                m.d.comb += taken.eq(1)
        m.d.comb += [room.eq(~valid | taken), needs_input.eq(~shifted | (left > DMA_BEAT_BYTES // 2))]
        with m.If(taken):
            m.d.sync += valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                is_word = start.device_address[REGION_SHIFT:] != Region.ACTIVATION
                odd = is_word & start.device_address[2]
                m.d.sync += [
                    region.eq(start.device_address[REGION_SHIFT:]),
                    shifted.eq(odd),
                    first.eq(1),
                    address.eq(start.device_address[:REGION_SHIFT] - (odd << 2)),
                    left.eq(start.length + (odd << 2)),
                    self.error_code.eq(0),
                ]
                with m.If(self.start.valid):
                    m.next = "MOVE"
            with m.State("MOVE"):
                came = self.i.payload
                m.d.comb += self.i.ready.eq(room & needs_input)
                with m.If(room & self.i.valid & needs_input & came.error):
                    m.d.sync += self.error_code.eq(came.error_code)
                    m.next = "FINISH"
                with m.Elif(room & (self.i.valid | ~needs_input)):
                    m.d.sync += [
                        valid.eq(1),
                        place.eq(address),
                        beat.eq(Mux(shifted, Cat(half, came.data[:32]), came.data)),
                        mask.eq(beat_mask(left) & Mux(shifted & first, C(0xF0, 8), C(0xFF, 8))),
                        half.eq(came.data[32:]),
                        first.eq(0),
                        address.eq(address + DMA_BEAT_BYTES),
                        left.eq(left - DMA_BEAT_BYTES),
                    ]
                    with m.If(left <= DMA_BEAT_BYTES):
                        m.next = "FINISH"
            with m.State("FINISH"):
                with m.If(~valid):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
        return m
