"""The FPGAs of the boards: what they have, and how Yosys, nextpnr and the packers are called for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from systola_hdl.cells.families import Family

__all__ = ["DEVICES", "Device", "HardBlocks", "Resource", "device_of", "find_device"]


@dataclass(frozen=True)
class Resource:
    """A kind of resource of an FPGA.

    Attributes
    ----------
    name:
        Its name for people: LUT, FF, DSP, block RAM, SPRAM.
    available:
        How many there are.
    weights:
        How many of them a cell of Yosys' netlist takes, by the beginning of the cell's type.
    """

    name: str
    available: int
    weights: Mapping[str, float]

    def used(self, cells: Mapping[str, int]) -> int:
        """How many of them a netlist takes, by its cells of each type. Of several beginnings that fit, the longest
        counts."""
        total = 0.0
        for cell, count in cells.items():
            beginnings = [beginning for beginning in self.weights if cell.startswith(beginning)]
            if beginnings:
                total += self.weights[max(beginnings, key=len)] * count
        return -int(-total // 1)


@dataclass(frozen=True)
class HardBlocks:
    """The sites of one type of cell, which repeat regularly over the chip.

    Attributes
    ----------
    cell:
        Yosys' type of the cell.
    columns, rows:
        Where a group of sites begins.
    group:
        Each site of a group: its column from the group's beginning, and its name.
    """

    cell: str
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    group: tuple[tuple[int, str], ...]

    def sites(self) -> list[tuple[int, int, str]]:
        """Column, row and nextpnr's name of every site."""
        return [
            (column + offset, row, f"X{column + offset}/Y{row}/{name}")
            for row in self.rows
            for column in self.columns
            for offset, name in self.group
        ]


