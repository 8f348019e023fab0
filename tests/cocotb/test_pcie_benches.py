"""PCIe against cocotbext-pcie's root complex and hard-block model, in Verilator."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import Component, In, connect, flipped
from support.cocotb_runner import run_bench

from systola_hdl.pcie.series7 import Series7Adapter
from systola_hdl.pcie.ultrascale import UltrascaleAdapter

HERE = Path(__file__).parent


class AdapterOnPins(Component):
    """An adapter, and an input that only the hard block's model has a use for."""

    def __init__(self, adapter: UltrascaleAdapter | Series7Adapter) -> None:
        self._adapter = adapter
        super().__init__({**dict(adapter.signature.members), "sys_reset": In(1)})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.adapter = adapter = self._adapter
        for name in ("pins", "rx", "tx", "function"):
            connect(m, getattr(adapter, name), flipped(getattr(self, name)))
        return m


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("adapter", "tests"), [("ultrascale", 16), ("series7", 13)])
def test_adapter(adapter: str, tests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = AdapterOnPins({"ultrascale": UltrascaleAdapter, "series7": Series7Adapter}[adapter]())
    bench = HERE / f"pcie_{adapter}" / f"bench_pcie_{adapter}.py"
    run_bench(block, f"pcie-{adapter}", bench, tests=tests, environment={"SYSTOLA_PCIE_BLOCK": adapter}, monkeypatch=monkeypatch)
