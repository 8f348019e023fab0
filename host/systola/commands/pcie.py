"""``systola pcie list``, ``bind`` and ``unbind``: which devices there are, and which driver has each."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from systola.errors import LinkError
from systola.transports.pcie.binding import Step, bind_steps, perform, unbind_steps
from systola.transports.pcie.listed import VFIO_DRIVER, ListedFunction, find_functions
from systola.transports.pcie.system import System
from systola_firmware.spec.pcie import DEVICE_ID, VENDOR_ID

__all__ = ["app", "functions_table"]

app = typer.Typer(
    name="pcie",
    help="Devices on PCIe: list them, and give them to the driver.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="domain:bus:device.function, such as 0000:03:00.0.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

#: The kernel; tests replace it.
SYSTEM = System()
_out = Console()


@app.command("list")
def list_command(
    everything: Annotated[bool, typer.Option("--all", help="Other devices too.")] = False,
) -> None:
    """List the Systola devices on PCIe, and how a program gets at each."""
    functions = [listed for listed in find_functions(SYSTEM) if everything or listed.identity == (VENDOR_ID, DEVICE_ID)]
    if functions:
        _out.print(functions_table(functions))
    else:
        typer.echo(f"There is no PCIe device {VENDOR_ID:04x}:{DEVICE_ID:04x} here; `systola pcie list --all` lists every device.")


@app.command()
def bind(
    address: AddressArgument,
    user: Annotated[str | None, typer.Option("--user", help="Let this user open the device, without being root.")] = None,
    yes: YesOption = False,
) -> None:
    """Give a device to vfio-pci, through which the driver uses it. Says what it will do, then asks."""
    listed = ListedFunction(address, SYSTEM)
    _carry_out(bind_steps(listed, user), yes=yes, done=f"{listed.name} has {VFIO_DRIVER} already: nothing to do")
    typer.echo(f"Now it is `--device pcie:{listed.name}`.")


@app.command()
def unbind(address: AddressArgument, yes: YesOption = False) -> None:
    """Give a device back to the kernel's own driver, if it has one. Says what it will do, then asks."""
    listed = ListedFunction(address, SYSTEM)
    _carry_out(unbind_steps(listed), yes=yes, done=f"{listed.name} is not with {VFIO_DRIVER}: nothing to do")


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


def functions_table(functions: list[ListedFunction]) -> Table:
    """Address, identity, size of BAR0, IOMMU group and driver of each function."""
    table = Table(title="PCIe devices")
    for heading in ("device", "vendor:device", "BAR0", "IOMMU group", "driver"):
        table.add_column(heading)
    for listed in functions:
        vendor, device = listed.identity
        size = f"{listed.bar_bytes >> 10:,} KiB" if listed.bar_bytes else "none"
        driver = listed.driver or "none"
        table.add_row(f"pcie:{listed.name}", f"{vendor:04x}:{device:04x}", size, listed.group or "none", driver)
    return table
