"""The engine's clock from the FPGA's PLL, and its reset."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from systola_boards.fpga.pll import PllSettings
from systola_hdl.cells.families import Family, family_of

__all__ = ["STARTUP_CYCLES", "ClockGenerator"]

#: Clock cycles from the PLL's lock to the end of the reset: iCE40's block RAMs read as zero for some 3 microseconds
#: after configuration (YosysHQ/icestorm issue 76), which is 72 cycles at 24 MHz.
STARTUP_CYCLES = 1024


class ClockGenerator(Elaboratable):
    """Drives the domain ``sync`` (:meth:`domain`) from a clock pin; holds it in reset until the PLL is locked and by a
    button.

    The lock and the button are asynchronous: they only set and clear flip-flops asynchronously, whose release is
    synchronised. There is one clock, that of ``sync``, so nothing crosses between clocks. Its constraint is nextpnr's
    default frequency and what nextpnr derives from the PLL's input; the build checks that nextpnr has used the
    frequency that the PLL makes.

    * ECP5: ``sync`` has no reset of its own, which would be a net to all flip-flops of the chip in one cycle. The
      global set/reset (SGSR) holds them at their initial values, as in Amaranth's own designs for this family.
    * iCE40 and Gowin: ``sync`` has a reset, which falls ``STARTUP_CYCLES`` after the lock.

    Parameters
    ----------
    settings:
        Settings of the PLL.
    clock:
        Port of the clock pin, without a buffer.
    button:
        Port of a button that resets, or None.
    """

    def __init__(self, settings: PllSettings, clock: io.PortLike, button: io.PortLike | None) -> None:
        self.settings = settings
        self._clock = clock
        self._button = button

    @staticmethod
    def domain(platform: Any) -> ClockDomain:
        """The clock domain that it drives, for the module that contains it and the engine."""
        return ClockDomain("sync", reset_less=family_of(platform) is Family.ECP5)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        family = family_of(platform)
        clock = Signal(name="engine_clock")
        m.d.comb += ClockSignal("sync").eq(clock)
        locked, hold = Signal(), Signal()  # both asynchronous
        m.d.comb += hold.eq(~locked)
        if self._button is not None:
            m.submodules.button = button = io.Buffer("i", self._button)
            m.d.comb += hold.eq(~locked | button.i)
        if family is Family.ICE40:  # its PLL contains the pin's buffer
            m.submodules.pll = self._ice40(clock, locked)
        else:
            m.submodules.buffer = buffer = io.Buffer("i", self._clock)
            make = {Family.ECP5: self._ecp5, Family.GOWIN: self._gowin}[family]
            m.submodules.pll = make(buffer.i, clock, locked)
        if family is Family.ECP5:
            self._global_reset(m, clock, hold)
        else:
            self._delayed_reset(m, clock, hold)
        return m

    def _global_reset(self, m: Module, clock: Signal, hold: Signal) -> None:
        # The two flip-flops that release the reset are not reset by it themselves.
        first, second = Signal(), Signal()
        m.submodules.release0 = Instance("FD1S3DX", p_GSR="DISABLED", i_CK=clock, i_CD=hold, i_D=C(1), o_Q=first)
        m.submodules.release1 = Instance("FD1S3DX", p_GSR="DISABLED", i_CK=clock, i_CD=hold, i_D=first, o_Q=second)
        m.submodules.global_reset = Instance("SGSR", i_CLK=clock, i_GSR=second)  # active low

    def _delayed_reset(self, m: Module, clock: Signal, hold: Signal) -> None:
        m.domains.startup = ClockDomain("startup", local=True)
        m.d.comb += ClockSignal("startup").eq(clock)
        m.submodules.synchronizer = ResetSynchronizer(hold, domain="startup")
        passed = Signal(range(STARTUP_CYCLES + 1))
        reset = Signal(init=1)
        with m.If(passed != STARTUP_CYCLES):
            m.d.startup += passed.eq(passed + 1)
        m.d.startup += reset.eq(passed != STARTUP_CYCLES)
        m.d.comb += ResetSignal("sync").eq(reset)

    def _ecp5(self, source: Signal, clock: Signal, locked: Signal) -> Instance:
        dividers = {f"p_{name}": value for name, value in self.settings.parameters.items()}
        # For a phase of zero, CPHASE is the divider less one.
        return Instance(
            "EHXPLLL",
            **dividers,
            p_FEEDBK_PATH="INT_OS",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=self.settings.parameters["CLKOP_DIV"] - 1,  # type: ignore[operator]  # an int for this family
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_CPHASE=self.settings.parameters["CLKOS_DIV"] - 1,  # type: ignore[operator]
            p_CLKOS_FPHASE=0,
            # Loop filter as Lattice's and Project Trellis' generators set it.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            i_CLKI=source,
            i_RST=C(0),
            i_STDBY=C(0),
            i_PHASESEL0=C(0),
            i_PHASESEL1=C(0),
            i_PHASEDIR=C(1),
            i_PHASESTEP=C(1),
            i_PHASELOADREG=C(1),
            i_PLLWAKESYNC=C(0),
            i_ENCLKOP=C(0),
            i_ENCLKOS=C(0),
            o_CLKOP=clock,
            o_LOCK=locked,
        )

    def _ice40(self, clock: Signal, locked: Signal) -> Instance:
        widths = {"DIVR": 4, "DIVF": 7, "DIVQ": 3, "FILTER_RANGE": 3}
        dividers = {f"p_{name}": C(value, widths[name]) for name, value in self.settings.parameters.items()}
        return Instance(
            "SB_PLL40_PAD",
            **dividers,
            p_FEEDBACK_PATH="SIMPLE",
            i_PACKAGEPIN=self._clock.io,
            i_RESETB=C(1),
            i_BYPASS=C(0),
            o_PLLOUTGLOBAL=clock,
            o_LOCK=locked,
        )

    def _gowin(self, source: Signal, clock: Signal, locked: Signal) -> Instance:
        dividers = {f"p_{name}": value for name, value in self.settings.parameters.items()}
        return Instance(
            "rPLL",
            **dividers,
            p_FCLKIN=f"{float(self.settings.input_hz) / 1e6:g}",
            p_DYN_IDIV_SEL="false",
            p_DYN_FBDIV_SEL="false",
            p_DYN_ODIV_SEL="false",
            p_DYN_DA_EN="false",
            p_PSDA_SEL="0000",
            p_DUTYDA_SEL="1000",
            p_CLKFB_SEL="internal",
            p_CLKOUT_BYPASS="false",
            p_CLKOUTP_BYPASS="false",
            p_CLKOUTD_BYPASS="false",
            p_CLKOUTD_SRC="CLKOUT",
            p_CLKOUTD3_SRC="CLKOUT",
            p_DYN_SDIV_SEL=2,
            p_DEVICE="GW2AR-18C",
            i_CLKIN=source,
            i_CLKFB=C(0),
            i_RESET=C(0),
            i_RESET_P=C(0),
            i_FBDSEL=C(0, 6),
            i_IDSEL=C(0, 6),
            i_ODSEL=C(0, 6),
            i_DUTYDA=C(0, 4),
            i_PSDA=C(0, 4),
            i_FDLY=C(0, 4),
            o_CLKOUT=clock,
            o_LOCK=locked,
        )
