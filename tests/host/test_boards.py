"""`systola boards`: what it lists, and that it needs no gateware for it."""

from __future__ import annotations

import os
import subprocess
import sys

from systola.boards import known_boards
from systola_boards.catalogue.boards import BOARDS
from systola_boards.catalogue.prepared import PREPARED, STATE
from systola_firmware.spec.presets import PRESETS

STATES = {"built in CI", "timing met", "only simulated"}


def test_boards_are_described_in_full() -> None:
    boards = known_boards()
    assert [board.name for board in boards] == [*BOARDS, *PREPARED]
    for board in boards:
        config = PRESETS[board.preset]
        assert board.array == f"{config.rows}×{config.columns}"
        if board.name in PREPARED:
            assert board.state == STATE
            assert board.device.startswith("pcie:")
        else:
            assert board.state in STATES
            assert board.device.startswith("serial:/dev/tty")
        assert board.clock_mhz > 0


def test_the_command_lists_them_without_amaranth() -> None:
    script = """
import sys
from systola.commands.cli import app
app(["boards"], standalone_mode=False)
assert not [name for name in sys.modules if name.partition(".")[0] in ("amaranth", "systola_boards", "systola_hdl")]
"""
    wide = os.environ | {"COLUMNS": "120"}  # a narrow terminal folds the longest state
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=wide)
    for board in known_boards():
        line = next(line for line in result.stdout.splitlines() if board.name in line)
        for part in (board.fpga, board.array, f"{board.clock_mhz:g} MHz", board.state):
            assert part in line
        assert board.device in result.stdout
