"""``systola pcie``: what is listed, and that a device changes hands only by the steps that were shown and agreed to."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
from support.pcie.fake_pci import FakeKernel

from systola.commands import pcie as commands
from systola.commands.cli import main

ADDRESS = "0000:03:00.0"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    monkeypatch.setattr(commands, "SYSTEM", kernel)
    return kernel


def systola(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return int(stopped.value.code or 0)


def override(kernel: FakeKernel) -> str:
    return kernel.path(f"/sys/bus/pci/devices/{ADDRESS}/driver_override").read_text()


def test_list_shows_ours_and_with_all_everything(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert systola("pcie", "list") == 0
    assert "There is no PCIe device 1209:5359 here" in capsys.readouterr().out
    kernel.add(ADDRESS, driver="vfio-pci")
    other = kernel.add("0000:00:02.0", group=None)
    (other / "device").write_text("0x0001\n")
    assert systola("pcie", "list") == 0
    shown = capsys.readouterr().out
    assert [word in shown for word in (f"pcie:{ADDRESS}", "1209:5359", "4 KiB", "vfio-pci", "0000:00:02.0")] == [True] * 4 + [False]
    assert systola("pcie", "list", "--all") == 0
    assert "0000:00:02.0" in capsys.readouterr().out


def test_bind_says_what_it_will_do_and_does_that(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.add(ADDRESS, driver="nvme")
    kernel.path("/dev/vfio/7").touch()
    assert systola("pcie", "bind", "03:00.0", "--user", getpass.getuser(), "--yes") == 0
    assert capsys.readouterr().out.splitlines() == [
        "This will, in this order:",
        f"  1. write vfio-pci to /sys/bus/pci/devices/{ADDRESS}/driver_override",
        f"  2. write {ADDRESS} to /sys/bus/pci/drivers/nvme/unbind",
        f"  3. write {ADDRESS} to /sys/bus/pci/drivers_probe",
        f"  4. make {getpass.getuser()} the owner of /dev/vfio/7",
        f"Now it is `--device pcie:{ADDRESS}`.",
    ]
    assert override(kernel) == "vfio-pci\n"
    for file in ("drivers/nvme/unbind", "drivers_probe"):
        assert kernel.path(f"/sys/bus/pci/{file}").read_text() == f"{ADDRESS}\n"


def test_unbind_gives_it_back(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.add(ADDRESS, driver="vfio-pci")
    assert systola("pcie", "unbind", ADDRESS, "--yes") == 0
    assert f"  1. write an empty line to /sys/bus/pci/devices/{ADDRESS}/driver_override" in capsys.readouterr().out
    assert override(kernel) == "\n"
    assert kernel.path("/sys/bus/pci/drivers/vfio-pci/unbind").read_text() == f"{ADDRESS}\n"
    assert kernel.path("/sys/bus/pci/drivers_probe").read_text() == f"{ADDRESS}\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_changed(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, tmp_path: Path
) -> None:
    kernel.add(ADDRESS, driver="nvme")
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as typed:
        monkeypatch.setattr("sys.stdin", typed)
        assert systola("pcie", "bind", ADDRESS) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert override(kernel) == ""


def test_a_yes_at_the_question_will_do(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel.add(ADDRESS, driver="nvme")
    (tmp_path / "answer").write_text("y\n")
    with (tmp_path / "answer").open() as typed:
        monkeypatch.setattr("sys.stdin", typed)
        assert systola("pcie", "bind", ADDRESS) == 0
    assert override(kernel) == "vfio-pci\n"


def test_nothing_to_do_is_said(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.add(ADDRESS, driver="vfio-pci")
    assert systola("pcie", "bind", ADDRESS) == 0
    assert "has vfio-pci already: nothing to do" in capsys.readouterr().out
    kernel.add("0000:04:00.0", group=None)
    assert systola("pcie", "unbind", "0000:04:00.0") == 0
    assert "is not with vfio-pci: nothing to do" in capsys.readouterr().out


def test_what_cannot_be_bound_is_refused_before_anything_is_changed(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert systola("pcie", "bind", *words, "--yes") == 1
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    kernel.add("0000:04:00.0", group=None)
    assert "has no IOMMU group, which vfio-pci needs" in refused("0000:04:00.0")
    kernel.add(ADDRESS, driver="nvme")
    assert "there is no user 'nobody-of-this-name'" in refused(ADDRESS, "--user", "nobody-of-this-name")
    kernel.add("0000:03:00.1", driver="snd_hda_intel")
    assert "shares its IOMMU group 7 with devices that the kernel uses: 0000:03:00.1 (snd_hda_intel)" in refused(ADDRESS)
    assert "there is no PCIe device 0000:05:00.0" in refused("0000:05:00.0")
    kernel.add("0000:06:00.0", group="8")
    for file in kernel.path("/sys/bus/pci/drivers/vfio-pci").iterdir():
        file.unlink()
    kernel.path("/sys/bus/pci/drivers/vfio-pci").rmdir()
    assert "`modprobe vfio-pci` as root" in refused("0000:06:00.0")
    assert override(kernel) == ""


def test_a_step_that_the_kernel_refuses_is_named(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kernel.add(ADDRESS, driver="nvme")

    def denied(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("systola.transports.pcie.binding._write_text", denied)
        assert systola("pcie", "bind", ADDRESS, "--yes") == 1
    assert (
        f"you may not write vfio-pci to /sys/bus/pci/devices/{ADDRESS}/driver_override: do this as root" in capsys.readouterr().err
    )
    (folder / "driver_override").unlink()
    (folder / "driver_override").mkdir()
    assert systola("pcie", "bind", ADDRESS, "--yes") == 1
    assert "the kernel refused to write vfio-pci to" in capsys.readouterr().err
