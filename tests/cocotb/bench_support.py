"""What the cocotb benches share: the configuration, reset, packed ports, corner values and delay lines.

A bench drives at the falling edge of the clock and samples in the read-only phase after it: what it sees there is what
the next rising edge sees, in whatever order the simulator runs the bench's processes.
"""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from systola_firmware.spec.config import Config

#: Environment variable with the fields of the bench's configuration, as JSON.
CONFIG_VARIABLE = "SYSTOLA_BENCH_CONFIG"
CLOCK_NS = 10

_CORNERS = (-128, 127, -1, 0)


def bench_config() -> Config:
    """The configuration that the runner has built."""
    return Config(**json.loads(os.environ[CONFIG_VARIABLE]))


async def start(dut: Any, **inputs: int) -> None:
    """Set inputs, start the clock and reset the block; returns at a falling edge."""
    for name, value in inputs.items():
        getattr(dut, name).value = value
    dut.rst.value = 1
    Clock(dut.clk, CLOCK_NS, unit="ns").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


def pack(layout: Any, fields: Mapping[str, Any]) -> int:
    """Bits of an Amaranth layout."""
    return int(layout.const(fields).as_bits())


def int8_values(rng: random.Random, count: int) -> npt.NDArray[np.int8]:
    """Random int8, a third of them corner values."""
    return np.array([rng.choice(_CORNERS) if rng.random() < 1 / 3 else rng.randint(-128, 127) for _ in range(count)], np.int8)


def bits_of(values: npt.NDArray[Any]) -> int:
    """A packed vector, element 0 in the low bits."""
    return int.from_bytes(values.tobytes(), "little")


class DelayLine:
    """A memory's answers: what goes in comes out ``latency`` cycles later. Once a cycle take the answer, then put the
    request's."""

    def __init__(self, latency: int) -> None:
        self._line: deque[int | None] = deque([None] * latency)

    def take(self) -> int | None:
        """The answer of this cycle, if any."""
        return self._line.popleft()

    def put(self, answer: int | None) -> None:
        """The answer to this cycle's request."""
        self._line.append(answer)
