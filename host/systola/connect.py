"""From a device's name, such as ``sim:ulx3s-85f`` or ``serial:/dev/ttyUSB0``, to the device."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from systola.device import Device
from systola.errors import DeviceError, SystolaError
from systola.transports.base import Transport
from systola.transports.link import LinkTransport
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import DEFAULT_PRESET, preset

__all__ = ["DEFAULT_DEVICE", "Progress", "open_device"]

#: The device that commands use when none is named.
DEFAULT_DEVICE = f"sim:{DEFAULT_PRESET}"

#: Called with each stage of the one-time build of a simulated board.
Progress = Callable[[str], None]

#: Seconds of this machine after which an answer of a simulation is missed: it loses nothing, but it may be slow.
_SIMULATION_TIMEOUT = 120.0
#: A board answers a frame within 10 ms; the simulated one behind a pseudo-terminal takes up to about half a second on a
#: loaded machine. After silence in all attempts, 26 s together, the device is given up.
_SERIAL_TIMEOUT, _SERIAL_ATTEMPTS = 2.0, 5

#: Processors on which a descriptor is in memory before the doorbell rings although there is no barrier, which Python
#: does not have.
_ORDERED = ("x86_64", "AMD64")

_FORMS = "'sim:PRESET', 'golden:PRESET', 'serial:PORT' or 'pcie:ADDRESS'"


def open_device(name: str = DEFAULT_DEVICE, *, progress: Progress | None = None) -> Device:
    """Open the device called ``name``.

    * ``sim:PRESET``: the gateware in Verilator, in this process, cycle by cycle. Built on first use; ``progress`` is
      told.
    * ``golden:PRESET``: the numpy interpreter of programs. Quick to start, no cycles.
    * ``serial:PORT`` or ``serial:PORT@BAUD``: a board (or ``systola sim --serial``).
    * ``pcie:0000:03:00.0``: a board on PCIe, through vfio-pci if that has it, else as root through ``/sys``.
    * ``pcie:sim:PRESET`` and ``pcie:golden:PRESET``: the same driver with the gateware in Verilator, or with the golden
      engine, instead of a board.

    An empty PRESET is the default one. Raises :class:`~systola.errors.SystolaError`, one sentence, if the device cannot
    be opened.
    """
    kind, separator, rest = name.partition(":")
    if not separator:
        raise DeviceError(f"{name!r} is not a device: say {_FORMS}")
    if kind == "serial":
        return _open_serial(name, rest)
    if kind == "sim":
        return _open_simulation(_config(rest), progress)
    if kind == "golden":
        return _open_golden(_config(rest))
    if kind == "pcie":
        return _open_pcie(rest, progress)
    raise DeviceError(f"{name!r} is not a device: say {_FORMS}")


def _config(name: str) -> Config:
    try:
        return preset(name or DEFAULT_PRESET)
    except ValueError as error:
        raise DeviceError(str(error)) from None


def _with_dma(name: str) -> Config:
    """The preset with the DMA engine that a link to the host's memory needs."""
    try:
        return _config(name).replace(dma=True)
    except ValueError as error:
        raise DeviceError(str(error)) from None


def _open_serial(name: str, rest: str) -> Device:
    from systola.transports.serial import SerialPipe

    match = re.fullmatch(r"(.+?)(?:@(\d+))?", rest)
    if match is None:
        raise DeviceError("a serial device needs a port, such as serial:/dev/ttyUSB0")
    baud = int(match[2]) if match[2] else preset(DEFAULT_PRESET).uart_baud
    hint = f" (at {baud} baud; serial:PORT@BAUD chooses another rate)"
    transport = LinkTransport(SerialPipe(match[1], baud), name, timeout=_SERIAL_TIMEOUT, attempts=_SERIAL_ATTEMPTS, hint=hint)
    return _device(transport)


@contextmanager
def _simulator() -> Iterator[None]:
    """Turn what prevents a simulation into a :class:`~systola.errors.DeviceError`."""
    try:
        from systola_sim.verilated.toolchain import ToolMissing
        from systola_sim.verilated.verilator import BuildError
    except ImportError as error:
        raise _not_installed(error) from error
    try:
        yield
    except (ToolMissing, BuildError) as error:
        raise DeviceError(str(error)) from error
    except ImportError as error:  # the gateware is imported only when it is built
        raise _not_installed(error) from error


def _open_simulation(config: Config, progress: Progress | None) -> Device:
    with _simulator():
        from systola_sim.verilated.board import VerilatedBoard

        board = VerilatedBoard(config, progress=progress)
    return _device(LinkTransport(board, f"sim:{config.name}", timeout=_SIMULATION_TIMEOUT, attempts=2))


def _open_pcie_simulation(config: Config, progress: Progress | None) -> Device:
    from systola.transports.pcie.transport import PcieTransport

    with _simulator():
        from systola.transports.pcie.verilated import VerilatedFunction

        function = VerilatedFunction(config, progress=progress)
    return _device(PcieTransport(function, timeout=_SIMULATION_TIMEOUT))


def _open_golden(config: Config) -> Device:
    from systola.transports.golden import GoldenTransport

    return _device(GoldenTransport(config))


def _open_pcie(address: str, progress: Progress | None) -> Device:
    from systola.transports.pcie.transport import PcieTransport

    kind, _, rest = address.partition(":")
    if kind == "golden":
        from systola.transports.pcie.simulated import GoldenFunction

        return _device(PcieTransport(GoldenFunction(_with_dma(rest)), timeout=_SIMULATION_TIMEOUT))
    if kind == "sim":
        return _open_pcie_simulation(_with_dma(rest), progress)
    if platform.machine() not in _ORDERED:
        raise DeviceError(f"PCIe is for x86-64 only: on {platform.machine()}, stores to memory and to a device may be reordered")
    from systola.transports.pcie.listed import VFIO_DRIVER, ListedFunction
    from systola.transports.pcie.sysfs import SysfsFunction
    from systola.transports.pcie.system import System
    from systola.transports.pcie.vfio import VfioFunction

    listed = ListedFunction(address, System())
    return _device(PcieTransport(VfioFunction(listed) if listed.driver == VFIO_DRIVER else SysfsFunction(listed)))


def _device(transport: Transport) -> Device:
    try:
        return Device(transport)
    except SystolaError:
        transport.close()
        raise


def _not_installed(error: ImportError) -> DeviceError:
    return DeviceError(f"simulation needs the package {error.name}: install with `pip install 'systola[sim]'`")
