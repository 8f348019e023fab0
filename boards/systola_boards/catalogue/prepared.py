"""Boards whose design is written down for tools that are not run here: Verilog, constraints and a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from systola_boards.fpga.devices import DEVICES, Device
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.config import Config

__all__ = ["PREPARED", "STATE", "PreparedBoard"]

#: The state of each of them, for tables.
STATE = "prepared, never built here"


@dataclass(frozen=True)
class PreparedBoard:
    """A board with a PCIe connector and an Artix-7.

    Attributes
    ----------
    name, title:
        Names for the command line and for people.
    device, part:
        Its FPGA, and the full name of that for openXC7's tools.
    preset:
        Preset of its engine.
    pins:
        Pins by port of the design.
    standards:
        I/O standards of the pins that do not belong to a transceiver.
    """

    name: str
    title: str
    device: Device
    part: str
    preset: str
    pins: dict[str, str]
    standards: dict[str, str]

    @property
    def config(self) -> Config:
        """The preset at the user clock of one lane of the first generation with a 64-bit interface."""
        return configurations.preset(self.preset).replace(clock_hz=62_500_000)

    @property
    def constraints(self) -> str:
        """Constraints for openXC7: pins, standards, and the clocks that come from outside or from the transceiver."""
        lines = [f"set_property PACKAGE_PIN {pin} [get_ports {{{port}}}]" for port, pin in self.pins.items()]
        lines += [f"set_property IOSTANDARD {standard} [get_ports {{{port}}}]" for port, standard in self.standards.items()]
        lines += ["set_property PULLUP true [get_ports {sys_rst_n}]"]
        return "\n".join((*lines, ""))


#: Both have the same pins: public constraints of the maker's example designs for both boards (RHS Research,
#: NiteFury-and-LiteFury), and litex-boards' description of the Acorn CLE-215+, which has NiteFury's circuit board.
_PINS = {
    "sys_clk_p": "F6",
    "sys_clk_n": "E6",
    "sys_rst_n": "J1",
    "pcie_clkreq_n": "G1",
    "pci_exp_rxp": "B10",
    "pci_exp_rxn": "A10",
    "pci_exp_txp": "B6",
    "pci_exp_txn": "A6",
    "led[0]": "G3",
    "led[1]": "H3",
    "led[2]": "G4",
    "led[3]": "H4",
}
_STANDARDS = dict.fromkeys(("sys_rst_n", "pcie_clkreq_n", "led[0]", "led[1]", "led[2]", "led[3]"), "LVCMOS33")

PREPARED: dict[str, PreparedBoard] = {
    board.name: board
    for board in (
        PreparedBoard("litefury", "RHS Research LiteFury", DEVICES["XC7A100T"], "xc7a100tfgg484-2", "litefury", _PINS, _STANDARDS),
        PreparedBoard("nitefury", "RHS Research NiteFury", DEVICES["XC7A200T"], "xc7a200tfbg484-2", "litefury", _PINS, _STANDARDS),
    )
}
