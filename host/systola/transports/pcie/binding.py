"""Gives a function to vfio-pci, and back to the kernel: the steps are listed first, to be shown, and then done."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from systola.errors import LinkError
from systola.transports.pcie.listed import VFIO_DRIVER, ListedFunction

__all__ = ["Step", "bind_steps", "perform", "unbind_steps"]


@dataclass(frozen=True)
class Step:
    """One change to the system: ``words`` tell exactly what ``action`` does."""

    words: str
    action: Callable[[], None]


def bind_steps(listed: ListedFunction, user: str | None = None) -> list[Step]:
    """The steps after which vfio-pci has ``listed``, and ``user`` may open it; empty if nothing is left to do.

    Raises :class:`~systola.errors.LinkError` if they would not work.
    """
    if listed.group is None:
        raise LinkError(
            f"{listed.name} has no IOMMU group, which vfio-pci needs: boot with intel_iommu=on or amd_iommu=on, or "
            "leave it unbound and use it as root"
        )
    kept = [other for other in listed.companions if other.driver not in (None, VFIO_DRIVER, "pcieport")]
    if kept:
        others = ", ".join(f"{other.name} ({other.driver})" for other in kept)
        raise LinkError(f"{listed.name} shares its IOMMU group {listed.group} with devices that the kernel uses: {others}")
    steps = []
    if listed.driver != VFIO_DRIVER:
        if not listed.system.path(f"/sys/bus/pci/drivers/{VFIO_DRIVER}").is_dir():
            raise LinkError(f"the kernel has no driver {VFIO_DRIVER} loaded: `modprobe {VFIO_DRIVER}` as root")
        steps = [*_override(listed, VFIO_DRIVER), *_unbind(listed), _probe(listed)]
    if user is not None:
        steps.append(_hand_over(listed, user))
    return steps


def unbind_steps(listed: ListedFunction) -> list[Step]:
    """The steps after which the kernel's own driver, if there is one, has ``listed`` again; empty if vfio-pci does not
    have it."""
    if listed.driver != VFIO_DRIVER:
        return []
    return [*_override(listed, ""), *_unbind(listed), _probe(listed)]


def perform(steps: Sequence[Step]) -> None:
    """Do the steps. Raises :class:`~systola.errors.LinkError`, naming the step that the kernel refused; those before it
    are done."""
    for step in steps:
        try:
            step.action()
        except PermissionError as error:
            raise LinkError(f"you may not {step.words}: do this as root") from error
        except OSError as error:
            raise LinkError(f"the kernel refused to {step.words}: {error.strerror}") from error


def _write(listed: ListedFunction, name: str, value: str) -> Step:
    shown = value or "an empty line"
    return Step(f"write {shown} to {name}", lambda: _write_text(listed, name, f"{value}\n"))


def _write_text(listed: ListedFunction, name: str, text: str) -> None:
    with listed.system.path(name).open("w", encoding="ascii") as file:
        file.write(text)


def _override(listed: ListedFunction, driver: str) -> list[Step]:
    return [_write(listed, f"/sys/bus/pci/devices/{listed.name}/driver_override", driver)]


def _unbind(listed: ListedFunction) -> list[Step]:
    return [_write(listed, f"/sys/bus/pci/drivers/{listed.driver}/unbind", listed.name)] if listed.driver is not None else []


def _probe(listed: ListedFunction) -> Step:
    return _write(listed, "/sys/bus/pci/drivers_probe", listed.name)


def _hand_over(listed: ListedFunction, user: str) -> Step:
    try:
        number = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise LinkError(f"there is no user {user!r}") from None
    path = f"/dev/vfio/{listed.group}"
    return Step(f"make {user} the owner of {path}", lambda: os.chown(listed.system.path(path), number, -1))
