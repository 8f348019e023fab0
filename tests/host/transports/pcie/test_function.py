"""The kernel's two ways to a PCIe function, against a kernel made of files: every path, and a sentence for each
trouble."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from support.pcie.fake_pci import BAR_OFFSET, CONFIG_OFFSET, FakeKernel

from systola.errors import LinkError
from systola.transports.pcie import vfio_calls as calls
from systola.transports.pcie.function import PcieFunction
from systola.transports.pcie.listed import ListedFunction
from systola.transports.pcie.sysfs import SysfsFunction
from systola.transports.pcie.system import System, memory_address
from systola.transports.pcie.vfio import VfioFunction

ADDRESS = "0000:03:00.0"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def opened(kernel: FakeKernel, backend: str) -> PcieFunction:
    """The function by one of the two ways, in a kernel where it is there."""
    if backend == "vfio":
        kernel.add(ADDRESS, driver="vfio-pci")
        return VfioFunction(ListedFunction(ADDRESS, kernel))
    kernel.add(ADDRESS, group=None)
    return SysfsFunction(ListedFunction(ADDRESS, kernel))


@pytest.mark.parametrize("backend", ["vfio", "sysfs"])
def test_words_of_the_bar_are_the_devices(kernel: FakeKernel, backend: str) -> None:
    function = opened(kernel, backend)
    file, start = (kernel.device_file, BAR_OFFSET) if backend == "vfio" else (function.listed.path / "resource0", 0)  # type: ignore[attr-defined]
    assert function.bar_bytes == kernel.bar_bytes
    assert function.describe() == f"pcie:{ADDRESS}"
    function.write_word(8, 0xDEADBEEF)
    assert file.read_bytes()[start + 8 : start + 12] == b"\xef\xbe\xad\xde"
    with file.open("r+b") as device:
        device.seek(start + 4)
        device.write(b"\1\2\3\4")
    assert function.read_word(4) == 0x04030201
    function.close()
    function.close()
    with pytest.raises(LinkError, match=f"pcie:{ADDRESS} is closed"):
        function.read_word(0)


@pytest.mark.parametrize(("backend", "kept"), [("vfio", 6), ("sysfs", 2)])
def test_the_device_may_reach_memory_only_while_it_is_open(kernel: FakeKernel, backend: str, kept: int) -> None:
    function = opened(kernel, backend)

    def command() -> int:
        file, start = (
            (kernel.device_file, CONFIG_OFFSET) if backend == "vfio" else (kernel.path(f"/sys/bus/pci/devices/{ADDRESS}/config"), 0)
        )
        return int(struct.unpack_from("<H", file.read_bytes(), start + 4)[0])

    assert command() == 6
    function.close()
    assert command() == kept  # vfio's kernel does it itself


def test_vfio_buffers_are_mapped_for_the_device_and_unmapped(kernel: FakeKernel) -> None:
    function = opened(kernel, "vfio")
    group = kernel.path("/sys/kernel/iommu_groups/7/reserved_regions")
    group.write_text("0x0 0xffffff direct-relaxable\n0x0000000000102000 0x00000000001fffff reserved\n0xfee00000 0xfeefffff msi\n")
    first, second = function.allocate(5000), function.allocate(1)
    assert (first.address, len(first), second.address, len(second)) == (0x100000, 8192, 0x200000, 4096)
    assert kernel.mappings[first.address] == (memory_address(first.memory), 8192)
    first.view[:3] = b"abc"
    assert first.memory[:3] == b"abc"
    function.release(first)
    assert list(kernel.mappings) == [second.address]
    function.close()


def test_sysfs_buffers_are_huge_pages_by_physical_address(kernel: FakeKernel) -> None:
    function = opened(kernel, "sysfs")
    buffer = function.allocate(100)
    assert (len(buffer), buffer.address) == (2 << 20, (0x1234 + 3 * 512) * 4096)
    with pytest.raises(LinkError, match="do not fit one huge page of 2097152"):
        function.allocate((2 << 20) + 1)
    function.release(buffer)
    kernel.huge_pages = 0
    with pytest.raises(LinkError, match="needs huge pages, and none is free: `echo 8 > /proc/sys/vm/nr_hugepages`"):
        function.allocate(1)
    kernel.huge_pages, kernel.hidden = 1, True
    with pytest.raises(LinkError, match="the kernel hides physical addresses"):
        function.allocate(1)
    function.close()


def test_an_interrupt_wakes_by_its_event(kernel: FakeKernel) -> None:
    function = opened(kernel, "vfio")
    assert function.has_interrupt
    event = kernel.events[calls.MSI_INDEX]
    assert event is not None
    assert not function.wait_interrupt(0.001)
    os.eventfd_write(event, 2)
    assert function.wait_interrupt(5)
    assert not function.wait_interrupt(0)
    function.close()
    assert kernel.events == {calls.MSI_INDEX: None}


def test_interrupts_are_msix_where_there_is_no_msi_and_polling_without_both(kernel: FakeKernel) -> None:
    kernel.interrupts = {calls.MSI_INDEX: 0, calls.MSIX_INDEX: 4}
    function = opened(kernel, "vfio")
    assert list(kernel.events) == [calls.MSIX_INDEX]
    function.close()
    kernel.interrupts = {calls.MSI_INDEX: 0, calls.MSIX_INDEX: 0}
    function = VfioFunction(ListedFunction(ADDRESS, kernel))
    assert not function.has_interrupt
    assert not function.wait_interrupt(10)
    function.close()


@pytest.mark.parametrize("backend", ["vfio", "sysfs"])
def test_reset(kernel: FakeKernel, backend: str) -> None:
    function = opened(kernel, backend)
    assert function.reset()
    assert kernel.resets == 1 or (kernel.path(f"/sys/bus/pci/devices/{ADDRESS}") / "reset").read_text() == "1"
    kernel.refuse[calls.DEVICE_RESET] = errno.ENOTTY
    (kernel.path(f"/sys/bus/pci/devices/{ADDRESS}") / "reset").unlink()
    (kernel.path(f"/sys/bus/pci/devices/{ADDRESS}") / "reset").mkdir()
    assert not function.reset()
    function.close()


@pytest.mark.parametrize("backend", ["vfio", "sysfs"])
def test_a_second_program_is_refused_until_the_first_has_ended(kernel: FakeKernel, backend: str) -> None:
    function = opened(kernel, backend)
    with pytest.raises(LinkError, match=f"pcie:{ADDRESS} is in use by another program"):
        type(function)(ListedFunction(ADDRESS, kernel))  # type: ignore[call-arg]
    function.close()
    type(function)(ListedFunction(ADDRESS, kernel)).close()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("request_number", "error", "sentence"),
    [
        (calls.SET_IOMMU, errno.EPERM, "does not remap interrupts .*allow_unsafe_interrupts"),
        (calls.SET_IOMMU, errno.ENODEV, "the kernel refused SET_IOMMU: No such device"),
        (calls.GROUP_GET_DEVICE_FD, errno.EINVAL, "the kernel refused GROUP_GET_DEVICE_FD: Invalid argument"),
        (calls.DEVICE_SET_IRQS, errno.EINVAL, "the kernel refused SET_IRQS: Invalid argument"),
    ],
)
def test_each_refusal_of_vfio_has_its_sentence(kernel: FakeKernel, request_number: int, error: int, sentence: str) -> None:
    kernel.add(ADDRESS, driver="vfio-pci")
    kernel.refuse[request_number] = error
    with pytest.raises(LinkError, match=f"^pcie:{ADDRESS}: .*{sentence}"):
        VfioFunction(ListedFunction(ADDRESS, kernel))
    kernel.refuse.clear()
    VfioFunction(ListedFunction(ADDRESS, kernel)).close()  # nothing is left open


def test_too_little_lockable_memory_is_explained(kernel: FakeKernel) -> None:
    function = opened(kernel, "vfio")
    kernel.refuse[calls.IOMMU_MAP_DMA] = errno.ENOMEM
    with pytest.raises(LinkError, match=r"needs 64 KiB of locked memory, .*raise `ulimit -l`"):
        function.allocate(65536)
    kernel.refuse.clear()
    assert function.allocate(65536).address == 0x100000
    function.close()


def test_a_group_that_is_not_whole_names_who_has_the_rest(kernel: FakeKernel) -> None:
    kernel.add(ADDRESS, driver="vfio-pci")
    kernel.add("0000:03:00.1", driver="snd_hda_intel")
    kernel.viable = False
    with pytest.raises(LinkError, match=r"must be unbound first: 0000:03:00\.1 \(snd_hda_intel\)"):
        VfioFunction(ListedFunction(ADDRESS, kernel))


def test_what_is_missing_for_vfio_is_named(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.add(ADDRESS, group=None, driver="vfio-pci")
    with pytest.raises(LinkError, match="has no IOMMU group: turn the IOMMU on"):
        VfioFunction(ListedFunction(ADDRESS, kernel))
    kernel.add("0000:04:00.0", driver="vfio-pci", group="9")
    kernel.path("/dev/vfio/9").unlink()
    with pytest.raises(LinkError, match=r"there is no /dev/vfio/9: `systola pcie bind 0000:04:00\.0` as root"):
        VfioFunction(ListedFunction("04:00.0", kernel))

    def refused(*_arguments: object) -> int:
        raise PermissionError(errno.EACCES, "denied")

    listed = ListedFunction("04:00.0", kernel)
    with monkeypatch.context() as patch:
        patch.setattr("systola.transports.pcie.vfio.os.open", refused)
        patch.setattr("systola.transports.pcie.mapped.lock_function", lambda _listed: os.dup(0))
        with pytest.raises(LinkError, match=r"you may not open /dev/vfio/vfio: .*--user NAME` as root"):
            VfioFunction(listed)


def test_a_function_without_a_bar_is_no_device_of_ours(kernel: FakeKernel) -> None:
    kernel.bar_bytes = 0
    kernel.add(ADDRESS, driver="vfio-pci")
    with pytest.raises(LinkError, match="has no BAR0 in memory"):
        VfioFunction(ListedFunction(ADDRESS, kernel))
    folder = kernel.add("0000:04:00.0", group=None)
    with pytest.raises(LinkError, match="has no BAR0 in memory"):
        SysfsFunction(ListedFunction("0000:04:00.0", kernel))
    (folder / "resource0").unlink()
    with pytest.raises(LinkError, match="has no BAR0 in memory"):
        SysfsFunction(ListedFunction("0000:04:00.0", kernel))


@pytest.mark.parametrize(
    ("group", "driver", "kind", "sentence"),
    [
        (None, "nvme", "", "belongs to the kernel's driver nvme: take it with `systola pcie bind 0000:03:00.0`"),
        ("7", None, "DMA", "is behind an IOMMU, which blocks it until it is bound"),
    ],
)
def test_sysfs_leaves_alone_what_it_could_not_drive(
    kernel: FakeKernel, group: str | None, driver: str | None, kind: str, sentence: str
) -> None:
    kernel.add(ADDRESS, group=group, driver=driver, kind=kind)
    with pytest.raises(LinkError, match=sentence):
        SysfsFunction(ListedFunction(ADDRESS, kernel))


def test_sysfs_works_behind_an_iommu_that_does_not_translate(kernel: FakeKernel) -> None:
    kernel.add(ADDRESS, kind="identity")
    SysfsFunction(ListedFunction(ADDRESS, kernel)).close()


def test_sysfs_without_permission_says_what_to_do(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.add(ADDRESS, group=None)

    def refused(*_arguments: object, **_options: object) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(LinkError, match=r"you may not open pcie:0000:03:00.0: run as root, or have it bound"):
        SysfsFunction(ListedFunction(ADDRESS, kernel))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("0000:05:00.0", "there is no PCIe device 0000:05:00.0: `systola pcie list --all`"),
        ("eth0", "'eth0' is not the address of a PCIe device: say pcie:0000:03:00.0"),
        ("../../etc", "is not the address of a PCIe device"),
    ],
)
def test_a_name_that_is_no_address_is_explained(kernel: FakeKernel, name: str, sentence: str) -> None:
    with pytest.raises(LinkError, match=sentence):
        ListedFunction(name, kernel)


def test_the_real_kernel_tells_physical_addresses_or_hides_them() -> None:
    system = System()
    memory = system.memory(4096)
    memory[0] = 1
    assert system.physical_address(memory_address(memory)) % 4096 == 0
    memory.close()
