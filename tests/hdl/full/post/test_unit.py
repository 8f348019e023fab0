"""The full engine's PostUnit: throughput, and its agreement with the interpreter. ``hdl/test_post_unit.py`` has what
both engines promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.benches.post_bench import CONFIGS, ROUNDINGS, FullBench
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import ErrorCode, Opcode, Rounding
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.output_stage import OutputStage
from systola_hdl.full.post.parameters import ParameterLoader
from systola_hdl.full.post.tables import LookUpTables
from systola_hdl.full.post.unit import PostUnit
from systola_hdl.full.post.vector import Vector
from systola_sim.blocks.post_memories import PostMemories
from systola_sim.blocks.post_unit import PostUnitModel


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_post_agrees_with_the_interpreter(rounding: Rounding) -> None:
    """The loop model that the other tests use and the interpreter's datapath are two readings of the same words."""
    datapath = pytest.importorskip("systola_sim.machine.datapath")
    config = CONFIGS["tiny-8x4"]
    bench = FullBench(config, seed=3, stall=0.0)
    bench.add_post({"x": 3, "y": 4, "group": 2, "block": 2}, per_channel=True, rounding=rounding, zero_point=5)
    operation, jobs = bench.operations[0]
    model = PostUnitModel(config, bench.activation.copy(), bench.weights)
    assert model.execute(operation, jobs) is ErrorCode.NONE
    memories = datapath.Memories(config, bench.activation[np.newaxis].copy(), bench.weights)
    for number, job in enumerate(jobs):
        memories.accumulators[0, 0, : len(job)] = job
        datapath.run_post_job(memories, operation, number, 0)
    np.testing.assert_array_equal(memories.activation[0], model.activation)


@pytest.mark.parametrize("name", ["ulx3s-85f", "tiny-4x4"])
def test_post_takes_one_item_a_cycle(name: str) -> None:
    config = CONFIGS[name]
    bench = FullBench(config, seed=1, stall=0.0)
    bench.add_post({"x": 10, "y": 5, "group": 1, "block": 2}, per_channel=True, last_columns=config.columns)
    memories, cycles = bench.run()
    items = 100 * config.columns // config.requantize_lanes
    assert len(memories.writes) == items
    # All but a gap between the two jobs: the second one's parameters are there before.
    assert memories.writes[-1][0] - memories.writes[0][0] <= items - 1 + Drain.job_gap
    # First parameters, way of the last item, and some cycles more for the instruction and its loops.
    first = config.channel_parameter_words + PostMemories.weight_latency + ParameterLoader.set_latency
    last = PostMemories.accumulator_latency + 1 + OutputStage.latency + PostMemories.write_latency
    assert cycles[0] <= items + Drain.job_gap + first + last + 12


def test_wide_post_writes_in_every_cycle() -> None:
    config = CONFIGS["ulx3s-85f"]
    bench = FullBench(config, seed=1, stall=0.0)
    bench.add_post({"x": 10, "y": 5, "group": 1, "block": 1}, per_channel=True, last_columns=config.columns, wide=1)
    memories, _ = bench.run()
    assert len(memories.writes) == 100
    assert memories.writes[-1][0] - memories.writes[0][0] == 99


def test_vector_speed() -> None:
    """A unary operator reads, and a fill writes, one item a cycle; ADD reads twice for each."""
    config = CONFIGS["ulx3s-85f"]
    bench = FullBench(config, seed=1, stall=0.0)
    items = {"x_count": 60, "x_step": 8, "x_step1": 8, "x_step_out": 8, "destination": 2048}
    for sources in (0, 1, 2):
        bench.add(Opcode.VECTOR, **bench.vector(**items, sources=sources))
    _, (fill, unary, add) = bench.run()
    # The way of the last item, and some cycles more for the instruction, its loops and the queue behind them.
    last = Vector.latency + 1 + OutputStage.latency + PostMemories.write_latency + 19
    assert fill <= 60 + last
    assert unary <= 60 + PostMemories.read_latency + last
    assert add <= 120 + PostMemories.read_latency + last


def test_table_speed() -> None:
    bench = FullBench(CONFIGS["ulx3s-85f"], seed=1, stall=0.0)
    bench.add(Opcode.TABLE, tables=2)
    _, (cycles,) = bench.run()
    assert cycles < 512 + PostMemories.weight_latency + LookUpTables.write_latency + 20


def test_unknown_opcode_is_an_error() -> None:
    dut = PostUnit(CONFIGS["tiny-4x4"])

    async def control(ctx: Any) -> None:
        ctx.set(dut.control.instruction.payload, {"opcode": Opcode.MATMUL, "words": 0})
        ctx.set(dut.control.instruction.valid, 1)
        await ctx.tick().until(dut.control.error)
        assert ctx.get(dut.control.error_code) == ErrorCode.ILLEGAL_OPCODE

    simulator = simulator_of(dut)
    simulator.add_testbench(control)
    simulator.run_until(1e-4)
