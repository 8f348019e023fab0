"""Writes what another machine needs to build a prepared board: ``systola prepare``, or
``make prepare``.

None of the tools that this is for is run here: openXC7's Yosys and nextpnr-xilinx, Project X-Ray's data, and the open
wrapper of the hard block PCIE_2_1 and its transceiver that the recipe names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from amaranth.back import verilog
from amaranth.hdl import Shape, Value

from systola_boards.catalogue.prepared import PREPARED, STATE, PreparedBoard
from systola_firmware.spec.config import Config
from systola_firmware.spec.pcie import CLASS_CODE, DEVICE_ID, REVISION_ID, VENDOR_ID, bar_bytes
from systola_hdl.cells.families import platform_of
from systola_hdl.pcie.adapters.series7 import Series7Adapter, Series7Pins
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.tops.pcie_device import PcieDevice
from systola_hdl.tops.verilog import fold_zeros

__all__ = ["app", "files_of", "top_of"]

#: The wrapper of the hard block: a Git repository whose module ``pcie_7x`` has PG054's names, and its files.
CORE = "https://github.com/regymm/pcie_7x"
_CORE_FILES = (
    "pcie_7x",
    "pcie_axi_rx",
    "pcie_axi_tx",
    "pcie_block",
    "pcie_brams",
    "pcie_tx_thrtl_ctl",
    "pipe_wrapper",
    "xilinx_pcie_mmcm",
)

#: Inputs of the wrapper that stay as they are.
_TIED = {
    "pipe_mmcm_rst_n": "1'b1",
    "cfg_turnoff_ok": "cfg_to_turnoff",
    "cfg_trn_pending": "1'b0",
    "cfg_pm_halt_aspm_l0s": "1'b0",
    "cfg_pm_halt_aspm_l1": "1'b0",
    "cfg_pm_force_state_en": "1'b0",
    "cfg_pm_force_state": "2'b0",
    "cfg_dsn": "64'b0",
    "cfg_pm_wake": "1'b0",
    "cfg_interrupt_stat": "1'b0",
    "cfg_pciecap_interrupt_msgnum": "5'b0",
}


def _range(bits: int) -> str:
    return f"[{bits - 1}:0] " if bits > 1 else ""


def top_of(board: PreparedBoard, config: Config) -> str:
    """Verilog of the top level: pins, the hard block's wrapper, and ``systola``."""
    parameters = {
        "CFG_VEND_ID": f"16'h{VENDOR_ID:04x}",
        "CFG_DEV_ID": f"16'h{DEVICE_ID:04x}",
        "CFG_REV_ID": f"8'h{REVISION_ID:02x}",
        "CFG_SUBSYS_VEND_ID": f"16'h{VENDOR_ID:04x}",
        "CFG_SUBSYS_ID": f"16'h{DEVICE_ID:04x}",
        "CLASS_CODE": f"24'h{CLASS_CODE:06x}",
        "BAR0": f"32'h{(1 << 32) - bar_bytes(config):08x}",
        "ENABLE_RX_TD_ECRC_TRIM": '"TRUE"',
        "TRN_NP_FC": '"TRUE"',
    }
    wires, core, inner = [], [], []
    pins = Series7Pins()
    for path, member, value in pins.flatten(pins.create()):
        name, bits = "_".join(map(str, path)), Shape.cast(Value.cast(value).shape()).width
        wires.append(f"  wire {_range(bits)}{name};")
        core.append(f"    .{name}({name})")
        inner.append(f"    .pins__{'__'.join(map(str, path))}({name})")
        assert member.is_port
    core += [f"    .{name}({value})" for name, value in _TIED.items()]
    lanes = ("pci_exp_rxp", "pci_exp_rxn", "pci_exp_txp", "pci_exp_txn")
    core += [f"    .{name}({name})" for name in lanes]
    core += ["    .user_clk_out(clk)", "    .pipe_mmcm_lock(locked)", "    .cfg_to_turnoff(cfg_to_turnoff)"]
    core += ["    .sys_clk(sys_clk)", "    .sys_rst_n(sys_rst_n)"]
    inner += ["    .clk(clk)", "    .rst(~locked)", "    .rx(1'b1)", "    .busy(busy)"]
    listed = ",\n".join(f"    .{name}({value})" for name, value in parameters.items())
    newline = ",\n"
    return f"""// {board.title}: {STATE}.
module top (
  input sys_clk_p, sys_clk_n, sys_rst_n,
  input pci_exp_rxp, pci_exp_rxn,
  output pci_exp_txp, pci_exp_txn,
  output pcie_clkreq_n,
  output [3:0] led
);
  wire sys_clk, clk, locked, cfg_to_turnoff, busy;
{chr(10).join(wires)}
  assign pcie_clkreq_n = 1'b0;
  assign led = ~{{2'b00, busy, user_lnk_up}};
  IBUFDS_GTE2 reference (.I(sys_clk_p), .IB(sys_clk_n), .CEB(1'b0), .O(sys_clk));
  pcie_7x #(
{listed}
  ) hard_block (
{newline.join(core)}
  );
  systola systola (
{newline.join(inner)}
  );
endmodule
"""


def _recipe(board: PreparedBoard, config: Config) -> str:
    sources = " ".join(f"$(CORE)/src/{name}.v" for name in _CORE_FILES)
    return f"""# {board.title}: {STATE}. With openXC7's tools on the path, and in CORE a copy of {CORE}.
PART := {board.part}
CORE ?= pcie_7x
CHIPDB ?= $(PART).bin
XRAY ?= prjxray-db/artix7
SOURCES := top.v systola.v {sources}

top.bit: top.frames
\txc7frames2bit --part_file $(XRAY)/$(PART)/part.yaml --part_name $(PART) --frm_file $< --output_file $@

top.frames: top.fasm
\tfasm2frames --part $(PART) --db-root $(XRAY) $< > $@

top.fasm: top.json top.xdc $(CHIPDB)
\tnextpnr-xilinx --chipdb $(CHIPDB) --xdc top.xdc --json top.json --fasm $@ --freq {config.clock_hz / 1e6:g}

top.json: $(SOURCES)
\tyosys -p "synth_xilinx -flatten -abc9 -arch xc7 -top top; write_json $@" $(SOURCES)
"""


def files_of(board: PreparedBoard) -> dict[str, str]:
    """Name and text of every file for ``board``. Takes some seconds."""
    config = board.config
    device = PcieDevice(config, Series7Adapter(TlpEndpoint.non_posted_requests))
    text = verilog.convert(
        device, name="systola", platform=platform_of(board.device.family), emit_src=False, strip_internal_attrs=True
    )
    return {
        "systola.v": fold_zeros(text),
        "top.v": top_of(board, config),
        "top.xdc": board.constraints,
        "Makefile": _recipe(board, config),
    }


app = typer.Typer(add_completion=False)


@app.command()
def main(
    board: Annotated[str, typer.Option(help="its name")] = "litefury",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of boards")] = Path("build/boards"),
) -> None:
    """Write Verilog, constraints and the recipe of a board to OUTPUT/BOARD."""
    if board not in PREPARED:
        typer.echo(f"unknown board {board!r}: choose one of {', '.join(PREPARED)}", err=True)
        raise typer.Exit(2)
    folder = output / board
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files_of(PREPARED[board]).items():
        (folder / name).write_text(text, encoding="utf-8")
    typer.echo(f"{folder}: {STATE}")
