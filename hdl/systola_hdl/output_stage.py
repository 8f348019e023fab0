"""Output stage: bias, requantization, zero point, clamp and write, shared by everything that uses the requantizers."""

from __future__ import annotations

import enum
import itertools

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.config import Config
from systola_hdl.interfaces import ADDRESS_BITS, ActivationWrite
from systola_hdl.requantizer import FACTOR, ROUNDING_BITS, Requantizer

__all__ = ["OUTPUT_RANGE", "OutputForm", "OutputStage", "direct_item", "output_item"]

#: What follows requantization; the same for all of an instruction.
OUTPUT_RANGE = data.StructLayout({"zero_point": signed(8), "minimum": signed(8), "maximum": signed(8)})


class OutputForm(enum.IntEnum):
    """What becomes of an item's requantized values."""

    INT8 = 0  #: zero point and clamp, and one byte a lane is written
    INT16_LOW = 1  #: saturated to int16; the first ``requantize_lanes`` of all their bytes, little endian, are written
    INT16_HIGH = 2  #: the other half of these bytes
    GATES = 3  #: saturated to int16, not written: they leave by ``gates``


def output_item(config: Config) -> data.StructLayout:
    """One group of up to ``requantize_lanes`` int32 values on their way to consecutive addresses.

    ``count`` bytes (at least 1) are written from byte ``address`` on; the rest is ignored.
    """
    lanes = config.requantize_lanes
    return data.StructLayout(
        {
            "value": data.ArrayLayout(signed(32), lanes),
            "bias": data.ArrayLayout(signed(32), lanes),
            "factor": data.ArrayLayout(FACTOR, lanes),
            "rounding": ROUNDING_BITS,
            "form": OutputForm,
            "address": signed(ADDRESS_BITS),
            "count": range(lanes + 1),
        }
    )


def direct_item(config: Config) -> data.StructLayout:
    """Bytes that are final: ``count`` of them (at least 1) are written from byte ``address`` on."""
    lanes = config.requantize_lanes
    return data.StructLayout({"data": data.ArrayLayout(8, lanes), "address": signed(ADDRESS_BITS), "count": range(lanes + 1)})


class OutputStage(Component):
    """Writes ``clamp(REQ(value + bias) + zero_point, minimum, maximum)``, one item a cycle; ``value + bias`` wraps at 32 bits.

    Items of another :class:`OutputForm` are only saturated to int16. Such outputs take two items, one for each half of their
    bytes, as the write port has one byte a lane.

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
    direct:
        Items that skip the pipeline, see :func:`direct_item`; not while others than GATES are in it.
    gates:
        Results of GATES, :attr:`gates_latency` cycles after their items.
    range:
        See :data:`OUTPUT_RANGE`; constant while not ``idle``.
    reserve, free:
        ``reserve`` for one cycle takes a place; allowed while ``free``. One for each item of ``i`` but GATES, and of ``direct``.
    idle:
        Nothing reserved is unwritten, and every write can be read.
    outside:
        The oldest unwritten item lies outside the memory.
    write:
        Port of the activation memory.
    """

    #: Cycles from ``i`` to the earliest ``write.valid``: bias, requantizer, zero point, clamp, queue.
    latency = 1 + Requantizer.latency + 1 + 1 + 1
    #: Cycles from ``i`` to ``gates``: bias, requantizer, saturation.
    gates_latency = 1 + Requantizer.latency + 1
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
                "direct": In(stream.Signature(direct_item(config), always_ready=True)),
                "gates": Out(stream.Signature(data.ArrayLayout(signed(16), config.requantize_lanes), always_ready=True)),
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
        direct = self.direct.payload
        address, count = Signal(signed(ADDRESS_BITS)), Signal(range(lanes + 1))
        end = Signal(signed(ADDRESS_BITS + 1))
        m.d.comb += [
            address.eq(Mux(self.direct.valid, direct.address, item.address)),
            count.eq(Mux(self.direct.valid, direct.count, item.count)),
            end.eq(address + count),
        ]
        m.d.sync += [
            place_valid.eq(self.direct.valid | (self.i.valid & (item.form != OutputForm.GATES))),
            place_in.address.eq(address),
            place_in.mask.eq(Cat(count > lane for lane in range(lanes))),
            place_in.outside.eq((address < 0) | (end > self.config.activation_bytes)),
        ]
        m.d.comb += [places.w_en.eq(place_valid), places.w_data.eq(place_in)]

        # What an item is, beside the pipeline; the last stage is that of the result.
        travel = data.StructLayout({"valid": 1, "form": OutputForm})
        stages = [Signal(travel, name=f"stage_{cycle}") for cycle in range(self.latency)]
        m.d.comb += [stages[0].valid.eq(self.i.valid), stages[0].form.eq(item.form)]
        for earlier, later in itertools.pairwise(stages):
            m.d.sync += later.eq(earlier)
        saturated, result = stages[self.gates_latency], stages[-1]
        m.d.comb += self.gates.valid.eq(saturated.valid & (saturated.form == OutputForm.GATES))
        direct_data, direct_valid = Signal.like(direct.data), Signal()
        m.d.sync += [direct_data.eq(direct.data), direct_valid.eq(self.direct.valid)]
        rounding = Signal(ROUNDING_BITS)
        m.d.sync += rounding.eq(item.rounding)
        lowest = Signal(signed(8))  # an empty range ends at its maximum
        m.d.sync += lowest.eq(Mux(self.range.minimum > self.range.maximum, self.range.maximum, self.range.minimum))
        for lane in range(lanes):
            m.submodules[f"requantizer{lane}"] = requantizer = Requantizer()
            value = Signal(signed(32), name=f"value{lane}")
            factor = Signal(FACTOR, name=f"factor{lane}")
            total = Signal(signed(33), name=f"total{lane}")
            byte = Signal(8, name=f"byte{lane}")
            m.d.sync += [value.eq(item.value[lane] + item.bias[lane]), factor.eq(item.factor[lane])]
            m.d.comb += [requantizer.i_value.eq(value), requantizer.i_factor.eq(factor), requantizer.i_rounding.eq(rounding)]
            m.d.sync += total.eq(requantizer.o + self.range.zero_point)
            limit = Cat(Const(-1, 15), Const(0, 1)) ^ requantizer.o[-1].replicate(16)
            fits = (requantizer.o[15:] == 0) | requantizer.o[15:].all()
            m.d.sync += self.gates.payload[lane].eq(Mux(fits, requantizer.o[:16], limit))
            with m.Switch(saturated.form):
                with m.Case(OutputForm.INT16_LOW):
                    m.d.sync += byte.eq(self.gates.payload.as_value().word_select(lane, 8))
                with m.Case(OutputForm.INT16_HIGH):
                    m.d.sync += byte.eq(self.gates.payload.as_value().word_select(lanes + lane, 8))
                with m.Case(OutputForm.INT8):
                    m.d.sync += byte.eq(
                        Mux(total > self.range.maximum, self.range.maximum, Mux(total < self.range.minimum, lowest, total[:8]))
                    )
            m.d.comb += results.w_data.word_select(lane, 8).eq(Mux(direct_valid, direct_data[lane], byte))
        m.d.comb += results.w_en.eq(direct_valid | (result.valid & (result.form != OutputForm.GATES)))

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
