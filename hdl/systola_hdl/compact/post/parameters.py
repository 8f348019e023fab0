"""Parameters of the compact post-processor: bias, multiplier and exponent, in block RAM, a group of channels ahead of
their use."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.isa import Opcode
from systola_hdl.compact.interfaces import OPCODE_BITS, WORD_INDEX
from systola_hdl.compact.post.requantizer import EXPONENT, IDENTITY_EXPONENT
from systola_hdl.compact.words import word_of

__all__ = ["Parameters"]

#: Sets of four channels come first; then what the instruction brings, then what changes nothing.
_INSTRUCTION, _IDENTITY, _PLACES = 8, 9, 16


class Parameters(Component):
    """Two sets of four channels' parameters, of which one is used while the other is loaded, and those of the
    instruction itself.

    Attributes
    ----------
    word_valid, word, word_index, opcode:
        Words of the instruction, as they come.
    per_channel, identity:
        Whose multiplier and exponent: the channel's or the instruction's; ``identity`` instead of the instruction's,
        for those that do not requantize. Constant.
    load:
        For one cycle, while not ``loading``: load the next set; ``loading`` from the next cycle until it is there.
    inside:
        The next word's address, which the parent keeps, lies inside the weight memory.
    moved:
        For one cycle: the address of the next word is to move by one.
    outside:
        A word of the set being loaded lies outside the weight memory; loading stops for ever.
    swap:
        For one cycle: the set just loaded is in use, from its first channel, in the next cycle.
    in_set:
        Biases are those of the set in use, not that of the instruction. Constant.
    next_channel:
        For one cycle: the next channel's bias is wanted in the next cycle.
    restart:
        For one cycle: the first channel's bias is wanted in the next cycle.
    bias:
        Of the channel.
    choose:
        For one cycle: from the next one on, ``multiplier`` and ``exponent`` are those of the channel whose bias it was
        at the last ``next_channel``.
    weights_valid, weights_ready, weights_data, weights_data_valid:
        Port of the weight memory, but for the address.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "word_valid": In(1),
                "word": In(32),
                "word_index": In(WORD_INDEX),
                "opcode": In(OPCODE_BITS),
                "per_channel": In(1),
                "identity": In(1),
                "load": In(1),
                "loading": Out(1),
                "moved": Out(1),
                "inside": In(1),
                "outside": Out(1),
                "swap": In(1),
                "in_set": In(1),
                "next_channel": In(1),
                "restart": In(1),
                "bias": Out(signed(32)),
                "choose": In(1),
                "multiplier": Out(31),
                "exponent": Out(EXPONENT),
                "weights_valid": Out(1),
                "weights_ready": In(1),
                "weights_data": In(32),
                "weights_data_valid": In(1),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        in_use = Signal()  # the set
        m.submodules.biases = biases = Memory(shape=32, depth=_PLACES, init=[])
        m.submodules.multipliers = multipliers = Memory(shape=31, depth=_PLACES, init=[0] * _IDENTITY + [1 << 30])
        m.submodules.exponents = exponents = Memory(shape=6, depth=_PLACES, init=[0] * _IDENTITY + [IDENTITY_EXPONENT])
        self._build_use(m, in_use, biases, multipliers, exponents)
        writes = [memory.write_port() for memory in (biases, multipliers, exponents)]

        # Twelve requests a set, four without factors: biases, multipliers, and the word of all shifts once for each of
        # them.
        asked, came = Signal(4), Signal(4)
        asking = Signal()
        last_asked = Mux(self.per_channel, 11, 3)
        requested = Signal()
        m.d.comb += [
            self.outside.eq(asking & ~self.inside),
            self.weights_valid.eq(asking & self.inside),
            requested.eq(self.weights_valid & self.weights_ready),
            self.moved.eq(requested & ((asked[3:] == 0) | (asked[:2] == 3))),
        ]
        with m.If(self.load):
            m.d.sync += [asking.eq(1), self.loading.eq(1), asked.eq(0), came.eq(0)]
        with m.If(requested):
            m.d.sync += [asked.eq(asked + 1), asking.eq(asked != last_asked)]
        arrived = Signal()
        m.d.comb += arrived.eq(self.loading & self.weights_data_valid)
        with m.If(arrived):
            m.d.sync += [came.eq(came + 1), self.loading.eq(came != last_asked)]

        data = Signal(32)
        place = Signal(range(_PLACES))
        m.d.comb += [
            data.eq(Mux(self.loading, self.weights_data, self.word)),
            place.eq(Mux(self.loading, Cat(came[:2], ~in_use, Const(0, 1)), _INSTRUCTION)),
            *(port.addr.eq(place) for port in writes),
        ]
        byte = Signal(6)
        with m.Switch(Mux(self.loading, came[:2], 3)):
            for index in range(4):
                with m.Case(index):
                    m.d.comb += byte.eq(data[8 * index : 8 * index + 6])
        m.d.comb += [
            writes[0].data.eq(data),
            writes[1].data.eq(data),
            writes[2].data.eq(6 - byte),
        ]
        is_vector = self.opcode == Opcode.VECTOR
        for number, (port, name) in enumerate(zip(writes, ("bias", "multiplier", "shift"), strict=True)):
            post = self.word_index == word_of(Opcode.POST, name) if name != "bias" else Const(0)
            vector = self.word_index == word_of(Opcode.VECTOR, name)
            m.d.comb += port.en.eq(
                Mux(self.loading, arrived & (came[2:] == number), self.word_valid & Mux(is_vector, vector, post))
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
        factor = Signal(range(_PLACES))
        m.d.comb += [
            bias_port.en.eq(1),
            bias_port.addr.eq(Mux(self.in_set, Cat(following, following_set), _INSTRUCTION)),
            self.bias.eq(bias_port.data),
            factor.eq(Mux(self.per_channel, chosen, Mux(self.identity, _IDENTITY, _INSTRUCTION))),
            self.multiplier.eq(multiplier_port.data),
            self.exponent.eq(exponent_port.data),
        ]
        for port in (multiplier_port, exponent_port):
            m.d.comb += [port.en.eq(self.choose), port.addr.eq(factor)]
