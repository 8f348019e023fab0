"""Parameters of the compact post-processor: bias, multiplier and exponent, in block RAM, a group of channels ahead of
their use."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode
from systola_hdl.common.memory_ports import WeightRead
from systola_hdl.compact.interfaces import OPCODE_BITS, PAYLOAD_WORD
from systola_hdl.compact.post.layouts import FACTOR, FIELDS
from systola_hdl.compact.post.requantizer import IDENTITY_EXPONENT
from systola_hdl.compact.post.weight_address import WEIGHT_ADDRESS_BITS
from systola_hdl.compact.words import word_of

__all__ = ["Parameters"]

#: Entries of the memories. Two sets of four channels come first; then what the instruction brings, then the identity.
_INSTRUCTION, _IDENTITY, _ENTRIES = 8, 9, 16


class Parameters(Component):
    """Two sets of four channels' parameters, of which one is used while the other is loaded, and those of the
    instruction itself.

    Attributes
    ----------
    words, opcode:
        Words of the instruction, as they come.
    fields:
        Of the instruction: :data:`~systola_hdl.compact.post.layouts.FIELDS`.
    load:
        For one cycle, while not ``loading``: load the next set; ``loading`` from the next cycle until it is there.
    address, advance:
        Address of the next word, see :class:`~systola_hdl.compact.post.weight_address.WeightAddress`; for one cycle: it
        is to move by one.
    outside:
        A word of the set being loaded lies outside the weight memory; loading stops until reset.
    swap:
        For one cycle: the set just loaded is in use, from its first channel, in the next cycle.
    next_channel:
        For one cycle: the next channel's bias is wanted in the next cycle.
    restart:
        For one cycle: the first channel's bias is wanted in the next cycle.
    bias:
        Of the channel in use for a POST, else of the instruction.
    choose, factor:
        ``choose`` for one cycle: from the next one on, ``factor`` (:data:`~systola_hdl.compact.post.layouts.FACTOR`) is
        that of the channel whose bias it was at the last ``next_channel``, of the instruction if that is not
        ``per_channel``, or the identity.
    weights:
        Port of the weight memory.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "words": In(stream.Signature(PAYLOAD_WORD, always_ready=True)),
                "opcode": In(OPCODE_BITS),
                "fields": In(FIELDS),
                "load": In(1),
                "loading": Out(1),
                "address": In(WEIGHT_ADDRESS_BITS),
                "advance": Out(1),
                "outside": Out(1),
                "swap": In(1),
                "next_channel": In(1),
                "restart": In(1),
                "bias": Out(signed(32)),
                "choose": In(1),
                "factor": Out(FACTOR),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        in_use = Signal()  # the set
        m.submodules.biases = biases = Memory(shape=32, depth=_ENTRIES, init=[])
        m.submodules.multipliers = multipliers = Memory(shape=31, depth=_ENTRIES, init=[0] * _IDENTITY + [1 << 30])
        m.submodules.exponents = exponents = Memory(shape=6, depth=_ENTRIES, init=[0] * _IDENTITY + [IDENTITY_EXPONENT])
        self._build_use(m, in_use, biases, multipliers, exponents)
        writes = [memory.write_port() for memory in (biases, multipliers, exponents)]

        # Twelve requests a set, four without factors: biases, multipliers, and the word of all shifts once for each of
        # them.
        asked, came = Signal(4), Signal(4)
        asking = Signal()
        last_asked = Mux(self.fields.per_channel, 11, 3)
        requested, inside = Signal(), Signal()
        m.d.comb += [
            inside.eq(self.address < self.config.weight_words),
            self.outside.eq(asking & ~inside),
            self.weights.valid.eq(asking & inside),
            self.weights.address.eq(self.address),
            requested.eq(self.weights.valid & self.weights.ready),
            self.advance.eq(requested & ((asked[3:] == 0) | (asked[:2] == 3))),
        ]
        with m.If(self.load):
            m.d.sync += [asking.eq(1), self.loading.eq(1), asked.eq(0), came.eq(0)]
        with m.If(requested):
            m.d.sync += [asked.eq(asked + 1), asking.eq(asked != last_asked)]
        arrived = Signal()
        m.d.comb += arrived.eq(self.loading & self.weights.data_valid)
        with m.If(arrived):
            m.d.sync += [came.eq(came + 1), self.loading.eq(came != last_asked)]

        data = Signal(32)
        entry = Signal(range(_ENTRIES))
        m.d.comb += [
            data.eq(Mux(self.loading, self.weights.data.as_value(), self.words.payload.word)),
            entry.eq(Mux(self.loading, Cat(came[:2], ~in_use, Const(0, 1)), _INSTRUCTION)),
            *(port.addr.eq(entry) for port in writes),
        ]
        byte = Signal(6)
        with m.Switch(Mux(self.loading, came[:2], 3)):
            for lane in range(4):
                with m.Case(lane):
                    m.d.comb += byte.eq(data[8 * lane : 8 * lane + 6])
        m.d.comb += [
            writes[0].data.eq(data),
            writes[1].data.eq(data),
            writes[2].data.eq(6 - byte),
        ]
        index, is_vector = self.words.payload.index, self.opcode == Opcode.VECTOR
        for number, (port, name) in enumerate(zip(writes, ("bias", "multiplier", "shift"), strict=True)):
            post = index == word_of(Opcode.POST, name) if name != "bias" else Const(0)
            vector = index == word_of(Opcode.VECTOR, name)
            m.d.comb += port.en.eq(
                Mux(self.loading, arrived & (came[2:] == number), self.words.valid & Mux(is_vector, vector, post))
            )
        return m

    def _build_use(self, m: Module, in_use: Signal, biases: Memory, multipliers: Memory, exponents: Memory) -> None:
        """The read sides."""
        following_set, channel, following = Signal(), Signal(2), Signal(2)
        chosen = Signal(3)
        m.d.comb += [following_set.eq(in_use ^ self.swap), following.eq(channel + self.next_channel)]
        with m.If(self.restart):
            m.d.comb += following.eq(0)
        m.d.sync += [in_use.eq(following_set), channel.eq(following)]
        with m.If(self.next_channel):
            m.d.sync += chosen.eq(Cat(channel, in_use))
        bias_port, multiplier_port, exponent_port = (memory.read_port() for memory in (biases, multipliers, exponents))
        factor = Signal(range(_ENTRIES))
        m.d.comb += [
            bias_port.en.eq(1),
            bias_port.addr.eq(Mux(self.fields.is_post, Cat(following, following_set), _INSTRUCTION)),
            self.bias.eq(bias_port.data),
            factor.eq(Mux(self.fields.per_channel, chosen, Mux(self.fields.identity, _IDENTITY, _INSTRUCTION))),
            self.factor.multiplier.eq(multiplier_port.data),
            self.factor.exponent.eq(exponent_port.data),
        ]
        for port in (multiplier_port, exponent_port):
            m.d.comb += [port.en.eq(self.choose), port.addr.eq(factor)]
