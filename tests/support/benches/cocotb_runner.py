"""Builds a block with Verilator and runs a cocotb bench on it. Build artefacts stay in ``build/cocotb``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.lib.wiring import Component
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from systola_sim.verilated.toolchain import find_toolchain
from systola_sim.verilated.verilator import WAIVERS

__all__ = ["run_bench"]

_COCOTB = Path(__file__).parents[2] / "cocotb"
_BUILD = _COCOTB.parents[1] / "build" / "cocotb"


def run_bench(
    block: Component,
    name: str,
    bench: Path,
    *,
    tests: int,
    environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    chosen: str = "",
    optimize: bool = False,
) -> str:
    """Build ``block``, run the file ``bench`` on it, see that ``tests`` of its tests passed and none failed; returns
    the log.

    Parameters
    ----------
    block:
        What is built, as the module ``block``.
    name:
        Of the folder below ``build/cocotb``. An unchanged block is not built again.
    bench:
        A file of cocotb tests; its folder and ``tests/cocotb`` are on its path.
    tests:
        How many tests it has.
    environment:
        Variables for the bench.
    chosen:
        A regular expression: only tests whose name it matches are run.
    optimize:
        For benches that run long: compiling takes longer, and the simulation is faster.
    """
    toolchain = find_toolchain()
    for variable, value in toolchain.full_environment().items():
        monkeypatch.setenv(variable, value)
    # Most benches run little and are compiled each time they change: a quick compiler is worth more than quick code,
    # and most of all for Verilator's own files, which take longer than any block.
    fast = "OPT_FAST=-O2" if optimize else "OPT_FAST=-O1 OPT_GLOBAL=-O0"
    monkeypatch.setenv("MAKEFLAGS", f"{os.environ['MAKEFLAGS']} {fast}")
    monkeypatch.setenv("OBJCACHE", f"sh {shlex.quote(str(Path(__file__).with_name('objcache.sh')))}")
    monkeypatch.setenv("OBJECTS", str(_BUILD / "verilated"))
    monkeypatch.setattr(sys, "path", [str(_COCOTB), str(bench.parent), *sys.path])  # the runner hands it on

    folder = _BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "block.v"
    text = verilog.convert(block, name="block", emit_src=False, strip_internal_attrs=True)
    if not source.exists() or source.read_text() != text:  # an unchanged file is not built again
        source.write_text(text)
    runner = get_runner("verilator")
    runner.build(
        sources=[source],
        hdl_toplevel="block",
        build_dir=folder,
        build_args=["--x-initial", "fast", *(f"-Wno-{warning}" for warning in WAIVERS)],
        timescale=("1ns", "1ps"),
        log_file=folder / "build.log",
    )
    log = folder / "test.log"
    results_file = folder / "results.xml"
    with contextlib.suppress(SystemExit):  # at a failure: the results tell it
        runner.test(
            test_module=bench.stem,
            hdl_toplevel="block",
            build_dir=folder,
            test_dir=folder,
            results_xml=str(results_file),
            test_filter=chosen or None,
            extra_env={"COCOTB_RANDOM_SEED": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning", **environment},
            log_file=log,
        )
    ran, failed = get_results(results_file)
    assert (failed, ran) == (0, tests), log.read_text()
    return log.read_text()
