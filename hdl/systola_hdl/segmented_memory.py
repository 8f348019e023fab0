"""A memory of any depth, made of memories whose depths are powers of two."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

__all__ = ["SegmentedMemory", "segment_depths"]

#: Words of 32 bits in one block RAM: nothing is gained by segments smaller than that.
_BLOCK_WORDS = 512


def segment_depths(depth: int, smallest: int = _BLOCK_WORDS) -> list[int]:
    """Split ``depth`` into powers of two, largest first; the last segment takes what is left once that is ``smallest`` or less."""
    depths: list[int] = []
    while depth > smallest:
        largest = 1 << (depth.bit_length() - 1)
        depths.append(largest)
        depth -= largest
    return [*depths, depth] if depth else depths


class SegmentedMemory(Component):
    """``depth`` words of 32 bits; one is read and one written a cycle.

    Do not rely on a word that is read in the cycle in which it is written: in simulation it is the old one, but block RAM
    whose ports may disagree is faster, and that is what synthesis makes of it.

    A synthesiser that is given one memory of, say, 8704 words makes it of blocks of 1024 × 18 bits behind a multiplexer, and rounds
    up to 9216 words. In segments of 8192 and 512 words every block is full, and most bits need no multiplexer at all: the
    blocks of a segment lie side by side.

    Parameters
    ----------
    depth:
        Words, at least 1.
    smallest:
        Power of two; segments are not split below this.

    Attributes
    ----------
    read_address, read_data:
        A word, :attr:`read_latency` cycles after its address, every cycle.
    write_enable, write_address, write_data:
        Written at the end of the cycle.
    """

    read_latency = 1

    def __init__(self, depth: int, *, smallest: int = _BLOCK_WORDS) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        if smallest < 1 or smallest & (smallest - 1):
            raise ValueError(f"smallest must be a power of two, not {smallest}")
        self._segments = [Memory(shape=32, depth=size, init=[]) for size in segment_depths(depth, smallest)]
        address_bits = ceil_log2(depth)
        super().__init__(
            {
                "read_address": In(address_bits),
                "read_data": Out(32),
                "write_enable": In(1),
                "write_address": In(address_bits),
                "write_data": In(32),
            }
        )

    def fill(self, words: Sequence[int]) -> None:
        """Set the contents at power-on, for tests; call it before elaboration."""
        start = 0
        for segment in self._segments:
            segment.data.init = words[start : start + segment.depth]
            start += segment.depth

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        start = 0
        for index, segment in enumerate(self._segments):
            m.submodules[f"segment{index}"] = segment
            read, write = segment.read_port(), segment.write_port()
            # A segment starts at a multiple of its size: the bits above the address inside it are the segment's own.
            inside = len(read.addr)
            reads, writes = Signal(name=f"reads{index}"), Signal(name=f"writes{index}")
            for hit, address in ((reads, self.read_address), (writes, self.write_address)):
                m.d.comb += hit.eq(address[inside:] == start >> inside)
            m.d.comb += [
                read.en.eq(1),
                read.addr.eq(self.read_address),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                write.en.eq(self.write_enable & writes),
            ]
            was_read = Signal(name=f"was_read{index}")
            m.d.sync += was_read.eq(reads)
            with m.If(was_read):
                m.d.comb += self.read_data.eq(read.data)
            start += segment.depth
        return m
