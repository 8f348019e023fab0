"""Giving a function to vfio-pci, and back to the kernel: first as a list of steps to be shown, then done."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from systola.errors import LinkError
from systola.transports.pcie.slot import VFIO_DRIVER, Slot

__all__ = ["Step", "bind_steps", "perform", "unbind_steps"]


@dataclass(frozen=True)
class Step:
    """One change to the system: ``words`` tell exactly what ``action`` does."""

    words: str
    action: Callable[[], None]


def bind_steps(slot: Slot, user: str | None = None) -> list[Step]:
    """What it takes until vfio-pci has ``slot``, and until ``user`` may open it; empty if nothing is left to do.

    Raises :class:`~systola.errors.LinkError` for what would not work.
    """
    if slot.group is None:
        raise LinkError(
            f"{slot.name} has no IOMMU group, which vfio-pci needs: boot with intel_iommu=on or amd_iommu=on, or "
            "leave it unbound and use it as root"
        )
    kept = [other for other in slot.companions if other.driver not in (None, VFIO_DRIVER, "pcieport")]
    if kept:
        others = ", ".join(f"{other.name} ({other.driver})" for other in kept)
        raise LinkError(f"{slot.name} shares its IOMMU group {slot.group} with devices that the kernel uses: {others}")
    steps = []
    if slot.driver != VFIO_DRIVER:
        if not slot.system.path(f"/sys/bus/pci/drivers/{VFIO_DRIVER}").is_dir():
            raise LinkError(f"the kernel has no driver {VFIO_DRIVER} loaded: `modprobe {VFIO_DRIVER}` as root")
        steps = [*_override(slot, VFIO_DRIVER), *_unbind(slot), _probe(slot)]
    if user is not None:
        steps.append(_hand_over(slot, user))
    return steps


def unbind_steps(slot: Slot) -> list[Step]:
    """What it takes until the kernel's own driver has ``slot`` again, if there is one; empty if vfio-pci has not got
    it."""
    if slot.driver != VFIO_DRIVER:
        return []
    return [*_override(slot, ""), *_unbind(slot), _probe(slot)]


def perform(steps: Sequence[Step]) -> None:
    """Do them. Raises :class:`~systola.errors.LinkError`, naming the step that the kernel refused; those before it are
    done."""
    for step in steps:
        try:
            step.action()
        except PermissionError as error:
            raise LinkError(f"you may not {step.words}: do this as root") from error
        except OSError as error:
            raise LinkError(f"the kernel refused to {step.words}: {error.strerror}") from error


def _write(slot: Slot, name: str, value: str) -> Step:
    shown = value or "an empty line"
    return Step(f"write {shown} to {name}", lambda: _write_text(slot, name, f"{value}\n"))


def _write_text(slot: Slot, name: str, text: str) -> None:
    with slot.system.path(name).open("w", encoding="ascii") as file:
        file.write(text)


def _override(slot: Slot, driver: str) -> list[Step]:
    return [_write(slot, f"/sys/bus/pci/devices/{slot.name}/driver_override", driver)]


def _unbind(slot: Slot) -> list[Step]:
    return [_write(slot, f"/sys/bus/pci/drivers/{slot.driver}/unbind", slot.name)] if slot.driver is not None else []


def _probe(slot: Slot) -> Step:
    return _write(slot, "/sys/bus/pci/drivers_probe", slot.name)


def _hand_over(slot: Slot, user: str) -> Step:
    try:
        number = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise LinkError(f"there is no user {user!r}") from None
    path = f"/dev/vfio/{slot.group}"
    return Step(f"make {user} the owner of {path}", lambda: os.chown(slot.system.path(path), number, -1))
