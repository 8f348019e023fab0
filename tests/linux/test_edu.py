"""The driver's two backends in a Linux guest, with QEMU's ``edu`` device: kernel, IOMMU and device are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pcie.linux_guest import start

#: Checks that the guest's script makes in each machine, at least.
_MACHINES = {
    "remapping": (["intel-iommu,intremap=on", "edu"], 24),
    "no-remapping": (["intel-iommu,intremap=off", "edu"], 3),
    "no-iommu": (["edu,dma_mask=0xffffffffffffffff"], 10),
}


@pytest.mark.parametrize(
    "expected", [pytest.param(name, marks=[] if name == "remapping" else pytest.mark.full) for name in _MACHINES]
)
def test_backends_in_a_linux_guest(expected: str, image: Path) -> None:
    devices, checks = _MACHINES[expected]
    guest = start(image, "edu", f"expect={expected}", devices)
    try:
        console, _ = guest.communicate(timeout=300)
    finally:
        guest.kill()
    assert "GUEST OK" in console, console
    assert "FAIL" not in console
    assert console.count("PASS ") >= checks
