"""Output stage: bias, requantization, zero point, clamp and write, shared by everything that uses the requantizers."""

from __future__ import annotations

import enum
import itertools

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_hdl.common.credit_queue import Credits
from systola_hdl.common.delay import delayed
from systola_hdl.common.memory_ports import ADDRESS_BITS, ActivationWrite
from systola_hdl.full.post.requantizer import FACTOR, ROUNDING_BITS, Requantizer

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
    """Writes ``clamp(REQ(value + bias) + zero_point, minimum, maximum)``, one item a cycle; ``value + bias`` wraps at
    32 bits.

    Items of another :class:`OutputForm` are only saturated to int16. Such outputs take two items, one for each half of
    their bytes, as the write port has one byte a lane.

    The pipeline cannot stop, so a producer takes a credit before it starts an item, and may do so only while ``free``.
    Each credit is an entry of the queue in front of the write port, which may stall for any time.

    An item that would write outside the activation memory is not written. It stops the queue until reset: all items
    before it are written, none after it.

    Parameters
    ----------
    config:
        Sizes of the engine.
    write_latency:
        Cycles after which a read sees a write (:class:`~systola_hdl.common.memory_ports.ActivationWrite`).

    Attributes
    ----------
    i:
        Items, see :func:`output_item`.
    direct:
        Items that skip the pipeline, see :func:`direct_item`; only while all items in the pipeline are of the form
        GATES.
    gates:
        Results of GATES, :attr:`gates_latency` cycles after their items.
    range:
        See :data:`OUTPUT_RANGE`; constant while not ``idle``.
    reserve, free:
        ``reserve`` for one cycle takes a credit; allowed while ``free``. One for each item of ``i`` but GATES, and of
        ``direct``.
    idle:
        No credit is taken: every item is written, and a read sees it.
    outside:
        The oldest unwritten item lies outside the memory.
    write:
        Port of the activation memory.
    """

    #: Cycles from ``i`` to the queue: bias, requantizer, zero point, comparison with the limits, clamp.
    result_latency = 1 + Requantizer.latency + 1 + 1 + 1
    #: Cycles from ``i`` to the earliest ``write.valid``: the queue, and the port's registers.
    latency = result_latency + 2
    #: Cycles from ``i`` to ``gates``: bias, requantizer, saturation.
    gates_latency = 1 + Requantizer.latency + 1
    #: Cycles from ``direct`` to the earliest ``write.valid``: address and count, end, range check, queue, the port's
    #: registers.
    direct_latency = 5
    #: Entries of the queue, and so credits: more than any producer's pipeline and this one's together, to sustain one
    #: item a cycle.
    entries = 32

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
        # The destinations of the items wait in a queue of their own, beside the pipeline.
        destination_layout = data.StructLayout({"address": self.write.address.shape(), "mask": lanes, "outside": 1})
        m.submodules.targets = targets = SyncFIFO(width=destination_layout.size, depth=self.entries)
        m.submodules.results = results = SyncFIFO(width=8 * lanes, depth=self.entries)
        self._build_targets(m, targets)
        self._build_results(m, results)
        self._build_write(m, data.View(destination_layout, targets.r_data), targets, results)
        return m

    def _build_targets(self, m: Module, targets: SyncFIFO) -> None:
        """Queue each item's destination, and whether it lies outside the memory."""
        lanes = self.config.requantize_lanes
        item, direct = self.i.payload, self.direct.payload
        # Cycle 1: address and count. Cycle 2: the end. Cycle 3: both compared with the bounds.
        valid = delayed(m, self.direct.valid | (self.i.valid & (item.form != OutputForm.GATES)), 3, "target_valid", init=0)
        address = delayed(m, Mux(self.direct.valid, direct.address, item.address).as_signed(), 1, "address")
        count = delayed(m, Mux(self.direct.valid, direct.count, item.count), 1, "count")
        end = Signal(signed(ADDRESS_BITS + 1), reset_less=True)
        mask = Cat(count > lane for lane in range(lanes))
        m.d.sync += end.eq(address + count)
        negative = delayed(m, address < 0, 1, "negative")
        outside = delayed(m, negative | (end > self.config.activation_bytes), 1, "outside")
        destination = Cat(delayed(m, address[: len(self.write.address)], 2, "place"), delayed(m, mask, 2, "mask"), outside)
        m.d.comb += [targets.w_en.eq(valid), targets.w_data.eq(destination)]

    def _build_results(self, m: Module, results: SyncFIFO) -> None:
        """The pipeline: bytes of every item to the queue, gates to their port."""
        lanes = self.config.requantize_lanes
        item = self.i.payload
        # Each item's validity and form travel beside the pipeline; the last stage is that of the result.
        travel = data.StructLayout({"valid": 1, "form": OutputForm})
        stages = [Signal(travel, name=f"stage_{cycle}") for cycle in range(self.result_latency + 1)]
        m.d.comb += [stages[0].valid.eq(self.i.valid), stages[0].form.eq(item.form)]
        for earlier, later in itertools.pairwise(stages):
            m.d.sync += later.eq(earlier)
        requantized, compared, result = stages[self.gates_latency - 1], stages[-2], stages[-1]
        m.d.sync += self.gates.valid.eq(requantized.valid & (requantized.form == OutputForm.GATES))
        bounds = self.range
        rounding = delayed(m, item.rounding, 1, "rounding")
        saturated_bytes = delayed(m, self.gates.payload.as_value(), 1, "saturated_bytes")
        direct_data = delayed(m, self.direct.payload.data, 1, "direct_data")
        direct_valid = delayed(m, self.direct.valid, 1, "direct_valid", init=0)
        for lane in range(lanes):
            m.submodules[f"requantizer{lane}"] = requantizer = Requantizer()
            # The range is constant during an instruction. Every lane has a copy, made from that of the lane before; the
            # first of each `Requantizer.latency` lanes copies the port, so that every copy is there in time.
            bounds = delayed(m, bounds if lane % Requantizer.latency else self.range, 1, f"bounds{lane}")
            lowest = Signal(signed(8), name=f"lowest{lane}", reset_less=True)  # an empty range has only its maximum
            m.d.sync += lowest.eq(Mux(bounds.minimum > bounds.maximum, bounds.maximum, bounds.minimum))
            value = Signal(signed(32), name=f"value{lane}", reset_less=True)
            total = Signal(signed(33), name=f"total{lane}", reset_less=True)
            high, low, above, below = (Signal(name=f"{name}{lane}", reset_less=True) for name in ("high", "low", "above", "below"))
            byte = Signal(8, name=f"byte{lane}", reset_less=True)
            m.d.sync += [value.eq(item.value[lane] + item.bias[lane]), total.eq(requantizer.o + bounds.zero_point)]
            m.d.comb += [
                requantizer.i_value.eq(value),
                requantizer.i_factor.eq(delayed(m, item.factor[lane], 1, f"factor{lane}")),
                requantizer.i_rounding.eq(rounding),
            ]
            m.d.sync += self.gates.payload[lane].eq(_saturated(requantizer.o))
            # `high`, `low`: outside int8. `above`, `below`: outside the range, judged by the low byte alone.
            sign, rest, low_byte = total[-1], total[7:-1], total[:8].as_signed()
            m.d.sync += [high.eq(~sign & rest.any()), low.eq(sign & ~rest.all())]
            m.d.sync += [above.eq(low_byte > bounds.maximum), below.eq(low_byte < bounds.minimum)]
            total_byte = delayed(m, low_byte, 1, f"total_byte{lane}")
            with m.Switch(compared.form):
                with m.Case(OutputForm.INT16_LOW):
                    m.d.sync += byte.eq(saturated_bytes.word_select(lane, 8))
                with m.Case(OutputForm.INT16_HIGH):
                    m.d.sync += byte.eq(saturated_bytes.word_select(lanes + lane, 8))
                with m.Case(OutputForm.INT8):
                    m.d.sync += byte.eq(Mux(high | (above & ~low), bounds.maximum, Mux(low | below, lowest, total_byte)))
            m.d.comb += results.w_data.word_select(lane, 8).eq(Mux(direct_valid, direct_data[lane], byte))
        m.d.comb += results.w_en.eq(direct_valid | (result.valid & (result.form != OutputForm.GATES)))

    def _build_write(self, m: Module, target: data.View, targets: SyncFIFO, results: SyncFIFO) -> None:
        """Write the heads of both queues, and return their credits."""
        port = self.write
        passes, take, written = Signal(), Signal(), Signal()
        m.d.comb += [
            passes.eq(~self.outside & (~port.valid | port.ready)),
            take.eq(passes & targets.r_rdy & results.r_rdy),
            targets.r_en.eq(take),
            results.r_en.eq(take),
            written.eq(port.valid & port.ready),
        ]
        with m.If(passes):
            m.d.sync += [port.valid.eq(take & ~target.outside), self.outside.eq(take & target.outside)]
            m.d.sync += [port.address.eq(target.address), port.mask.eq(target.mask), port.data.eq(results.r_data)]

        m.submodules.reserved = reserved = Credits(self.entries)
        settling = Signal(range(self.write_latency + 1))  # cycles until the last write can be read
        with m.If(written):
            m.d.sync += settling.eq(self.write_latency)
        with m.Elif(settling > 0):
            m.d.sync += settling.eq(settling - 1)
        m.d.comb += [
            reserved.take.eq(self.reserve),
            reserved.give.eq(written),
            self.free.eq(reserved.free),
            self.idle.eq(reserved.empty & (settling == 0)),
        ]


def _saturated(value: Signal) -> Value:
    """A signed value clamped to int16."""
    fits = (value[15:] == 0) | value[15:].all()
    return Mux(fits, value[:16], Cat((~value[-1]).replicate(15), value[-1]))
