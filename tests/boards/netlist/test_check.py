# amaranth: UnusedElaboratable=no
"""The netlist check: synthesized engines run the digits model through their pins, and a changed cell is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.lib.wiring import Component
from typer.testing import CliRunner

from systola.errors import LinkError
from systola_boards.blocks.catalogue import device_for
from systola_boards.fpga.devices import DEVICES
from systola_boards.netlist.cells import Fault, faulty
from systola_boards.netlist.check import FAMILIES, CellNetlist, app, check, check_config, open_netlist, synthesize_netlist
from systola_boards.toolchain.flow import synthesize
from systola_boards.toolchain.programs import find_tool
from systola_firmware.spec.config import Config
from systola_hdl.cells.families import Family, platform_of
from systola_hdl.cells.multiplier import Multiplier
from systola_hdl.cells.multiplier_pair import MultiplierPair

#: Preset and family of each check, of which the quick tests make one.
CHECKS = [
    pytest.param(("icebreaker", Family.ICE40), id="icebreaker", marks=pytest.mark.full),
    pytest.param(("tiny-4x4", Family.ECP5), id="tiny-4x4"),
]


#: Seconds for a test that may have to synthesise and to compile, on a machine with other work.
PATIENCE = 1800


@pytest.fixture(scope="module", params=CHECKS)
def synthesized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, CellNetlist]:
    preset, family = request.param
    config = check_config(preset)
    return config, synthesize_netlist(config, family, tmp_path_factory.mktemp(preset))


@pytest.mark.timeout(PATIENCE)
def test_netlist_answers_as_the_golden_model(synthesized: tuple[Config, CellNetlist]) -> None:
    config, netlist = synthesized
    with open_netlist(config, netlist) as device:
        assert device.config.replace(name=config.name) == config
        assert check(device, config, inputs=1).right == [True]


def test_the_netlist_fits_its_fpga(synthesized: tuple[Config, CellNetlist]) -> None:
    config, netlist = synthesized
    device = device_for(config.name)
    if device.family is not netlist.family:
        device = FAMILIES[netlist.family]
    assert device.excess(netlist.cells) == []
    usage = {name: used for name, used, _ in device.usage(netlist.cells)}
    if netlist.family is Family.ECP5:
        assert usage["DSP"] >= config.rows * config.columns + 3  # the array, one requantizer
        assert usage["block RAM"] >= (config.activation_bytes + config.weight_bytes) // 2048


@pytest.mark.timeout(PATIENCE)
def test_changed_multiplier_answers_wrong(synthesized: tuple[Config, CellNetlist]) -> None:
    config, netlist = synthesized
    with open_netlist(config, netlist, Fault.MULTIPLIER) as device:
        assert not all(check(device, config, inputs=3).right)


@pytest.mark.timeout(PATIENCE)
def test_changed_look_up_table_is_noticed(synthesized: tuple[Config, CellNetlist]) -> None:
    """Its table is the checksum's: the driver throws all frames away."""
    config, netlist = synthesized
    with pytest.raises(LinkError), open_netlist(config, netlist, Fault.LUT) as device:
        check(device, config, inputs=1)


@pytest.mark.parametrize(
    ("device", "component", "cell", "settings"),
    [
        ("iCE40UP5K", MultiplierPair(), "SB_MAC16", {"MODE_8x8": 1, "A_REG": 1, "B_REG": 1, "TOP_8x8_MULT_REG": 1}),
        ("LFE5U-25F", Multiplier(), "MULT18X18D", {"REG_INPUTB_CE": "CE1", "REG_OUTPUT_CLK": "CLK0"}),
        ("GW2AR-18", Multiplier(), "MULT9X9", {"AREG": 1, "BREG": 0, "OUT_REG": 1}),
    ],
)
def test_synthesis_keeps_multipliers(
    device: str, component: Component, cell: str, settings: dict[str, int | str], tmp_path: Path
) -> None:
    fpga = DEVICES[device]
    text = rtlil.convert(component, name="top", emit_src=False, platform=platform_of(fpga.family))
    netlist = synthesize(fpga, text, tmp_path, find_tool("yosys"))
    cells = json.loads(netlist.json)["modules"]["top"]["cells"].values()
    (found,) = (instance["parameters"] for instance in cells if instance["type"] == cell)
    assert {name: found[name] if isinstance(value, str) else int(found[name], 2) for name, value in settings.items()} == settings


#: Two cells as Yosys writes them.
CELLS = r"""module top(clk);
  LUT4 #(
    .INIT(16'h6996)
  ) \link.crc[0]_LUT4_Z  (
    .A(_1_),
    .B(1'h0),
    .C(\odd$name[2] ),
    .D(_4_),
    .Z(_5_)
  );
  MULT18X18D #(
    .GSR("DISABLED")
  ) _7_ (
    .A16(_1_),
    .A17(_2_),
    .A2(_3_),
    .P0(_6_)
  );
endmodule
"""


def test_faults_change_one_cell() -> None:
    table = faulty(CELLS, Family.ECP5, Fault.LUT, "switch")
    assert ".Z(changed_lut)" in table
    inputs = " | ".join(("(_1_ )", "(1'h0 )", r"(\odd$name[2] )", "(_4_ )"))
    assert f"assign _5_ = changed_lut ^ (switch & ~({inputs}));" in table
    assert table.count("_5_") == 1
    operand = faulty(CELLS, Family.ECP5, Fault.MULTIPLIER, "switch")
    assert operand.replace("_2_  &", "_2_ &") == CELLS.replace(".A17(_2_)", ".A17(_2_ & ~switch)")


def test_missing_cell() -> None:
    with pytest.raises(ValueError, match="no SB_LUT4 in whose name is 'crc'"):
        faulty(CELLS, Family.ICE40, Fault.LUT, "switch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--family", "spartan"], "unknown family 'spartan': choose one of ecp5, ice40"),
        (["--fault", "wire"], "'wire' is not a valid Fault"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output
