"""Verilog of the whole design, and a key under which callers may cache it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from typing import Literal

from amaranth.back import verilog

from systola_firmware.spec.config import Config
from systola_hdl.tops.board import Systola
from systola_hdl.tops.pcie_simulation import PcieSimulationTop
from systola_hdl.tops.simulation import SimulationTop

__all__ = ["Top", "content_key", "fold_zeros", "generate"]

Top = Literal["simulation", "board", "pcie"]

_TOPS = {"simulation": SimulationTop, "board": Systola, "pcie": PcieSimulationTop}
#: Modules of ``systola_firmware`` that define the hardware.
_DEFINITIONS = (
    "spec/config.py",
    "spec/dma.py",
    "spec/isa.py",
    "spec/link.py",
    "spec/memory_map.py",
    "spec/pcie.py",
    "spec/sigmoid.py",
)
#: An initial block that sets the words of one memory, the first to zero.
_INITIAL = re.compile(
    r"(?P<indent> *)initial begin\n"
    r"(?P<lines> *(?P<memory>\S+ ?)\[0\] = (?P<zero>\d+'[dh]0+);\n(?: *(?P=memory)\[\d+\] = \S+;\n)*) *end\n"
)


def generate(config: Config, top: Top = "simulation") -> str:
    """Verilog of a top level; its module is named ``systola`` and has ports ``clk`` and ``rst`` besides the
    component's.

    ``simulation`` is :class:`~systola_hdl.tops.simulation.SimulationTop`, ``board`` is
    :class:`~systola_hdl.tops.board.Systola`, ``pcie`` is :class:`~systola_hdl.tops.pcie_simulation.PcieSimulationTop`.
    Takes some seconds for large arrays. Raises ``ValueError`` for another name.
    """
    if top not in _TOPS:
        raise ValueError(f"unknown top level {top!r}: choose one of {', '.join(_TOPS)}")
    return fold_zeros(verilog.convert(_TOPS[top](config), name="systola", emit_src=False, strip_internal_attrs=True))


def fold_zeros(text: str) -> str:
    """Write a memory's initial zeros as a loop: a line for each word makes megabytes, and slow compilers."""
    count = itertools.count()

    def fold(block: re.Match[str]) -> str:
        lines = block["lines"].splitlines()
        if not all(line.endswith(f"] = {block['zero']};") for line in lines):
            return block[0]
        indent, memory, zero = block["indent"], block["memory"], block["zero"]
        return (
            f"{indent}initial begin : zero_{next(count)}\n{indent}  integer i;\n"
            f"{indent}  for (i = 0; i < {len(lines)}; i = i + 1) {memory}[i] = {zero};\n{indent}end\n"
        )

    return _INITIAL.sub(fold, text)


def content_key(config: Config, top: Top = "simulation") -> str:
    """SHA-256 (hexadecimal) over everything that :func:`generate` depends on: sources, configuration and Amaranth's
    version.

    The configuration's name, a label for people, is not part of it, nor are the presets: a new preset does not
    invalidate the simulators of the others.
    """
    digest = hashlib.sha256()
    description = {"top": top, "amaranth": metadata.version("amaranth"), **dataclasses.asdict(config.replace(name=""))}
    digest.update(json.dumps(description, sort_keys=True).encode())
    firmware = resources.files("systola_firmware")
    sources = _modules(resources.files("systola_hdl")) | {name: firmware.joinpath(name) for name in _DEFINITIONS}
    for name, source in sorted(sources.items()):
        text = source.read_bytes()
        digest.update(f"\n{name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def _modules(folder: Traversable, prefix: str = "hdl/") -> dict[str, Traversable]:
    """Every module in a folder and those below it, by its path."""
    found: dict[str, Traversable] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _modules(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found[prefix + entry.name] = entry
    return found
