"""The multiplier cells of the FPGA families, with the input and output registers that are part of them.

Each function adds one cell to a module and returns its exact signed product, :data:`REGISTERS` cycles after the
operands. A stationary operand ``b`` is taken where ``load`` is set, and holds for the ``a`` of the same cycle and all
later ones. Operands are left-aligned at the cell's inputs, with zeros below them, and the product is in the top bits of
its output: right-aligned, an operand's sign bit would have to be wired to every input above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, ValueLike

from systola_hdl.cells.families import Family

__all__ = [
    "MULTIPLIERS",
    "REGISTERS",
    "MultiplierCell",
    "ecp5_multiplier",
    "gowin_multiplier",
    "ice40_multiplier_pair",
    "xilinx_multiplier",
]

#: Cycles from the operands to the product: a register before and one after the multiplier.
REGISTERS = 2

#: Widest operand of an ECP5's multiplier.
_ECP5_BITS = 18
#: Widest operand of Gowin's largest multiplier.
_GOWIN_BITS = 18
_GOWIN_NARROW_BITS = 9
#: Widest operands of a DSP48E1's multiplier.
_XILINX_BITS = (25, 18)


def _left_aligned(value: Value, bits: int) -> Value:
    if len(value) > bits:
        raise ValueError(f"an operand of {len(value)} bits has no room in a multiplier of {bits}")
    return Cat(Const(0, bits - len(value)), value)


def ecp5_multiplier(m: Module, a: Value, b: Value, load: ValueLike = 1) -> Value:
    """An ECP5's ``MULT18X18D``: operands of up to 18 bits.

    Lattice TN1267, "ECP5 and ECP5-5G sysDSP Usage Guide". The four multipliers of a block share four clock enables.
    ``CE0`` is always on in all of them, which leaves three for ``load``.
    """
    product = Signal(len(a) + len(b))
    ports: dict[str, Value] = {}
    for name, value in (("A", a), ("B", b)):
        ports |= {f"i_{name}{index}": bit for index, bit in enumerate(_left_aligned(value, _ECP5_BITS))}
    lowest = 2 * _ECP5_BITS - len(product)
    ports |= {f"o_P{lowest + index}": bit for index, bit in enumerate(product)}
    m.submodules.dsp = Instance(
        "MULT18X18D",
        p_REG_INPUTA_CLK="CLK0",
        p_REG_INPUTA_CE="CE0",
        p_REG_INPUTB_CLK="CLK0",
        p_REG_INPUTB_CE="CE1",
        p_REG_OUTPUT_CLK="CLK0",
        p_REG_OUTPUT_CE="CE0",
        p_GSR="DISABLED",
        i_CLK0=ClockSignal(),
        i_CE0=Const(1, 1),
        i_CE1=load,
        i_RST0=Const(0, 1),
        i_SIGNEDA=Const(1, 1),
        i_SIGNEDB=Const(1, 1),
        i_SOURCEA=Const(0, 1),
        i_SOURCEB=Const(0, 1),
        **ports,
    )
    return product.as_signed()


def gowin_multiplier(m: Module, a: Value, b: Value, load: ValueLike | None = None) -> Value:
    """A Gowin ``MULT9X9`` or ``MULT18X18``, whichever is wide enough.

    Gowin UG287, "Gowin DSP User Guide". All of a cell's registers share one clock enable, so that with ``load`` the
    stationary operand is kept in registers outside.
    """
    bits = _GOWIN_NARROW_BITS if max(len(a), len(b)) <= _GOWIN_NARROW_BITS else _GOWIN_BITS
    product = Signal(2 * bits)
    operand = b
    if load is not None:
        operand = Signal(len(b), name="stationary", reset_less=True)
        with m.If(load):
            m.d.sync += operand.eq(b)
    m.submodules.dsp = Instance(
        f"MULT{bits}X{bits}",
        p_AREG=Const(1, 1),
        p_BREG=Const(int(load is None), 1),
        p_PIPE_REG=Const(0, 1),
        p_OUT_REG=Const(1, 1),
        p_ASIGN_REG=Const(0, 1),
        p_BSIGN_REG=Const(0, 1),
        p_SOA_REG=Const(0, 1),
        p_MULT_RESET_MODE="SYNC",
        i_CLK=ClockSignal(),
        i_CE=Const(1, 1),
        i_RESET=Const(0, 1),
        i_A=_left_aligned(a, bits),
        i_B=_left_aligned(operand, bits),
        i_SIA=Const(0, bits),
        i_SIB=Const(0, bits),
        i_ASIGN=Const(1, 1),
        i_BSIGN=Const(1, 1),
        i_ASEL=Const(0, 1),
        i_BSEL=Const(0, 1),
        o_DOUT=product,
    )
    return product[len(product) - len(a) - len(b) :].as_signed()


def ice40_multiplier_pair(m: Module, a: tuple[Value, Value], b: tuple[Value, Value], load: ValueLike) -> tuple[Value, Value]:
    """An iCE40 UltraPlus' ``SB_MAC16`` as two multipliers of 8 bits: the products ``a[0] * b[0]`` and ``a[1] * b[1]``.

    Lattice TN1295, "DSP Function Usage Guide for iCE40 Devices". The cell holds its operand B as a whole, so that both
    stationary operands are loaded together.
    """
    product = Signal(32)
    bits = 8
    moving, stationary = (Cat(_left_aligned(value, bits) for value in operand) for operand in (a, b))
    m.submodules.dsp = Instance(
        "SB_MAC16",
        p_MODE_8x8=Const(1, 1),
        p_A_REG=Const(1, 1),
        p_B_REG=Const(1, 1),
        p_A_SIGNED=Const(1, 1),
        p_B_SIGNED=Const(1, 1),
        p_TOP_8x8_MULT_REG=Const(1, 1),
        p_BOT_8x8_MULT_REG=Const(1, 1),
        p_TOPOUTPUT_SELECT=Const(2, 2),  # the registered product, which bypasses the adder
        p_BOTOUTPUT_SELECT=Const(2, 2),
        i_CLK=ClockSignal(),
        i_CE=Const(1, 1),
        i_A=moving,
        i_B=stationary,
        i_C=Const(0, 16),
        i_D=Const(0, 16),
        i_AHOLD=Const(0, 1),
        i_BHOLD=~Value.cast(load),
        **{
            f"i_{name}": Const(0, 1)
            for name in (
                *("CHOLD", "DHOLD", "OHOLDTOP", "OHOLDBOT"),
                *("IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT"),
                *("OLOADTOP", "OLOADBOT", "ADDSUBTOP", "ADDSUBBOT"),
                *("CI", "ACCUMCI", "SIGNEXTIN"),
            )
        },
        o_O=product,
    )
    return product[:16].as_signed(), product[16:].as_signed()


def xilinx_multiplier(m: Module, a: Value, b: Value, load: ValueLike = 1) -> Value:
    """A 7-series ``DSP48E1``: operands of up to 25 and 18 bits, by its multiplier alone (P = M).

    AMD UG479, "7 Series DSP48E1 Slice". With one register each, A's and B's enables are CEA2 and CEB2. The register in
    the middle of the multiplier is not used.
    """
    a_bits, b_bits = _XILINX_BITS
    product = Signal(48)
    low = a_bits + b_bits - len(a) - len(b)
    none = ("ADREG", "ALUMODEREG", "CARRYINREG", "CARRYINSELREG", "CREG", "DREG", "INMODEREG", "MREG", "OPMODEREG")
    idle = {"ALUMODE": 4, "CARRYIN": 1, "CARRYINSEL": 3, "C": 48, "D": 25, "INMODE": 5}
    cascade = {"ACIN": 30, "BCIN": 18, "CARRYCASCIN": 1, "MULTSIGNIN": 1, "PCIN": 48}
    disabled = ("A1", "AD", "ALUMODE", "B1", "C", "CARRYIN", "CTRL", "D", "INMODE", "M")
    resets = ("A", "ALLCARRYIN", "ALUMODE", "B", "C", "CTRL", "D", "INMODE", "M", "P")
    m.submodules.dsp = Instance(
        "DSP48E1",
        **{f"p_{name}": 1 for name in ("AREG", "BREG", "ACASCREG", "BCASCREG", "PREG")},
        **{f"p_{name}": 0 for name in none},
        p_USE_DPORT="FALSE",
        p_USE_MULT="MULTIPLY",
        p_USE_SIMD="ONE48",
        i_CLK=ClockSignal(),
        i_A=Cat(_left_aligned(a, a_bits), Const(0, 30 - a_bits)),
        i_B=_left_aligned(b, b_bits),
        i_CEA2=Const(1, 1),
        i_CEB2=load,
        i_CEP=Const(1, 1),
        i_OPMODE=Const(0b000_01_01, 7),  # Z = 0, X and Y the product
        **{f"i_{name}": Const(0, bits) for name, bits in (idle | cascade).items()},
        **{f"i_CE{name}": Const(0, 1) for name in disabled},
        **{f"i_RST{name}": Const(0, 1) for name in resets},
        o_P=product,
    )
    return product[low : a_bits + b_bits].as_signed()


@dataclass(frozen=True)
class MultiplierCell:
    """A family's cell for one product.

    Attributes
    ----------
    a_bits, b_bits:
        The widest operands that it takes.
    add:
        Adds it to a module and returns the product of two operands: a function of this module. A third argument is the
        stationary operand's ``load``; without it, both operands move.
    """

    a_bits: int
    b_bits: int
    add: Callable[..., Value]

    def takes(self, a: Value, b: Value) -> bool:
        """Whether the operands are not too wide."""
        return len(a) <= self.a_bits and len(b) <= self.b_bits


#: Of each family that has one; synthesis finds what it can in the others.
MULTIPLIERS: dict[Family, MultiplierCell] = {
    Family.ECP5: MultiplierCell(_ECP5_BITS, _ECP5_BITS, ecp5_multiplier),
    Family.GOWIN: MultiplierCell(_GOWIN_BITS, _GOWIN_BITS, gowin_multiplier),
    Family.XILINX: MultiplierCell(*_XILINX_BITS, xilinx_multiplier),
}
