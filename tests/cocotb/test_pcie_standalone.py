"""The endpoint with its own configuration space against cocotbext-pcie's root complex, in Verilator."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.benches.cocotb_runner import run_bench

from systola_hdl.pcie.standalone import StandaloneEndpoint

BENCH = Path(__file__).parent / "pcie_standalone" / "bench_pcie_standalone.py"


def run(monkeypatch: pytest.MonkeyPatch, *, longest: int, tests: int, chosen: str = "") -> str:
    environment = {"SYSTOLA_PCIE_LONGEST": str(longest)}
    block = StandaloneEndpoint(20)
    return run_bench(block, "pcie-standalone", BENCH, tests=tests, environment=environment, monkeypatch=monkeypatch, chosen=chosen)


@pytest.mark.timeout(300)
def test_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, longest=2048, tests=8, chosen="enumeration|words|transfers|memory")


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("chosen", "tests"), [("transfers/seed=4", 1), ("throughput", 1)])
def test_transfers_of_a_mebibyte(chosen: str, tests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, longest=1 << 20, tests=tests, chosen=chosen)
