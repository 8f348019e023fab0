"""The toolchain itself: the iCEBreaker's bitstream to the end, and the synthesis of a small preset for the ECP5.

Both are kept in the cache, by their content; from nothing they take minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from systola_boards.bitstream import build
from systola_boards.catalogue import find_board
from systola_boards.flow import synthesize
from systola_boards.reports import cells_of
from systola_boards.synthesis import measure
from systola_boards.toolchain import SynthesisError, find_tool
from systola_firmware.config import preset

#: Every uncompressed bitstream of an iCE40UP5K is as long, and begins so.
ICE40_BYTES, ICE40_BEGINNING = 104_090, bytes.fromhex("ff0000ff7eaa997e")


@pytest.mark.timeout(3000)
def test_icebreaker_to_the_end(tmp_path: Path) -> None:
    board = find_board("icebreaker")
    result = build(board, tmp_path, [board.seed])
    assert result.met
    assert {clock.constraint_mhz for clock in result.route.clocks} == {pytest.approx(24, rel=1e-4)}
    usage = {name: used for name, used, _ in board.device.usage(result.cells)}
    assert usage["DSP"] == 8
    assert usage["SPRAM"] == 4
    bitstream = (tmp_path / "icebreaker.bin").read_bytes()
    assert len(bitstream) == ICE40_BYTES
    assert bitstream.startswith(ICE40_BEGINNING)


@pytest.mark.timeout(3000)
def test_small_preset_on_ecp5(tmp_path: Path) -> None:
    result = measure(preset("tiny-4x4"), "board", tmp_path, route=False)
    usage = {name: used for name, used, _ in result.device.usage(result.cells)}
    assert result.device.excess(result.cells) == []
    assert usage["DSP"] >= 16 + 3  # the array, one requantizer
    assert usage["block RAM"] >= (32 + 64) // 2  # activations and weights


def test_yosys_refuses_what_is_no_design(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="failed with exit code 1, see "):
        synthesize(find_board("icebreaker").device, "nonsense", tmp_path, find_tool("yosys"))
    with pytest.raises(ValueError, match="not the statistics"):
        cells_of((tmp_path / "yosys.log").read_text())
