"""Both LSTM cells against their model, driver and monitor apart: gaps, changing constants, recurrences and resets.

Rounding is left to ``tests/hdl/full/post/lstm/test_cell.py``, which runs a thousand times as many steps.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from bench_support import bench_config, pack, start
from cocotb.triggers import FallingEdge, ReadOnly
from support.benches.lstm_steps import RESULT, Constants, expected, random_constants, random_items

from systola_firmware.spec.isa import CELL_EXPONENT_MAXIMUM, CELL_EXPONENT_MINIMUM
from systola_hdl.full.post.lstm.cell import LSTM_CONSTANTS, LstmCell
from systola_hdl.full.post.lstm.cell_serial import SerialLstmCell

CELL = {"pipelined": LstmCell, "serial": SerialLstmCell}[bench_config().name]
Items = npt.NDArray[np.void]


class Bench:
    """Offers items with gaps, while a monitor compares what comes out with what the model says, in value, order and
    time."""

    def __init__(self, dut: Any, rng: np.random.Generator) -> None:
        self.dut, self.rng = dut, rng
        self.cycle = 0
        self.constants: Constants | None = None
        self.awaited: deque[tuple[int, np.void]] = deque()  # cycle of the item, result
        self.found: list[np.void] = []

    async def start(self) -> None:
        await start(self.dut, i_valid=0, i_payload=0, constants=0)
        self._monitor = cocotb.start_soon(self._watch())

    async def step(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)
            self.cycle += 1

    async def configure(self, exponent: int) -> Constants:
        """Other constants, which an empty cell allows."""
        await self.drain()
        constants = random_constants(self.rng, exponent)
        self.constants = constants
        self.dut.constants.value = pack(LSTM_CONSTANTS, constants.fields())
        return constants

    async def offer(self, items: Items, longest_gap: int) -> None:
        """One after the other, at full rate if ``longest_gap`` is 0."""
        assert self.constants is not None
        for item, result in zip(items, expected(items, self.constants), strict=True):
            self.dut.i_valid.value = 1
            self.dut.i_payload.value = int.from_bytes(item.tobytes(), "little")
            self.awaited.append((self.cycle, result))
            await self.step()
            self.dut.i_valid.value = 0
            self.dut.i_payload.value = int.from_bytes(self.rng.bytes(item.nbytes), "little")
            await self.step(CELL.interval - 1 + int(self.rng.integers(0, longest_gap + 1)))

    async def drain(self) -> None:
        await self.step(CELL.latency + 1)
        assert not self.awaited, "results are missing"

    async def _watch(self) -> None:
        while True:
            await ReadOnly()
            assert not self.awaited or self.cycle - self.awaited[0][0] <= CELL.latency, "a result is late"
            if self.dut.o_valid.value == 1:
                assert self.awaited, "a result without an item"
                begin, wanted = self.awaited.popleft()
                assert self.cycle - begin > CELL.latency - CELL.interval, "a result is early"
                found = np.frombuffer(int(self.dut.o_payload.value).to_bytes(RESULT.itemsize, "little"), RESULT)[0]
                assert found == wanted, f"{found} instead of {wanted} with {self.constants}"
                self.found.append(found)
            await FallingEdge(self.dut.clk)


@cocotb.test()
async def every_scale_at_full_rate_and_with_gaps(dut: Any) -> None:
    rng = np.random.default_rng(1)
    bench = Bench(dut, rng)
    await bench.start()
    for exponent in range(CELL_EXPONENT_MINIMUM, CELL_EXPONENT_MAXIMUM + 1):
        for longest_gap in (0, 2 * CELL.interval):
            await bench.configure(exponent)
            await bench.offer(random_items(rng, 150, exponent), longest_gap)
    await bench.drain()
    assert len(bench.found) == 7 * 2 * 150


@cocotb.test()
async def single_items(dut: Any) -> None:
    """Each alone in the cell, in every phase of a schedule."""
    rng = np.random.default_rng(2)
    bench = Bench(dut, rng)
    await bench.start()
    await bench.configure(-11)
    for item in random_items(rng, 30, -11):
        await bench.offer(np.array([item]), 0)
        await bench.step(int(rng.integers(0, 7)))
        await bench.drain()
    assert len(bench.found) == 30


@cocotb.test()
async def cell_states_of_a_recurrence(dut: Any) -> None:
    """New cell states go back into the next time step."""
    rng = np.random.default_rng(3)
    bench = Bench(dut, rng)
    await bench.start()
    for exponent in (CELL_EXPONENT_MINIMUM, -12, CELL_EXPONENT_MAXIMUM):
        constants = await bench.configure(exponent)
        units = 8
        wanted = np.zeros(units, np.int16)
        for step in range(12):
            items = random_items(rng, units, exponent)
            items["cell"] = [result["cell"] for result in bench.found[-units:]] if step else 0
            np.testing.assert_array_equal(items["cell"], wanted)
            wanted = expected(items, constants)["cell"]
            await bench.offer(items, 3)
            await bench.drain()


@cocotb.test()
async def reset_empties_the_cell(dut: Any) -> None:
    rng = np.random.default_rng(4)
    bench = Bench(dut, rng)
    await bench.start()
    await bench.configure(-12)
    for cycles in range(0, CELL.latency + CELL.interval, 3):
        await bench.offer(random_items(rng, 1 + CELL.latency // CELL.interval, -12), 0)
        await bench.step(cycles)
        dut.rst.value = 1
        await bench.step()
        bench.awaited.clear()
        dut.rst.value = 0
        await bench.drain()
    await bench.offer(random_items(rng, 20, -12), 0)
    await bench.drain()
    assert len(bench.found) >= 20
