"""WeightLoader: tiles in order, dense and diagonal, under the rules of the shadow registers, with a busy port."""

from __future__ import annotations

import random

import numpy as np
import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Opcode, Operation
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.matmul.weight_loader import WeightLoader
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_sim.blocks.matmul_unit import weight_tile


def operation(weights: int, diagonal: int, **counts: int) -> Operation:
    return Operation(
        Opcode.MATMUL,
        {"weights": weights, "diagonal": diagonal} | {f"{loop}_count": counts.get(loop, 1) for loop in WeightLoader.loops},
    )


@pytest.mark.parametrize("busy", [0.0, 0.4])
@pytest.mark.parametrize("preset", ["tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16"])
def test_tiles(preset: str, busy: float) -> None:
    config = PRESETS[preset].replace(weight_bytes=8192)
    rng, generator = random.Random(preset), np.random.default_rng(4)
    memory = generator.integers(-128, 128, (config.weight_words, config.weight_word_bytes), dtype=np.int8)
    operations = [
        operation(3, 0, k0=2, k1=2, group=2, block=2),
        operation(config.weight_words - config.tile_words, 0),
        operation(1, 1, k0=3, group=3, block=2),
        operation(config.weight_words - 1, 1),
        operation(0, 0, k0=3),
    ]
    expected = []
    for each in operations:
        tiles = each["k0_count"] * each["k1_count"] * each["k2_count"] * each["group_count"]
        expected += [weight_tile(config, each, memory, number) for number in range(tiles)] * each["block_count"]
    dut = WeightLoader(config)
    groups, load_latency, release_latency = config.row_groups, WeightLoader.load_latency, WeightLoader.release_latency
    accepted: list[int] = []  # cycle of every read
    starts: list[int] = []  # cycle of every pass
    tiles: list[dict[int, np.ndarray]] = []
    arrivals: list[int] = []

    async def offer(ctx: object) -> None:
        for each in operations:
            fields = {"weights": each["weights"], "diagonal": each["diagonal"]}
            counts = {loop: each[f"{loop}_count"] for loop in dut.loops}
            ctx.set(dut.start.payload, fields | {"counts": counts})
            ctx.set(dut.start.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.start.ready)
            ctx.set(dut.start.valid, 0)

    async def bench(ctx: object) -> None:
        answers: dict[int, bytes] = {}
        cycle = told = 0
        while len(starts) < len(expected) or cycle < starts[-1] + 40:
            assert cycle < 4000
            ctx.set(dut.weights.ready, rng.random() >= busy)
            told += ctx.get(dut.tile_loaded)
            assert told == sum(number % groups == 0 for number in range(1, sum(at < cycle for at in accepted) + 1))
            # A pass: not before its tile's words can have left, nor sooner after another than they can leave.
            ready = told > len(starts) and accepted[groups * (len(starts) + 1) - 1] + load_latency < cycle + release_latency
            spaced = not starts or cycle - starts[-1] >= groups
            ctx.set(dut.pass_start, ready and spaced and rng.random() >= busy / 2)
            if ctx.get(dut.pass_start):
                starts.append(cycle)
            ctx.set(dut.weights.data_valid, cycle in answers)
            ctx.set(dut.weights.data.as_value(), int.from_bytes(answers.pop(cycle, b"\xaa"), "little"))
            if ctx.get(dut.weights.valid) and ctx.get(dut.weights.ready):
                answers[cycle + WeightMemory.read_latency] = memory[ctx.get(dut.weights.address)].tobytes()
                accepted.append(cycle)
            if ctx.get(dut.load.valid):
                if len(arrivals) % config.row_groups == 0:
                    tiles.append({})
                word = ctx.get(dut.load.weights.as_value()).to_bytes(config.weight_word_bytes, "little")
                tiles[-1][ctx.get(dut.load.tag)] = np.frombuffer(word, dtype=np.int8).reshape(-1, config.columns)
                arrivals.append(cycle)
            await ctx.tick()
            cycle += 1
        assert told == len(expected)
        assert not ctx.get(dut.bad_address)

    simulator = simulator_of(dut)
    simulator.add_testbench(offer, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    # A word leaves as soon as it can: when it is there, the one before it has left, and the pass before its tile has
    # begun.
    due: list[int] = []
    for number, cycle in enumerate(accepted):
        tile = number // groups
        begun = starts[tile - 1] + release_latency if tile else 0
        due.append(max(cycle + load_latency, begun, due[-1] + 1 if due else 0))
        assert due[-1] < starts[tile] + release_latency
    assert arrivals == due
    for tile, matrix in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(np.concatenate([tile[group] for group in range(config.row_groups)]), matrix)
    if not busy:  # a tile every row_groups cycles, but for instructions too short to look ahead of
        np.testing.assert_array_equal(np.diff(starts[:17]), config.row_groups)


@pytest.mark.parametrize(("weights", "good"), [(0, 2), (64, 0), (61, 0), (57, 1), (1 << 23, 0)])
def test_bad_address(weights: int, good: int) -> None:
    """64 words, two tiles of four: the loader stops at the tile that does not fit, and says so when it is the next."""
    config = PRESETS["tiny-8x4"].replace(weight_bytes=512)
    dut = WeightLoader(config)

    async def bench(ctx: object) -> None:
        ctx.set(dut.start.payload, {"weights": weights, "diagonal": 0, "counts": dict.fromkeys(dut.loops, 1) | {"k0": 2}})
        ctx.set(dut.start.valid, 1)
        ctx.set(dut.weights.ready, 1)
        await ctx.tick().until(dut.start.ready)
        ctx.set(dut.start.valid, 0)
        told = reads = 0
        for _ in range(60):
            told, reads = told + ctx.get(dut.tile_loaded), reads + ctx.get(dut.weights.valid)
            assert not ctx.get(dut.bad_address) or told == good  # tiles are told of before that there is none
            await ctx.tick()
        assert told == good
        assert 4 * good <= reads <= 4 * good + 3
        assert ctx.get(dut.bad_address) == (good < 2)
        assert not ctx.get(dut.weights.valid)

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
