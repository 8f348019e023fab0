"""A whole recurrence on the engine, hand-assembled, against the interpreter: memory, counters, a second run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import SimulatorContext
from support.benches.bus_driver import BusDriver
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, encode_program
from systola_firmware.spec.memory_map import COUNTERS, Control, Region, Status, register_address, split_status
from systola_firmware.spec.presets import preset
from systola_hdl.full.engine import Engine
from systola_sim.machine.interpreter import execute

SMALL = {"activation_bytes": 512, "weight_bytes": 1024, "program_words": 64}


@dataclass(frozen=True)
class Network:
    """Sizes of a layer; addresses and program for a configuration."""

    config: Config
    steps: int
    batch: int
    features: int
    hidden: int

    @property
    def groups(self) -> int:
        return -(-self.hidden // (self.config.columns // 4))

    def tiles(self, length: int) -> int:
        return -(-length // self.config.rows)

    @property
    def padded(self) -> int:
        """Hidden units with those that fill the last group."""
        return self.groups * self.config.columns // 4

    @property
    def addresses(self) -> dict[str, int]:
        """Inputs; hidden states, time-major, the initial one first; input parts; cells. Bytes to read beyond a vector
        are there."""
        rows = self.steps * self.batch
        sizes = {
            "inputs": rows * self.features + self.config.rows,
            "hidden": (rows + self.batch) * self.hidden + self.config.rows,
            "parts": rows * 8 * self.padded,
            "cells": self.batch * 2 * self.padded,
        }
        starts = np.cumsum([3, *sizes.values()])
        assert starts[-1] <= self.config.activation_bytes
        return dict(zip(sizes, starts.tolist(), strict=False))

    def weights(self, rng: np.random.Generator) -> tuple[bytes, dict[str, int]]:
        """What the weight memory begins with, and the word where each part does."""
        config, columns = self.config, self.config.columns

        def matrix(inputs: int) -> npt.NDArray[np.int8]:
            values = np.zeros((self.groups, self.tiles(inputs) * config.rows, columns), np.int8)
            values[:, :inputs] = rng.integers(-128, 128, (self.groups, inputs, columns))
            return values

        def factors() -> bytes:
            multipliers, shifts = (
                rng.integers(1 << 30, 1 << 31, columns).astype("<i4"),
                rng.integers(-6, 0, columns).astype(np.int8),
            )
            return multipliers.tobytes() + shifts.tobytes() + bytes(config.weight_word_bytes - columns)

        biases = rng.integers(-3000, 3000, (2, self.groups, columns)).astype("<i4")
        inputs = b"".join(bias.tobytes() + factors() for bias in biases[0])
        recurrent = factors() + biases[1].tobytes()
        parts = {
            "input": matrix(self.features).tobytes(),
            "recurrent": matrix(self.hidden).tobytes(),
            "input parameters": inputs,
            "recurrent parameters": recurrent,
        }
        words = np.cumsum([0, *(len(part) for part in parts.values())]) // config.weight_word_bytes
        return b"".join(parts.values()), dict(zip(parts, words.tolist(), strict=False))

    def program(self, words: dict[str, int], exponent: int, clip: int) -> list[Operation]:
        at, columns, rows = self.addresses, self.config.columns, self.config.rows
        units = columns // 4
        ones = {"y_count": 1, "k1_count": 1, "k2_count": 1, "block_count": 1, "group_count": self.groups}
        positions = self.steps * self.batch
        last_units = self.hidden - (self.groups - 1) * units
        inputs = {"source": at["inputs"], "x_count": positions, "x_step": self.features, "k0_count": self.tiles(self.features)}
        parts = {"destination": at["parts"], "x_count": positions, "x_step": 8 * self.padded, "group_step": 2 * columns, "wide": 1}
        recurrent = {"source": at["hidden"], "recurrent": 1, "x_count": self.batch, "x_step": self.hidden, "k0_step": rows}
        recurrent |= {"k0_count": self.tiles(self.hidden), "block_count": self.steps, "block_step": self.batch * self.hidden}
        cell = {
            "hidden": at["hidden"] + self.batch * self.hidden,
            "preactivation": at["parts"],
            "cell": at["cells"],
            "x_count": self.batch,
            "x_step": self.hidden,
            "x_step_preactivation": 8 * self.padded,
            "x_step_cell": 2 * self.padded,
            "group_count": self.groups,
            "block_count": self.steps,
            "block_step": self.batch * self.hidden,
            "block_step_preactivation": self.batch * 8 * self.padded,
            "last_units": last_units,
            "zero_point": -7,
            "multiplier": 1_700_000_000,
            "shift": -23,
            "cell_exponent": exponent,
            "clip": clip,
        }
        parts |= {"last_columns": 4 * last_units, "parameters": words["input parameters"], "per_channel": 1}
        loops = {name: value for name, value in ones.items() if not name.startswith("k")}
        return [
            Operation(Opcode.MATMUL, ones | inputs | {"k0_step": rows, "weights": words["input"]}),
            Operation(Opcode.POST, loops | parts),
            Operation(Opcode.MATMUL, ones | recurrent | {"weights": words["recurrent"]}, mark=True),
            Operation(Opcode.LSTM, cell | {"parameters": words["recurrent parameters"]}, mark=True),
            Operation(Opcode.END, {}),
        ]


NETWORKS = {
    "4x4": Network(preset("tiny-4x4").replace(**SMALL), steps=3, batch=2, features=3, hidden=5),
    "8x4": Network(preset("tiny-8x4").replace(**SMALL), steps=4, batch=3, features=3, hidden=3),
}


@pytest.mark.parametrize("name", [pytest.param("4x4", marks=pytest.mark.full), "8x4"])
def test_recurrence(name: str) -> None:
    network = NETWORKS[name]
    config = network.config
    rng = np.random.default_rng(len(name))
    weights, words = network.weights(rng)
    memory = np.frombuffer(weights.ljust(config.weight_bytes, b"\0"), np.int8)
    program = network.program(words, exponent=-11, clip=20000)
    before = rng.integers(-128, 128, config.activation_bytes).astype(np.int8)
    expected = [before.copy()]
    for _ in range(2):  # the second run goes on from the states that the first left
        after = expected[-1].copy()
        assert execute(config, encode_program(program), after, memory).error is ErrorCode.NONE
        expected.append(after)
    hidden = slice(network.addresses["hidden"], network.addresses["parts"])
    assert len(np.unique(expected[-1][hidden])) > 10, "the test shows something"
    dut = Engine(config, watchdog_cycles=2000)
    bus = BusDriver(dut.bus)

    async def bench(ctx: SimulatorContext) -> None:
        await bus.write_bytes(ctx, Region.ACTIVATION.base, before.tobytes())
        await bus.write_bytes(ctx, Region.WEIGHT.base, weights)
        await bus.write_words(ctx, Region.PROGRAM.base, encode_program(program))
        for after in expected[1:]:
            await bus.write(ctx, register_address("control"), Control.START)
            status, code = Status.BUSY, ErrorCode.NONE
            while status & Status.BUSY:
                status, code = split_status(await bus.read(ctx, register_address("status")))
            assert (status, code) == (Status.DONE, ErrorCode.NONE)
            assert await bus.read_bytes(ctx, Region.ACTIVATION.base, config.activation_bytes) == after.tobytes()
            counters = {counter: await bus.read(ctx, register_address(f"counter_{counter}")) for counter in COUNTERS}
            assert counters["cell_busy"] == network.steps * network.batch * network.hidden
            assert counters["wait_step"] >= 20 * (network.steps - 1)
            events = counters["array_busy"] + sum(value for counter, value in counters.items() if counter.startswith("wait_"))
            assert events <= counters["cycles"]

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_a_recurrence_without_its_lstm_stops() -> None:
    """POST instead of LSTM finishes no time step."""
    network = NETWORKS["4x4"]
    _, words = network.weights(np.random.default_rng(1))
    matmul = network.program(words, exponent=-12, clip=0)[2]
    loops = {f"{loop}_count": matmul[f"{loop}_count"] for loop in ("x", "y", "group", "block")}
    post = Operation(Opcode.POST, {**loops, "last_columns": 4, "parameters": words["input parameters"]})
    dut = Engine(network.config, watchdog_cycles=300)
    bus = BusDriver(dut.bus)

    async def bench(ctx: SimulatorContext) -> None:
        await bus.write_words(ctx, Region.PROGRAM.base, encode_program([matmul, post, Operation(Opcode.END, {})]))
        await bus.write(ctx, register_address("control"), Control.START)
        await ctx.tick().repeat(1500)
        assert split_status(await bus.read(ctx, register_address("status"))) == (Status.ERROR, ErrorCode.TIMEOUT)
        assert await bus.read(ctx, register_address("error_address")) == 0

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
