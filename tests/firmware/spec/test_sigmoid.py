"""The sigmoid table is the one its docstring describes."""

from __future__ import annotations

import math
import struct
import zlib
from collections import Counter

from systola_firmware.spec.sigmoid import SIGMOID_TABLE


def test_is_the_sigmoid_but_for_44_entries() -> None:
    exact = [round(65536 / (1 + math.exp(-index / 24))) for index in range(256)]
    differences = Counter(entry - value for entry, value in zip(SIGMOID_TABLE, exact, strict=True))
    assert differences == {0: 212, 1: 44}


def test_the_right_entries_are_one_higher() -> None:
    # The digest is of the table that was compared with TFLM's.
    assert zlib.crc32(struct.pack("<256H", *SIGMOID_TABLE)) == 0xB84F6AB4
