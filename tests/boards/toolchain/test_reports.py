"""What is read from the reports of Yosys and nextpnr, and how cells count."""

from __future__ import annotations

import pytest
from support.tools.fpga_tools import ROUTE, STATISTICS

from systola_boards.fpga.devices import DEVICES
from systola_boards.toolchain.reports import cells_of, route_of

CELLS = {"CCU2C": 151, "L6MUX21": 71, "LUT4": 655, "MULT18X18D": 3, "PFUMX": 155, "TRELLIS_FF": 551}


def test_cells() -> None:
    assert cells_of(STATISTICS) == CELLS
    for wrong in ("", "{}", "[1]"):
        with pytest.raises(ValueError, match="these are not the statistics of Yosys"):
            cells_of(wrong)


def test_route() -> None:
    route = route_of(ROUTE, 7)
    assert (route.seed, route.path_from, route.path_to) == (7, "a_sum_TRELLIS_FF_Q", "every[23]_TRELLIS_FF_Q")
    assert [clock.name for clock in route.clocks] == ["clk", "other"]  # the one with the least to spare is first
    assert route.fmax_mhz == pytest.approx(140.984, abs=1e-3)
    assert route.slack == pytest.approx(140.984 / 90.0009, abs=1e-4)
    assert (route.logic_ns, route.routing_ns, route.path_ns) == pytest.approx((4.45, 2.65, 7.10))
    assert route.utilization == {"MULT18X18D": 3}
    for wrong in ('{"critical_paths": [], "fmax": {}, "utilization": {}}', ROUTE.replace('"posedge clk", "to"', '"x", "to"')):
        with pytest.raises(ValueError, match="no path between registers"):
            route_of(wrong, 1)


def test_usage_ecp5() -> None:
    device = DEVICES["LFE5U-85F"]
    used = {name: (used, available) for name, used, available in device.usage(CELLS)}
    assert used == {"LUT": (655 + 302, 83_640), "FF": (551, 83_640), "DSP": (3, 156), "block RAM": (0, 208)}
    assert device.excess(CELLS) == []
    assert device.excess(CELLS | {"DP16KD": 208, "MULT18X18D": 156}) == []
    assert device.excess(CELLS | {"DP16KD": 209, "MULT18X18D": 160}) == ["DSP 160 of 156", "block RAM 209 of 208"]
    assert device.usage({"MULT9X9D": 3})[2][1] == 2  # two of nine bits are one of eighteen


def test_usage_of_the_other_families() -> None:
    cells = {"SB_LUT4": 10, "SB_DFF": 1, "SB_DFFESR": 2, "SB_CARRY": 5, "SB_MAC16": 8, "SB_RAM40_4K": 29, "SB_SPRAM256KA": 5}
    assert [used for _, used, _ in DEVICES["iCE40UP5K"].usage(cells)] == [10, 3, 8, 29, 5]
    assert DEVICES["iCE40UP5K"].excess(cells) == ["SPRAM 5 of 4"]
    gowin = {"LUT1": 1, "LUT4": 2, "ALU": 4, "RAM16SDP4": 2, "DFFRE": 7, "MULT9X9": 3, "MULT18X18": 1, "SDPX9B": 1, "DPB": 2}
    assert [used for _, used, _ in DEVICES["GW2AR-18"].usage(gowin | {"MUX2_LUT5": 9, "rPLL": 1})] == [15, 7, 3, 3]
