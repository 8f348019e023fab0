"""``systola pcie list``, ``bind`` and ``unbind``: which devices there are, and who has them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from systola.errors import LinkError
from systola.transports.pcie.binding import Step, bind_steps, perform, unbind_steps
from systola.transports.pcie.slot import VFIO_DRIVER, Slot, find_slots
from systola.transports.pcie.system import System
from systola_firmware.spec.pcie import DEVICE_ID, VENDOR_ID

__all__ = ["app", "slots_table"]

app = typer.Typer(
    name="pcie",
    help="Devices on PCIe: list them, and give them to the driver.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SlotArgument = Annotated[str, typer.Argument(metavar="PLACE", help="domain:bus:device.function, such as 0000:03:00.0.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

#: The kernel; tests put another one here.
SYSTEM = System()
_out = Console()


@app.command("list")
def list_command(
    everything: Annotated[bool, typer.Option("--all", help="Other devices too.")] = False,
) -> None:
    """List the Systola devices on PCIe, and how a program gets at each."""
    slots = [slot for slot in find_slots(SYSTEM) if everything or slot.identity == (VENDOR_ID, DEVICE_ID)]
    if slots:
        _out.print(slots_table(slots))
    else:
        typer.echo(f"There is no PCIe device {VENDOR_ID:04x}:{DEVICE_ID:04x} here; `systola pcie list --all` lists every device.")


@app.command()
def bind(
    place: SlotArgument,
    user: Annotated[str | None, typer.Option("--user", help="Let this user open the device, without being root.")] = None,
    yes: YesOption = False,
) -> None:
    """Give a device to vfio-pci, through which the driver uses it. Says what it will do, then asks."""
    slot = Slot(place, SYSTEM)
    _carry_out(bind_steps(slot, user), yes=yes, done=f"{slot.name} has {VFIO_DRIVER} already: nothing to do")
    typer.echo(f"Now it is `--device pcie:{slot.name}`.")


@app.command()
def unbind(place: SlotArgument, yes: YesOption = False) -> None:
    """Give a device back to the kernel's own driver, if it has one. Says what it will do, then asks."""
    slot = Slot(place, SYSTEM)
    _carry_out(unbind_steps(slot), yes=yes, done=f"{slot.name} is not with {VFIO_DRIVER}: nothing to do")


def _carry_out(steps: list[Step], *, yes: bool, done: str) -> None:
    if not steps:
        typer.echo(done)
        return
    typer.echo("This will, in this order:")
    for number, step in enumerate(steps, start=1):
        typer.echo(f"  {number}. {step.words}")
    if not yes:
        try:
            agreed = typer.confirm("Go on?")
        except typer.Abort:  # no terminal to ask, or Ctrl-C
            agreed = False
        if not agreed:
            raise LinkError("nothing was changed")
    perform(steps)


def slots_table(slots: list[Slot]) -> Table:
    """Place, identity, size of BAR0 and driver of each."""
    table = Table(title="PCIe devices")
    for heading in ("device", "vendor:device", "BAR0", "IOMMU group", "driver"):
        table.add_column(heading)
    for slot in slots:
        vendor, device = slot.identity
        size = f"{slot.bar_bytes >> 10:,} KiB" if slot.bar_bytes else "none"
        driver = slot.driver or "none"
        table.add_row(f"pcie:{slot.name}", f"{vendor:04x}:{device:04x}", size, slot.group or "none", driver)
    return table
