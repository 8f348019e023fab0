"""PCIe against cocotbext-pcie's root complex and hard-block model, in Verilator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import Component, In, connect, flipped
from support.benches.cocotb_runner import run_bench
from support.models.files import model_path

from systola_firmware.spec.presets import preset
from systola_hdl.pcie.adapters.series7 import Series7Adapter
from systola_hdl.pcie.adapters.ultrascale import UltrascaleAdapter
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.tops.pcie_device import PcieDevice

HERE = Path(__file__).parent
WINDOW_BITS = 20
TIMEOUT = 2000  #: cycles, long enough for the model's link and short enough to wait for


class EndpointOnPins(Component):
    """An adapter with the endpoint behind it."""

    def __init__(self, adapter: UltrascaleAdapter | Series7Adapter, endpoint: TlpEndpoint) -> None:
        self._adapter, self._endpoint = adapter, endpoint
        members = {"pins": adapter.signature.members["pins"], "host": endpoint.signature.members["host"], "sys_reset": In(1)}
        super().__init__(members)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.adapter = adapter = self._adapter
        m.submodules.endpoint = endpoint = self._endpoint
        connect(m, adapter.pins, flipped(self.pins))
        connect(m, adapter.rx, endpoint.rx)
        connect(m, endpoint.tx, adapter.tx)
        connect(m, adapter.function, endpoint.function)
        connect(m, endpoint.host, flipped(self.host))
        return m


class OnPins(Component):
    """A device, and an input that only the hard block's model has a use for."""

    def __init__(self, device: Component) -> None:
        self._device = device
        super().__init__({**dict(device.signature.members), "sys_reset": In(1)})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.device = device = self._device
        for name, member in device.signature.members.items():
            if member.is_signature:
                connect(m, getattr(device, name), flipped(getattr(self, name)))
            elif member.flow == In:
                m.d.comb += getattr(device, name).eq(getattr(self, name))
            else:
                m.d.comb += getattr(self, name).eq(getattr(device, name))
        return m


ADAPTERS = {"ultrascale": UltrascaleAdapter, "series7": Series7Adapter}


#: Quick parts of the benches, as a regular expression of tests' names and how many these are; "" are all.
ADAPTER_PARTS = {
    "ultrascale": (r"registers/bar_64=True|transfers/sizes=0|order|credit|bad_completions|message|discontinued|refused", 8),
    "series7": (r"registers/bar_64=False|transfers/sizes=1|bad_checksum|credit", 4),
}
ADAPTER_TESTS = {"ultrascale": 16, "series7": 14}
ENDPOINT_PART = (r"words|refusals|transfers/setting=1|refused_reads", 4)
ENDPOINT_TESTS = 11


def _named(name: str, chosen: str) -> str:
    """A bench's folder: all of its tests and a part of them may run at the same time."""
    return name if chosen else f"{name}-all"


def full(*arguments: object, marks: Sequence[Any] = ()) -> Any:
    return pytest.param(*arguments, marks=(pytest.mark.full, *marks))


#: Transfers of a mebibyte, with pauses, take longer than any other test should that hangs. (A limit of the function
#: would win.)
LONG = pytest.mark.timeout(5400)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("adapter", "chosen", "tests"),
    [
        *((name, chosen, tests) for name, (chosen, tests) in ADAPTER_PARTS.items()),
        *(full(name, "", tests) for name, tests in ADAPTER_TESTS.items()),
    ],
)
def test_adapter(adapter: str, chosen: str, tests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_bench(
        OnPins(ADAPTERS[adapter]()),
        _named(f"pcie-{adapter}", chosen),
        HERE / f"pcie_{adapter}" / f"bench_pcie_{adapter}.py",
        tests=tests,
        chosen=chosen,
        environment={"SYSTOLA_PCIE_BLOCK": adapter},
        monkeypatch=monkeypatch,
    )


@pytest.mark.parametrize(
    ("adapter", "largest", "chosen", "tests"),
    [
        pytest.param("ultrascale", 6000, *ENDPOINT_PART, marks=pytest.mark.timeout(1200)),
        full("ultrascale", 1 << 20, "", ENDPOINT_TESTS, marks=[LONG]),
        full("series7", 6000, "", ENDPOINT_TESTS, marks=[pytest.mark.timeout(1200)]),
    ],
)
def test_endpoint(adapter: str, largest: int, chosen: str, tests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``largest``: a transfer of the longest ones, in bytes."""
    endpoint = TlpEndpoint(WINDOW_BITS, timeout=TIMEOUT)
    run_bench(
        EndpointOnPins(ADAPTERS[adapter](TlpEndpoint.non_posted_requests), endpoint),
        _named(f"pcie-endpoint-{adapter}", chosen),
        HERE / "pcie_endpoint" / "bench_pcie_endpoint.py",
        tests=tests,
        chosen=chosen,
        environment={"SYSTOLA_PCIE_BLOCK": adapter, "SYSTOLA_PCIE_TIMEOUT": str(TIMEOUT), "SYSTOLA_PCIE_LARGEST": str(largest)},
        monkeypatch=monkeypatch,
    )


def run_device(
    adapter: str, preset_name: str, chosen: str, tests: int, monkeypatch: pytest.MonkeyPatch, **environment: str
) -> None:
    device = PcieDevice(preset(preset_name), ADAPTERS[adapter](TlpEndpoint.non_posted_requests), timeout=20_000)
    run_bench(
        OnPins(device),
        _named(f"pcie-device-{adapter}", chosen),
        HERE / "pcie_device" / "bench_pcie_device.py",
        tests=tests,
        chosen=chosen,
        environment={"SYSTOLA_PCIE_BLOCK": adapter, "SYSTOLA_PCIE_PRESET": preset_name, **environment},
        monkeypatch=monkeypatch,
    )


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_device(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_device(adapter, "tiny-8x4-dma", "", 3, monkeypatch, SYSTOLA_PCIE_IDLE="0.05")


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_keyword_spotter(monkeypatch: pytest.MonkeyPatch) -> None:
    """DS-CNN; the engine idles for at most 5% of the time between inferences that follow each other."""
    path = str(model_path("dscnn"))
    run_device(
        "ultrascale", "tiny-8x4-dma", "model|back_to_back", 2, monkeypatch, SYSTOLA_PCIE_IDLE="0.05", SYSTOLA_PCIE_MODEL=path
    )