@dataclass(frozen=True)
class Device:
    """An FPGA in a package and speed grade.

    Attributes
    ----------
    name:
        The vendor's name for it.
    family:
        Family that says which cells it has.
    resources:
        How much it has of everything.
    synthesis:
        Commands of Yosys, from the RTLIL as read to the netlist ``top.json``.
    placer, placer_options:
        nextpnr's program for it and that program's options, in which words in braces stand for what ``part`` has by
        that name; no program if none is run here.
    part:
        What nextpnr calls the package and the speed grade. In :data:`DEVICES` it is the part for blocks of presets that
        no board has; :func:`device_of` takes the platform's.
    routed_option, routed:
        The placer's option for the file that it writes for the packer, and that file's name.
    constraints, constraints_options:
        The name of the file of constraints, as Amaranth's platform writes it; its extension is its kind. The placer's
        options for that file.
    pinless_options, pinless_constraints:
        The placer's options for a design without constraints, and the constraints without which it places no block
        alone (:mod:`systola_boards.blocks`), whose ports are ``clock``, ``i`` and ``o``.
    packer, packer_options:
        The program that makes the bitstream from what nextpnr writes, and its arguments; ``{routed}`` and
        ``{bitstream}`` stand for the files.
    bitstream:
        The extension of the bitstream's file.
    hard_blocks:
        Sites of the cells that :mod:`systola_boards.fpga.floorplan` places; none if nextpnr places them well.
    """

    name: str
    family: Family
    resources: tuple[Resource, ...]
    synthesis: tuple[str, ...]
    placer: str
    placer_options: tuple[str, ...]
    routed_option: str
    routed: str
    constraints: str
    constraints_options: tuple[str, ...]
    packer: str
    packer_options: tuple[str, ...]
    bitstream: str
    part: Mapping[str, str] = field(default_factory=dict)
    pinless_options: tuple[str, ...] = ()
    pinless_constraints: str | None = None
    hard_blocks: tuple[HardBlocks, ...] = ()

    @property
    def placement(self) -> list[str]:
        """The placer's options for this package and speed grade."""
        return [option.format(**self.part) for option in self.placer_options]

    def usage(self, cells: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Name, used and available of every resource, for a netlist by its cells of each type."""
        return [(resource.name, resource.used(cells), resource.available) for resource in self.resources]

    def excess(self, cells: Mapping[str, int]) -> list[str]:
        """The resources of which a netlist takes too many, as "DSP 160 of 156"."""
        return [f"{name} {used} of {available}" for name, used, available in self.usage(cells) if used > available]


def _ecp5(
    name: str,
    option: str,
    *,
    speed: str,
    luts: int,
    columns: tuple[int, ...],
    multiplier_rows: tuple[int, ...],
    block_rows: tuple[int, ...],
    placement: tuple[str, ...] = (),
) -> Device:
    # Of each nine columns with DSP blocks, four have a multiplier; the same holds for block RAMs. Columns and rows are
    # those of Project Trellis' database (tiles MIB_DSP0 and MIB_EBR0).
    multipliers = HardBlocks(
        "MULT18X18D", columns, multiplier_rows, ((0, "MULT18_0"), (1, "MULT18_1"), (4, "MULT18_4"), (5, "MULT18_5"))
    )
    blocks = HardBlocks("DP16KD", columns, block_rows, ((0, "EBR0"), (2, "EBR1"), (4, "EBR2"), (6, "EBR3")))
    return Device(
        name=name,
        family=Family.ECP5,
        # Lattice FPGA-DS-02012, "ECP5 and ECP5-5G Family Data Sheet", table 1.1. A carry cell uses up two
        # LUT4; a LUT memory uses up four, and the two beside them, which drive it.
        resources=(
            Resource("LUT", luts, {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}),
            Resource("FF", luts, {"TRELLIS_FF": 1}),
            Resource("DSP", len(multipliers.sites()), {"MULT18X18D": 1, "MULT9X9D": 0.5}),
            Resource("block RAM", len(blocks.sites()), {"DP16KD": 1, "PDPW16KD": 1}),
        ),
        # splitnets: YosysHQ/yosys issue 4349 (equal names of wires stop it after technology mapping).
        synthesis=(
            "synth_ecp5 -top top -run :map_luts",
            "splitnets",
            "synth_ecp5 -top top -run map_luts: -json top.json",
        ),
        placer="nextpnr-ecp5",
        placer_options=(option, "--package", "{package}", "--speed", "{speed}", *placement),
        part={"package": "CABGA381", "speed": speed},
        routed_option="--textcfg",
        routed="top.config",
        constraints="top.lpf",
        constraints_options=("--lpf", "top.lpf"),
        packer="ecppack",
        packer_options=("--compress", "--input", "{routed}", "--bit", "{bitstream}"),
        bitstream=".bit",
        pinless_options=("--lpf-allow-unconstrained",),
        hard_blocks=(multipliers, blocks),
    )


def _artix7(name: str, *, luts: int, multipliers: int, blocks: int) -> Device:
    return Device(
        name=name,
        family=Family.XILINX,
        # AMD DS180, "7 Series FPGAs Data Sheet: Overview", table 4: a slice has four LUTs and eight flip-flops. Yosys
        # counts LUT memories by cells: those of 64 words by one bit take two LUTs, those of 32 by six or 64 by three
        # take four.
        resources=(
            Resource("LUT", luts, {"LUT": 1, "INV": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "SRL": 1}),
            Resource("FF", 2 * luts, {"FD": 1}),
            Resource("DSP", multipliers, {"DSP48E1": 1}),
            Resource("block RAM", blocks, {"RAMB36E1": 1, "RAMB18E1": 0.5}),
        ),
        synthesis=("synth_xilinx -family xc7 -flatten -abc9 -noiopad -noclkbuf -top top", "write_json top.json"),
        placer="",
        placer_options=(),
        routed_option="",
        routed="",
        constraints="top.xdc",
        constraints_options=(),
        packer="",
        packer_options=(),
        bitstream=".bit",
    )


#: The FPGAs by the names that Amaranth's platforms give them (Gowin: the part without its package).
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _ecp5(
            "LFE5U-25F",
            "--25k",
            speed="6",
            luts=24_288,
            columns=(4, 13, 22, 33, 42, 51, 60),
            multiplier_rows=(13,),
            block_rows=(25, 37),
            # Four fifths of the flip-flops are taken; then the default placer does not come to an end.
            placement=("--placer", "static"),
        ),
        _ecp5(
            "LFE5U-85F",
            "--85k",
            speed="6",
            luts=83_640,
            columns=(4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114),
            multiplier_rows=(10, 34, 58),
            block_rows=(22, 46, 70, 82),
            # All multipliers and nearly all block RAMs are taken; then this makes shorter wires than the default
            # placer.
            placement=("--placer", "static"),
        ),
        _ecp5(
            "LFE5UM5G-45F",
            "--um5g-45k",
            speed="8",
            luts=43_848,
            columns=(4, 13, 22, 31, 42, 51, 60, 69, 78),
            multiplier_rows=(22, 46),
            block_rows=(10, 34, 58),
            # Two fifths of the logic stay free, so the cells can be spread (the default is 0.9).
            placement=("--placer-heap-beta", "0.75"),
        ),
        Device(
            name="iCE40UP5K",
            family=Family.ICE40,
            # Lattice FPGA-DS-02008, "iCE40 UltraPlus Family Data Sheet", table 2.1. Logic cells are a LUT, a carry and
            # a flip-flop each; nextpnr says how many are taken, the netlist only how many LUTs and flip-flops go into
            # them.
            resources=(
                Resource("LUT", 5_280, {"SB_LUT4": 1}),
                Resource("FF", 5_280, {"SB_DFF": 1}),
                Resource("DSP", 8, {"SB_MAC16": 1}),
                Resource("block RAM", 30, {"SB_RAM40_4K": 1}),
                Resource("SPRAM", 4, {"SB_SPRAM256KA": 1}),
            ),
            # Not -dsp: its pass takes every SB_MAC16 for one product of 16 x 16 bits, so it would turn those that are
            # two products of 8 x 8 into one.
            synthesis=("synth_ice40 -device u -spram -top top -json top.json",),
            placer="nextpnr-ice40",
            placer_options=("--up5k", "--package", "{package}"),
            part={"package": "sg48"},
            routed_option="--asc",
            routed="top.asc",
            constraints="top.pcf",
            constraints_options=("--pcf", "top.pcf"),
            packer="icepack",
            packer_options=("{routed}", "{bitstream}"),
            bitstream=".bin",
        ),
        Device(
            name="GW2AR-18",
            family=Family.GOWIN,
            # Gowin DS226, "GW2AR series of FPGA Products Data Sheet", table 1-1: 20,736 LUT4, 15,552 flip-flops, 48
            # multipliers 18 x 18, of which each is two of 9 x 9, 46 blocks of 18 Kbit. An adder bit uses up one
            # LUT, a LUT memory four.
            resources=(
                Resource("LUT", 20_736, {"LUT": 1, "ALU": 1, "RAM16S": 4, "ALU54D": 0}),
                Resource("FF", 15_552, {"DFF": 1}),
                Resource(
                    "DSP", 48, {"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4, "MULTADDALU18X18": 2, "MULTALU": 2, "PADD": 0}
                ),
                Resource("block RAM", 46, {"SDP": 1, "SP": 1, "DP": 1, "pROM": 1}),
            ),
            # The accumulators of its preset go into LUT memory: they are shallow, and the blocks are needed for
            # weights.
            synthesis=(
                'setattr -set ram_style "distributed" *.accumulators/m:*',
                "synth_gowin -family gw2a -top top -json top.json",
            ),
            placer="nextpnr-himbaechel-gowin",
            placer_options=("--device", "{part}", "--vopt", "family=GW2A-18C"),
            part={"part": "GW2AR-LV18QN88C8/I7"},
            routed_option="--write",
            routed="top.routed.json",
            constraints="top.cst",
            constraints_options=("--vopt", "cst=top.cst"),
            packer="gowin_pack",
            packer_options=("-d", "GW2A-18C", "-o", "{bitstream}", "{routed}"),
            bitstream=".fs",
            # nextpnr for Gowin chooses no pins.
            pinless_constraints='IO_LOC "clock" 4;\nIO_LOC "i" 15;\nIO_LOC "o" 16;\n',
        ),
        _artix7("XC7A100T", luts=63_400, multipliers=240, blocks=135),
        _artix7("XC7A200T", luts=134_600, multipliers=740, blocks=365),
    )
}


#: nextpnr's names for the packages of the ECP5, by Lattice's.
_ECP5_PACKAGES = {"BG256": "CABGA256", "MG285": "CSFBGA285", "BG381": "CABGA381", "BG554": "CABGA554", "BG756": "CABGA756"}

#: What ``Device.part`` is for a platform, by family.
_PARTS: dict[Family, Callable[[Any], dict[str, str]]] = {
    Family.ECP5: lambda platform: {"package": _ECP5_PACKAGES[platform.package], "speed": platform.speed},
    Family.ICE40: lambda platform: {"package": platform.package.lower()},
    Family.GOWIN: lambda platform: {"part": platform.part},
}


def device_of(platform: Any) -> Device:
    """The FPGA of an Amaranth platform, in its package and speed grade.

    Raises ``ValueError`` if there is no description of the FPGA, or nextpnr's name for its package is not known here.
    """
    device = find_device(getattr(platform, "device", None) or str(platform.family).removesuffix("C"))
    try:
        return replace(device, part=_PARTS[device.family](platform))
    except KeyError as error:
        raise ValueError(f"{device.name}: what nextpnr calls {error} is missing in {__name__}") from None


def find_device(name: str) -> Device:
    """The FPGA of a name, in the part that blocks alone are measured in.

    Raises ``ValueError`` if there is no description of it.
    """
    if name not in DEVICES:
        raise ValueError(f"no description of the FPGA {name!r}: choose one of {', '.join(sorted(DEVICES))}")
    return DEVICES[name]
