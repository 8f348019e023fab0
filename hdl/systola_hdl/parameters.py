"""Parameter loader: bias, multiplier and shift of a group of output channels, one group ahead of their use."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_hdl.interfaces import WEIGHT_ADDRESS_BITS, WeightRead
from systola_hdl.loop_nest import COUNT_BITS
from systola_hdl.requantizer import FACTOR
from systola_hdl.word_fetcher import WordFetcher

__all__ = ["ParameterLoader"]


class ParameterLoader(Component):
    """Fetches the parameters of every (block, group) of a POST or LSTM, in order, in the layout of :mod:`systola_firmware.isa`.

    Two sets of registers: one is in use, the next is loaded meanwhile. A set costs ``bias_words`` or ``channel_parameter_words``
    cycles and the memory's latency, all of it hidden except for the first.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress; the following inputs are constant from then on.
    address, group_count, block_count, per_channel:
        Fields of the instruction. A block's groups start over with the first group's set.
    shared:
        The layout of LSTM: the factors of all columns come once, before the biases of the groups; not with ``per_channel``.
    factor:
        Factor of every channel if neither ``per_channel`` nor ``shared``.
    available:
        The next set is complete.
    claim:
        For one cycle, while ``available``: a job begins and will ``swap`` later. ``available`` falls.
    swap:
        For one cycle, some cycle after ``claim``: the claimed set is in use from the next cycle on.
    outside:
        The next set lies outside the weight memory; stays until reset.
    bias, factors:
        The set in use: int32 and factor of every column.
    weights:
        Port of the weight memory.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(24),
                "group_count": In(COUNT_BITS),
                "block_count": In(COUNT_BITS),
                "per_channel": In(1),
                "shared": In(1),
                "factor": In(FACTOR),
                "available": Out(1),
                "claim": In(1),
                "swap": In(1),
                "outside": Out(1),
                "bias": Out(data.ArrayLayout(signed(32), config.columns)),
                "factors": Out(data.ArrayLayout(FACTOR, config.columns)),
                "weights": Out(WeightRead(config)),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        words = config.channel_parameter_words
        m.submodules.fetcher = fetcher = WordFetcher(config, limit=words)
        connect(m, fetcher.weights, flipped(self.weights))
        m.d.comb += [self.outside.eq(fetcher.outside), fetcher.consumed.eq(self.weights.data_valid)]

        fetches_factors = Signal()  # those that all groups share
        count = Mux(fetches_factors, words - config.bias_words, Mux(self.per_channel, words, config.bias_words))
        address = Signal(WEIGHT_ADDRESS_BITS)
        group = Signal(COUNT_BITS)
        block = Signal(COUNT_BITS)
        first_address = Signal(WEIGHT_ADDRESS_BITS)  # of the first group's set
        m.d.comb += [fetcher.start.payload.address.eq(address), fetcher.start.payload.count.eq(count)]

        # The next set, word by word as it comes; shared factors stay while biases come and go.
        received = Signal(range(words))
        place = received + Mux(fetches_factors, config.bias_words, 0)
        following = [Signal(8 * config.weight_word_bytes, name=f"word{index}") for index in range(words)]
        with m.If(self.weights.data_valid):
            m.d.sync += received.eq(received + 1)
            for index, word in enumerate(following):
                with m.If(place == index):
                    m.d.sync += word.eq(self.weights.data)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [address.eq(self.address), first_address.eq(self.address), group.eq(1), block.eq(1)]
                m.d.sync += fetches_factors.eq(self.shared)
                with m.If(self.start):
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += fetcher.start.valid.eq(1)
                m.d.sync += received.eq(0)
                with m.If(fetcher.start.ready):
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                with m.If(self.weights.data_valid & (received == count - 1)):
                    m.next = "AVAILABLE"
                    with m.If(fetches_factors):
                        m.d.sync += [fetches_factors.eq(0), address.eq(address + count), first_address.eq(address + count)]
                        m.next = "REQUEST"
            with m.State("AVAILABLE"):
                m.d.comb += self.available.eq(1)
                with m.If(self.claim):
                    m.next = "CLAIMED"
            with m.State("CLAIMED"):
                with m.If(self.swap):
                    m.next = "REQUEST"
                    with m.If(group != self.group_count):
                        m.d.sync += [group.eq(group + 1), address.eq(address + count)]
                    with m.Else():
                        m.d.sync += [group.eq(1), address.eq(first_address), block.eq(block + 1)]
                        with m.If(block == self.block_count):
                            m.next = "IDLE"
        following_bias = Cat(*following[: config.bias_words])
        following_multiplier = Cat(*following[config.bias_words : 2 * config.bias_words])
        following_shift = following[-1]
        takes_factors = self.per_channel | self.shared
        with m.If(self.swap):
            m.d.sync += self.bias.eq(following_bias)
            for column in range(config.columns):
                factor = self.factors[column]
                m.d.sync += [
                    factor.multiplier.eq(
                        Mux(takes_factors, following_multiplier.word_select(column, 32).as_signed(), self.factor.multiplier)
                    ),
                    factor.shift.eq(Mux(takes_factors, following_shift.word_select(column, 8).as_signed(), self.factor.shift)),
                ]
        return m
