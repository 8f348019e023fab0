"""Parameter loader: bias, multiplier and shift of a group of output channels, one group ahead of their use."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import COUNT_BITS
from systola_hdl.common.memory_ports import WEIGHT_ADDRESS_BITS, WeightRead
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_hdl.full.memory.word_fetcher import WordFetcher
from systola_hdl.full.post.requantizer import FACTOR

__all__ = ["ParameterLoader"]


class ParameterLoader(Component):
    """Fetches the parameters of every (block, group) of a POST or LSTM, in order, in the layout of
    :mod:`systola_firmware.spec.isa`.

    Two sets of registers: one is in use, the next is loaded meanwhile. A set costs ``bias_words`` or
    ``channel_parameter_words`` cycles, the memory's latency and :attr:`set_latency`, hidden behind the job before,
    except for the first set.

    Attributes
    ----------
    start:
        For one cycle, while nothing is in progress; the following inputs are constant from then on.
    address, group_count, block_count, per_channel:
        Fields of the instruction. A block's groups start over with the first group's set.
    shared:
        The layout of LSTM: the factors of all columns come once, before the biases of the groups; not with
        ``per_channel``.
    factor:
        Factor of every channel if neither ``per_channel`` nor ``shared``.
    available:
        The next set is complete.
    claim:
        For one cycle, while ``available``: a job begins and will ``swap`` later. ``available`` falls.
    swap:
        For one cycle, at most :attr:`swap_within` cycles after ``claim``: the claimed set is in use
        :attr:`swap_latency` cycles later.
    outside:
        The next set lies outside the weight memory; stays until reset.
    bias, factors:
        The set in use: int32 and factor of every column.
    weights:
        Port of the weight memory.
    """

    #: Cycles that the first set takes beside its words and the memory: count, start of the fetcher, arrival, set.
    set_latency = 2 + WordFetcher.latency + 1
    #: Cycles from ``swap`` to the set in use: a register for each column's enable, and the registers of the set.
    swap_latency = 2
    #: Most cycles from ``claim`` to ``swap``: with ``claim`` the next set is requested, and it overwrites the claimed
    #: one when it comes.
    swap_within = 1 + WordFetcher.latency + WeightMemory.read_latency

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

        fetches_factors = Signal()  # factors that all groups share are fetched
        count = Signal(range(words + 1), reset_less=True)  # words to be fetched next
        address = Signal(WEIGHT_ADDRESS_BITS, reset_less=True)
        following_address = Signal(WEIGHT_ADDRESS_BITS, reset_less=True)  # behind those words
        group = Signal(COUNT_BITS, reset_less=True)
        block = Signal(COUNT_BITS, reset_less=True)
        is_last_group, is_last_block = Signal(), Signal()
        first_address = Signal(WEIGHT_ADDRESS_BITS, reset_less=True)  # of the first group's set
        m.d.comb += [fetcher.start.payload.address.eq(address), fetcher.start.payload.count.eq(count)]
        # These registers are stable in the cycles before they are used.
        m.d.sync += [
            count.eq(Mux(fetches_factors, words - config.bias_words, Mux(self.per_channel, words, config.bias_words))),
            following_address.eq(address + count),
            is_last_group.eq(group == self.group_count),
            is_last_block.eq(block == self.block_count),
        ]

        # The next set, word by word as it arrives. Shared factors are kept; the biases of each group replace those
        # before.
        place, end = Signal(words), Signal(words)  # one-hot: the next word's index in the set, and the last word's
        arrived, arrives = Signal.like(self.weights.data, reset_less=True), Signal(words)
        following = [Signal(8 * config.weight_word_bytes, name=f"word{index}", reset_less=True) for index in range(words)]
        m.d.sync += [
            arrived.eq(self.weights.data),
            arrives.eq(Mux(self.weights.data_valid, place, 0)),
            end.eq(Mux(fetches_factors | self.per_channel, 1 << (words - 1), 1 << (config.bias_words - 1))),
        ]
        with m.If(self.weights.data_valid):
            m.d.sync += place.eq(place << 1)
        for index, word in enumerate(following):
            with m.If(arrives[index]):
                m.d.sync += word.eq(arrived)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [address.eq(self.address), first_address.eq(self.address), group.eq(1), block.eq(1)]
                m.d.sync += fetches_factors.eq(self.shared)
                with m.If(self.start):
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += place.eq(Mux(fetches_factors, 1 << config.bias_words, 1))
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += fetcher.start.valid.eq(1)
                with m.If(fetcher.start.ready):
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                with m.If((arrives & end).any()):
                    with m.If(fetches_factors):
                        m.d.sync += [fetches_factors.eq(0), address.eq(following_address), first_address.eq(following_address)]
                        m.next = "COUNT"
                    with m.Else():
                        m.d.sync += self.available.eq(1)
                        m.next = "AVAILABLE"
            with m.State("AVAILABLE"):
                with m.If(self.claim):
                    m.d.sync += [self.available.eq(0), place.eq(1)]
                    with m.If(~is_last_group):
                        m.d.sync += [group.eq(group + 1), address.eq(following_address)]
                    with m.Else():
                        m.d.sync += [group.eq(1), address.eq(first_address), block.eq(block + 1)]
                    m.next = "REQUEST"
                    with m.If(is_last_group & is_last_block):
                        m.next = "IDLE"
        self._build_set(m, following)
        return m

    def _build_set(self, m: Module, following: list[Signal]) -> None:
        """The set in use."""
        words = self.config.bias_words
        following_bias, following_multiplier = Cat(*following[:words]), Cat(*following[words : 2 * words])
        following_shift = following[-1]
        has_factors = Signal()
        m.d.sync += has_factors.eq(self.per_channel | self.shared)
        for column in range(self.config.columns):
            swap = Signal(name=f"swap{column}", attrs={"keep": 1})
            takes_factors = Signal(name=f"takes_factors{column}", attrs={"keep": 1})
            m.d.sync += [swap.eq(self.swap), takes_factors.eq(has_factors)]
            multiplier = following_multiplier.word_select(column, 32).as_signed()
            shift = following_shift.word_select(column, 8).as_signed()
            bias = Signal(signed(32), name=f"bias{column}", reset_less=True)
            factor = Signal(FACTOR, name=f"factor{column}", reset_less=True)
            with m.If(swap):
                m.d.sync += [
                    bias.eq(following_bias.word_select(column, 32)),
                    factor.multiplier.eq(Mux(takes_factors, multiplier, self.factor.multiplier)),
                    factor.shift.eq(Mux(takes_factors, shift, self.factor.shift)),
                ]
            m.d.comb += [self.bias[column].eq(bias), self.factors[column].eq(factor)]
