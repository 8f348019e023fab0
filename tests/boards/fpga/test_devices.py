"""Which FPGA a platform has, and in which package and speed grade nextpnr is asked for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from amaranth_boards.ecpix5 import ECPIX545Platform
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform

from systola_boards.catalogue.tang_nano_20k import TangNano20kPlatform
from systola_boards.fpga.devices import device_of


@pytest.mark.parametrize(
    ("platform", "options"),
    [
        (OrangeCrabR0_2_25FPlatform, "--25k --package CSFBGA285 --speed 8 --placer static"),
        (ECPIX545Platform, "--um5g-45k --package CABGA554 --speed 8 --placer-heap-beta 0.75"),
        (ICEBreakerPlatform, "--up5k --package sg48"),
        (TangNano20kPlatform, "--device GW2AR-LV18QN88C8/I7 --vopt family=GW2A-18C"),
    ],
)
def test_package_and_speed_are_the_platforms(platform: type, options: str) -> None:
    assert " ".join(device_of(platform()).placement) == options


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no description of the FPGA 'LFE5U-1F': choose one of .*, LFE5U-25F, "):
        device_of(SimpleNamespace(device="LFE5U-1F", package="BG381", speed="6"))
    with pytest.raises(ValueError, match=r"LFE5U-25F: what nextpnr calls 'TG144' is missing in systola_boards\.fpga\.devices"):
        device_of(SimpleNamespace(device="LFE5U-25F", package="TG144", speed="6"))
