"""From RTLIL to a bitstream: Yosys, nextpnr and the packer of a device. The result of every step is cached by the
content of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from systola_boards.fpga.devices import Device
from systola_boards.fpga.floorplan import FLOORPLAN_VERSION, floorplan
from systola_boards.toolchain.programs import LOG, SynthesisError, Tool, find_tool, make_cached, run_cached
from systola_boards.toolchain.reports import Route, cells_of, route_of

__all__ = ["HIDE_FIELDS", "Netlist", "Routed", "Wish", "best", "pack", "place_and_route", "planned", "synthesize", "tools_for"]

# No block relies on a word that is read in the cycle in which it is written, which Amaranth cannot say; without this, a
# comparator and a bypass stand behind every block RAM.
_NO_COLLISIONS = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i"

# A signal with the attribute `keep` is one of several registers with the same value in different parts of the chip.
# Amaranth gives the attribute to the wire; Yosys looks for it at the cell when it merges equal ones.
_KEPT_REGISTERS = "setattr -set keep 1 a:keep %ci1 t:$dff %i"


@dataclass(frozen=True)
class Netlist:
    """What Yosys made: nextpnr's input, and its cells by type."""

    json: bytes
    cells: dict[str, int]


@dataclass(frozen=True)
class Wish:
    """What nextpnr is asked for.

    Attributes
    ----------
    clock_mhz:
        Frequency of every clock that the constraints do not name.
    seed:
        Seed of the placement.
    constraints:
        The file of pins and clocks; without one, the design has no pins (see :mod:`systola_boards.blocks.catalogue`).
    """

    clock_mhz: float
    seed: int = 1
    constraints: str | None = None


@dataclass(frozen=True)
class Routed:
    """What nextpnr made: the packer's input, and the report."""

    content: bytes
    route: Route


#: Yosys names bit 3 of a port ``tile`` as Amaranth names the port's field 3, and stops at the second ``tile[3]``
#: (https://github.com/YosysHQ/yosys/issues/4349): this command takes the names of the fields away.
HIDE_FIELDS = "rename -hide w:*\\[*"


def synthesize(device: Device, rtlil: str, folder: Path, yosys: Tool, *, before: Sequence[str] = ()) -> Netlist:
    """Map RTLIL (top module ``top``) to the device's cells, after the commands ``before``; log in ``folder/yosys.log``.

    The design comes as RTLIL and not as Verilog: there, the contents of a memory are one cell, not one statement a
    word, over which Yosys spends many minutes. Raises :class:`SynthesisError`. A large board takes minutes.
    """
    script = ["read_rtlil top.il", *before, _NO_COLLISIONS, _KEPT_REGISTERS, *device.synthesis, "tee -q -o cells.json stat -json"]
    inputs = {"top.il": rtlil.encode(), "top.ys": "\n".join((*script, "")).encode()}
    # YoWASP's Yosys prints nothing any more once ABC has run, not even an error: it writes its log itself.
    made = run_cached(yosys, ["-q", "-l", LOG, "top.ys"], inputs, ["top.json", "cells.json"], keep_log=folder / "yosys.log")
    return Netlist(made["top.json"], cells_of(made["cells.json"].decode()))


def planned(device: Device, netlist: Netlist, seed: int) -> Netlist:
    """The netlist with the sites of its hard blocks chosen (:mod:`systola_boards.fpga.floorplan`); unchanged for a
    device without ``hard_blocks``.

    A large board takes two minutes.
    """
    if not device.hard_blocks:
        return netlist

    def make(folder: Path) -> None:
        (folder / "planned.json").write_bytes(floorplan(netlist.json, device.hard_blocks, seed).netlist)

    made = make_cached("floorplan", [FLOORPLAN_VERSION, device.name, str(seed)], {"top.json": netlist.json}, ["planned.json"], make)
    return Netlist(made["planned.json"], netlist.cells)


def place_and_route(device: Device, netlist: Netlist, wish: Wish, folder: Path, nextpnr: Tool) -> Routed:
    """Place and route; log in ``folder/nextpnr-SEED.log``. A missed clock is no error here.

    Raises :class:`SynthesisError`. A large board takes many minutes.
    """
    arguments = ["--json", "top.json", "--report", "report.json", device.routed_option, device.routed, *device.placement]
    arguments += ["--freq", f"{wish.clock_mhz:.6f}", "--seed", str(wish.seed), "--timing-allow-fail"]
    inputs = {"top.json": netlist.json}
    if wish.constraints is not None:
        inputs[device.constraints] = wish.constraints.encode()
    arguments += device.pinless_options if wish.constraints is None else device.constraints_options
    made = run_cached(nextpnr, arguments, inputs, [device.routed, "report.json"], keep_log=folder / f"nextpnr-{wish.seed}.log")
    try:
        return Routed(made[device.routed], route_of(made["report.json"].decode(), wish.seed))
    except ValueError as error:
        raise SynthesisError(f"{error}, see {folder / f'nextpnr-{wish.seed}.log'}") from None


def pack(device: Device, routed: Routed, folder: Path, packer: Tool) -> bytes:
    """The bitstream; log in ``folder/pack.log``. Raises :class:`SynthesisError`."""
    bitstream = f"bitstream{device.bitstream}"
    arguments = [argument.format(routed=device.routed, bitstream=bitstream) for argument in device.packer_options]
    return run_cached(packer, arguments, {device.routed: routed.content}, [bitstream], keep_log=folder / "pack.log")[bitstream]


def best(results: Sequence[Routed]) -> Routed:
    """The result whose critical clock has the largest slack."""
    return max(results, key=lambda result: result.route.slack)


def tools_for(device: Device) -> tuple[Tool, Tool, Tool]:
    """Yosys, nextpnr and the packer for a device. Raises :class:`SynthesisError` for the first that is missing."""
    return find_tool("yosys"), find_tool(device.placer), find_tool(device.packer)
