"""A block RAM with an output register: the RAM's own register on the FPGAs whose cell is known here."""

from __future__ import annotations

from amaranth.hdl import C, Cat, ClockSignal, Elaboratable, Instance, Module, ShapeLike, Signal, Value
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from systola_hdl.cells.families import Family, family_of

__all__ = ["BlockMemory", "ecp5_block_width"]

#: Data widths of an ECP5 block of 18 Kbit, and the words that it then has (FPGA-TN-02204, ECP5 Memory Usage Guide).
_ECP5_MODES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: Data pins of each of the two ports of such a block.
_ECP5_DATA_PINS = 18


def ecp5_block_width(width: int, depth: int) -> int:
    """Data width of the ECP5 blocks that make up a memory of ``width`` bits: side by side, each as deep as the memory,
    so that none is behind a multiplexer. 0 if no block is ``depth`` words deep."""
    fitting = [bits for bits, words in _ECP5_MODES if words >= depth]
    return min(fitting, key=lambda bits: -(-width // bits), default=0)


class BlockMemory(Component):
    """One word is read and one written a cycle.

    Block RAM takes most of a fast clock's period from clock to output: 5.8 ns on an ECP5. With the output register that
    is part of the block it takes 1 ns, but synthesis does not infer that register. So on ECP5 this component
    instantiates ``DP16KD`` cells; elsewhere it is a memory and registers.

    A word that is read in the cycle in which it is written is undefined.

    Parameters
    ----------
    shape:
        Shape of a word.
    depth:
        Words, at least 1.

    Attributes
    ----------
    data:
        The contents, as those of Amaranth's ``Memory``: for simulation, to fill and to look into.
    read_address, read_data:
        A word, :attr:`read_latency` cycles after its address, every cycle.
    write_enable, write_address, write_data:
        Written at the end of the cycle; read by addresses of the next cycle or later.
    """

    read_latency = 2

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.depth = depth
        self.data = MemoryData(shape=shape, depth=depth, init=[])
        address_bits = ceil_log2(depth)
        super().__init__(
            {
                "read_address": In(address_bits),
                "read_data": Out(shape),
                "write_enable": In(1),
                "write_address": In(address_bits),
                "write_data": In(shape),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        read_data, write_data = Value.cast(self.read_data), Value.cast(self.write_data)
        if family_of(platform) is Family.ECP5 and (width := ecp5_block_width(len(read_data), self.depth)):
            for number, start in enumerate(range(0, len(read_data), width)):
                part = slice(start, start + width)
                read = Signal(2 * _ECP5_DATA_PINS, name=f"read{number}")
                m.submodules[f"block{number}"] = self._ecp5_block(width, read, write_data[part])
                m.d.comb += read_data[part].eq(read)
            return m
        m.submodules.memory = memory = Memory(self.data)
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(self.read_address),
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
        ]
        register = Signal.like(self.read_data, reset_less=True)
        m.d.sync += register.eq(read.data)
        m.d.comb += self.read_data.eq(register)
        return m

    def _ecp5_block(self, width: int, read: Signal, write_data: Value) -> Instance:
        """Port A writes, port B reads. A block of 36 bits uses the data pins of both ports: the lower half of a word is
        at A, the upper half at B.

        A word's address begins at an address pin that depends on the width. The pins below it are 0, but on the writing
        side some of them are byte enables.
        """
        data_pins, address_pins = _ECP5_DATA_PINS, 14
        skipped = width.bit_length() - 1
        enables = {36: 4, 18: 2}.get(width, 0)
        write_address = Cat(self.write_enable.replicate(enables), C(0, skipped - enables), self.write_address)
        read_address = Cat(C(0, skipped), self.read_address)
        written = Cat(write_data, C(0, 2 * data_pins - len(write_data)))
        pins: dict[str, Value] = {}
        for side, address in (("A", write_address), ("B", read_address)):
            padded = Cat(address, C(0, address_pins - len(address)))
            pins |= {f"i_AD{side}{pin}": padded[pin] for pin in range(address_pins)}
        pins |= {f"i_DIA{pin}": written[pin] for pin in range(data_pins)}
        if width > data_pins:
            pins |= {f"i_DIB{pin}": written[data_pins + pin] for pin in range(data_pins)}
            pins |= {f"o_DOA{pin}": read[pin] for pin in range(data_pins)}
            pins |= {f"o_DOB{pin}": read[data_pins + pin] for pin in range(data_pins)}
        else:
            pins |= {f"o_DOB{pin}": read[pin] for pin in range(data_pins)}
        return Instance(
            "DP16KD",
            p_DATA_WIDTH_A=width,
            p_DATA_WIDTH_B=width,
            p_REGMODE_A="OUTREG",
            p_REGMODE_B="OUTREG",
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_CSDECODE_A="0b000",
            p_CSDECODE_B="0b000",
            p_WRITEMODE_A="NORMAL",
            p_WRITEMODE_B="NORMAL",
            p_CLKAMUX="CLKA",
            p_CLKBMUX="CLKB",
            p_GSR="DISABLED",
            i_CLKA=ClockSignal(),
            i_CLKB=ClockSignal(),
            i_CEA=C(1),
            i_CEB=C(1),
            i_OCEA=C(1),
            i_OCEB=C(1),
            i_WEA=C(1) if width > data_pins else self.write_enable,  # a block of 36 bits is written by its byte enables alone
            i_WEB=C(0),
            i_RSTA=C(0),
            i_RSTB=C(0),
            **{f"i_CS{side}{pin}": C(0) for side in "AB" for pin in range(3)},
            **pins,
        )
