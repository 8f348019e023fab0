"""A memory of any depth, made of memories whose depths are powers of two."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Elaboratable, Module, Mux
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_hdl.cells.block_memory import BlockMemory
from systola_hdl.common.delay import delayed

__all__ = ["SegmentedMemory", "segment_depths"]

#: Words of 32 bits in one block RAM: nothing is gained by segments smaller than that.
_BLOCK_WORDS = 512


def segment_depths(depth: int, smallest: int = _BLOCK_WORDS) -> list[int]:
    """Split ``depth`` into powers of two, largest first; the last segment takes what is left once that is ``smallest``
    or less."""
    depths: list[int] = []
    while depth > smallest:
        largest = 1 << (depth.bit_length() - 1)
        depths.append(largest)
        depth -= largest
    return [*depths, depth] if depth else depths


class SegmentedMemory(Component):
    """``depth`` words of 32 bits; one is read and one written a cycle.

    Addresses, enable and written data are registered in every such memory; several side by side do not share these
    registers. Read data is registered in the block RAMs and behind the multiplexer of the segments. A word that is read
    in the cycle in which it is written is undefined.

    A synthesiser that is given one memory of, say, 8704 words makes it of blocks of 1024 × 18 bits behind a
    multiplexer, and rounds up to 9216 words. In segments of 8192 and 512 words every block is full, and most bits need
    no multiplexer at all: the blocks of a segment lie side by side.

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
        Written at the end of the cycle; reads of the next cycle or later see it.
    """

    #: Cycles from address to word: own register, block memory, choice of segment.
    read_latency = 1 + BlockMemory.read_latency + 1

    def __init__(self, depth: int, *, smallest: int = _BLOCK_WORDS) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        if smallest < 1 or smallest & (smallest - 1):
            raise ValueError(f"smallest must be a power of two, not {smallest}")
        self._segments = [BlockMemory(32, size) for size in segment_depths(depth, smallest)]
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
        read_address = delayed(m, self.read_address, 1, "read_address", keep=True)
        write_address = delayed(m, self.write_address, 1, "write_address", keep=True)
        write_data = delayed(m, self.write_data, 1, "write_data", keep=True)
        start = 0
        chosen = 0
        for index, segment in enumerate(self._segments):
            m.submodules[f"segment{index}"] = segment
            # A segment starts at a multiple of its size, so the address bits above those inside it select it.
            inside = len(segment.read_address)
            reads, writes = (address[inside:] == start >> inside for address in (self.read_address, self.write_address))
            m.d.comb += [
                segment.read_address.eq(read_address),
                segment.write_address.eq(write_address),
                segment.write_data.eq(write_data),
                segment.write_enable.eq(delayed(m, self.write_enable & writes, 1, f"writes{index}", init=0)),
            ]
            was_read = delayed(m, reads, self.read_latency - 1, f"was_read{index}", keep=True)
            chosen |= Mux(was_read, segment.read_data, 0)
            start += segment.depth
        m.d.comb += self.read_data.eq(delayed(m, chosen, 1, "chosen"))
        return m
