"""Output stage: bias, requantization, zero point, clamp and write, shared by everything that produces activations."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.config import Config
from systola_hdl.interfaces import ADDRESS_BITS, ActivationWrite
from systola_hdl.requantizer import FACTOR, ROUNDING_BITS, Requantizer

__all__ = ["OUTPUT_RANGE", "OutputStage", "output_item"]

#: What follows requantization; the same for all of an instruction.
OUTPUT_RANGE = data.StructLayout({"zero_point": signed(8), "minimum": signed(8), "maximum": signed(8)})


def output_item(config: Config) -> data.StructLayout:
    """One group of up to ``requantize_lanes`` int32 values on their way to consecutive addresses.

    ``count`` lanes (at least 1) are written from byte ``address`` on; the rest is ignored.
    """
    lanes = config.requantize_lanes
    return data.StructLayout(
        {
            "value": data.ArrayLayout(signed(32), lanes),
            "bias": data.ArrayLayout(signed(32), lanes),
            "factor": data.ArrayLayout(FACTOR, lanes),
            "rounding": ROUNDING_BITS,
            "address": signed(ADDRESS_BITS),
            "count": range(lanes + 1),
        }
    )


class OutputStage(Component):
    """Writes ``clamp(REQ(value + bias) + zero_point, minimum, maximum)``, one item a cycle; ``value + bias`` wraps at 32 bits.

    The pipeline cannot stop, so a producer reserves a place before it starts an item, and may do so only while ``free``; the
    places are those of the queue in front of the write port, which may be refused for any time.

    An item that would write outside the activation memory is not written. It stops the queue for ever: everything before it is
    written, nothing after, until reset.

    Parameters
    ----------
    config:
        Engine.
    write_latency:
        Cycles after which a read sees a write (:class:`~systola_hdl.interfaces.ActivationWrite`).

    Attributes
    ----------
    i:
        Items, see :func:`output_item`.
    range:
        See :data:`OUTPUT_RANGE`; constant while not ``idle``.
    reserve, free:
        ``reserve`` for one cycle takes a place; allowed while ``free``. One for each item of ``i``.
    idle:
        Nothing reserved is unwritten, and every write can be read.
    outside:
        The oldest unwritten item lies outside the memory.
    write:
        Port of the activation memory.
    """

    #: Cycles from ``i`` to the earliest ``write.valid``: bias, requantizer, zero point, clamp, queue.
    latency = 1 + Requantizer.latency + 1 + 1 + 1
    #: Places: more than any producer's pipeline and this one's together, so that one item a cycle is sustained.
    places = 32

    def __init__(self, config: Config, *, write_latency: int = 1) -> None:
        if write_latency < 0:
            raise ValueError(f"write_latency must not be negative, not {write_latency}")
        self.config = config
        self.write_latency = write_latency
        super().__init__(
            {
                "i": In(stream.Signature(output_item(config), always_ready=True)),
                "range": In(OUTPUT_RANGE),
                "reserve": In(1),
                "free": Out(1),
                "idle": Out(1),
                "outside": Out(1),
                "write": Out(ActivationWrite(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        lanes = self.config.requantize_lanes
        item = self.i.payload

        # Where an item goes waits in a queue of its own, beside the pipeline.
        place_layout = data.StructLayout({"address": self.write.address.shape(), "mask": lanes, "outside": 1})
        m.submodules.places = places = SyncFIFO(width=place_layout.size, depth=self.places)
        m.submodules.results = results = SyncFIFO(width=8 * lanes, depth=self.places)
        place_in = Signal(place_layout)
        place_valid = Signal()
        end = Signal(signed(ADDRESS_BITS + 1))
        m.d.comb += end.eq(item.address + item.count)
        m.d.sync += [
            place_valid.eq(self.i.valid),
            place_in.address.eq(item.address),
            place_in.mask.eq(Cat(item.count > lane for lane in range(lanes))),
            place_in.outside.eq((item.address < 0) | (end > self.config.activation_bytes)),
        ]
        m.d.comb += [places.w_en.eq(place_valid), places.w_data.eq(place_in)]

        valid = Signal(self.latency - 1)
        m.d.sync += valid.eq(Cat(self.i.valid, valid))
        rounding = Signal(ROUNDING_BITS)
        m.d.sync += rounding.eq(item.rounding)
        lowest = Signal(signed(8))  # an empty range ends at its maximum
        m.d.sync += lowest.eq(Mux(self.range.minimum > self.range.maximum, self.range.maximum, self.range.minimum))
        for lane in range(lanes):
            m.submodules[f"requantizer{lane}"] = requantizer = Requantizer()
            value = Signal(signed(32), name=f"value{lane}")
            factor = Signal(FACTOR, name=f"factor{lane}")
            total = Signal(signed(33), name=f"total{lane}")
            result = Signal(signed(8), name=f"result{lane}")
            m.d.sync += [value.eq(item.value[lane] + item.bias[lane]), factor.eq(item.factor[lane])]
            m.d.comb += [requantizer.i_value.eq(value), requantizer.i_factor.eq(factor), requantizer.i_rounding.eq(rounding)]
            m.d.sync += total.eq(requantizer.o + self.range.zero_point)
            m.d.sync += result.eq(
                Mux(total > self.range.maximum, self.range.maximum, Mux(total < self.range.minimum, lowest, total[:8].as_signed()))
            )
            m.d.comb += results.w_data.word_select(lane, 8).eq(result)
        m.d.comb += results.w_en.eq(valid[-1])

        head = data.View(place_layout, places.r_data)
        written = Signal()
        m.d.comb += [
            self.write.valid.eq(results.r_rdy & ~head.outside),
            self.write.address.eq(head.address),
            self.write.mask.eq(head.mask),
            self.write.data.eq(results.r_data),
            self.outside.eq(results.r_rdy & head.outside),
            written.eq(self.write.valid & self.write.ready),
            results.r_en.eq(written),
            places.r_en.eq(written),
        ]

        reserved = Signal(range(self.places + 1))
        settling = Signal(range(self.write_latency + 1))  # cycles until the last write can be read
        m.d.sync += reserved.eq(reserved + self.reserve - written)
        with m.If(written):
            m.d.sync += settling.eq(self.write_latency)
        with m.Elif(settling > 0):
            m.d.sync += settling.eq(settling - 1)
        m.d.comb += [self.free.eq(reserved < self.places), self.idle.eq((reserved == 0) & (settling == 0))]
        return m
