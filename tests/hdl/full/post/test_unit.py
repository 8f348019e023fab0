"""PostUnit against the loops of the instruction set: POST, VECTOR, TABLE, errors, with stalls on every port and
without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.benches.post_bench import CONFIGS, LOOPS, POST_ERRORS, ROUNDINGS, VECTOR_ERRORS, Bench, describe
from support.benches.simulate import simulator_of

from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Rounding
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.output_stage import OutputStage
from systola_hdl.full.post.parameters import ParameterLoader
from systola_hdl.full.post.tables import LookUpTables
from systola_hdl.full.post.unit import PostUnit
from systola_hdl.full.post.vector import Vector
from systola_sim.blocks.post_memories import PostMemories
from systola_sim.blocks.post_unit import PostUnitModel


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_post(name: str, stall: float) -> None:
    bench = Bench(CONFIGS[name], seed=len(name), stall=stall)
    for case in range(7):
        counts = {loop: bench.rng.randint(1, 3) for loop in LOOPS}
        if case == 0:
            counts = {"x": 1, "y": 1, "group": 4, "block": 1}  # jobs of one position follow at once
        bench.add_post(counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64))
    memories, _ = bench.run()
    assert memories.drained == sum(len(jobs) for _, jobs in bench.operations)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS)
def test_wide_post(name: str, stall: float) -> None:
    """int16 outputs between int8 ones, some of them saturated."""
    bench = Bench(CONFIGS[name], seed=30 + len(name), stall=stall)
    for case in range(4):
        counts = {loop: bench.rng.randint(1, 2) for loop in LOOPS}
        bench.add_post(
            counts, per_channel=case % 2 == 0, destination=bench.rng.randrange(64), wide=int(case != 2), shift=-2 - 6 * case
        )
    bench.run()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_post_agrees_with_the_interpreter(rounding: Rounding) -> None:
    """The loop model that the other tests use and the interpreter's datapath are two readings of the same words."""
    datapath = pytest.importorskip("systola_sim.machine.datapath")
    config = CONFIGS["tiny-8x4"]
    bench = Bench(config, seed=3, stall=0.0)
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
    bench = Bench(config, seed=1, stall=0.0)
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
    bench = Bench(config, seed=1, stall=0.0)
    bench.add_post({"x": 10, "y": 5, "group": 1, "block": 1}, per_channel=True, last_columns=config.columns, wide=1)
    memories, _ = bench.run()
    assert len(memories.writes) == 100
    assert memories.writes[-1][0] - memories.writes[0][0] == 99


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_vector(name: str, stall: float) -> None:
    """Tables, ADD, unary, pooling and fill, each with several groups, the last one partial."""
    config = CONFIGS[name]
    lanes = config.requantize_lanes
    bench = Bench(config, seed=10 + len(name), stall=stall)
    rng = bench.rng
    # Entries that a sum of two cannot be told from by their low bits alone, and any for the first.
    entries = np.random.default_rng(4).integers(-(1 << 27), 1 << 27, 512).astype("<i4")
    entries[:4] = (2**31 - 1, -(2**31), 2**31 - 1, -(2**31))
    bench.weights[-2048:] = entries.view(np.int8)
    bench.add(Opcode.TABLE, source=(config.weight_bytes - 2048) // config.weight_word_bytes, tables=2)
    last = rng.randint(1, lanes)
    planes = {"group_count": 2, "group_step": lanes, "last_lanes": last, "x_count": 3, "y_count": 2}
    steps = {"x_step": 2 * lanes, "y_step": 7 * lanes, "x_step1": 3 * lanes, "y_step1": 11 * lanes}
    out = {"x_step_out": 2 * lanes, "y_step_out": 6 * lanes, "destination": 2001}
    # ADD
    add = bench.vector(
        **planes, **steps, **out, source=5, source1=1001, sources=2, table=1, requantize=1, bias=rng.randint(-999, 999)
    )
    bench.add(Opcode.VECTOR, **(add | bench.output()), multiplier=rng.randrange(1 << 30, 1 << 31), shift=-19)
    # unary look-up: only the clamp after the table
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1))
    # both identities of an int32 without requantization: nothing wraps on the way to the clamp
    bench.weights[:1024] = np.arange(-128, 128, dtype="<i4").view(np.int8)
    bench.add(Opcode.TABLE, source=0, tables=1)
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=77, table=1, zero_point=-3))
    # max and average pooling
    taps = {"t0_count": 3, "t0_step": 2 * lanes, "t1_count": 2, "t1_step": 7 * lanes}
    bench.add(Opcode.VECTOR, **(bench.vector(**planes, **steps, **out, **taps, source=9, combine=Combine.MAX) | bench.output()))
    average = {"requantize": 1, "rounding": Rounding.SINGLE, "multiplier": (1 << 33) // 6 + 1, "shift": -2}
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, **taps, **average, source=9))
    # two operands without tables, and MAX of two
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, bias=2**31 - 1))
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **steps, **out, source=400, source1=90, sources=2, combine=Combine.MAX))
    # fill; every random requantization in place
    bench.add(Opcode.VECTOR, **bench.vector(**planes, **out, sources=0, bias=-77, zero_point=7))
    for _ in range(3):
        bench.add(
            Opcode.VECTOR,
            **(bench.vector(x_count=4, x_step=lanes, x_step_out=lanes, requantize=1) | bench.factor() | bench.output()),
        )
    bench.run()


def test_vector_speed() -> None:
    """A unary operator reads, and a fill writes, one item a cycle; ADD reads twice for each."""
    config = CONFIGS["ulx3s-85f"]
    bench = Bench(config, seed=1, stall=0.0)
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
    bench = Bench(CONFIGS["ulx3s-85f"], seed=1, stall=0.0)
    bench.add(Opcode.TABLE, tables=2)
    _, (cycles,) = bench.run()
    assert cycles < 512 + PostMemories.weight_latency + LookUpTables.write_latency + 20


OWN_POST_ERRORS = [
    ({"parameters": 1023}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 1022}, ErrorCode.NONE),
    ({"parameters": 1022, "group_count": 2}, ErrorCode.WEIGHT_ADDRESS),
]


@pytest.mark.parametrize(("changes", "code"), POST_ERRORS + OWN_POST_ERRORS, ids=describe)
def test_post_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=1, stall=0.3)
    bench.add_good_post(changes)
    bench.run_alone(code)


OWN_VECTOR_ERRORS = [
    ({"last_lanes": 5}, ErrorCode.BAD_FIELD),
    ({"source": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
    ({"source": 4096 - 12}, ErrorCode.NONE),
    ({"source": 4096 - 12, "t0_count": 2, "t0_step": 1}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4096 - 11}, ErrorCode.ACTIVATION_ADDRESS),
    ({"destination": 4096 - 11, "last_lanes": 3}, ErrorCode.NONE),
    ({"destination": 4096 - 12}, ErrorCode.NONE),
]


@pytest.mark.parametrize(("changes", "code"), VECTOR_ERRORS + OWN_VECTOR_ERRORS, ids=describe)
def test_vector_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=2, stall=0.3)
    bench.add_good_vector(changes)
    bench.run_alone(code)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tables": 0}, ErrorCode.BAD_FIELD),
        ({"tables": 3}, ErrorCode.BAD_FIELD),
        ({"tables": 1, "source": 1024 - 128}, ErrorCode.NONE),
        ({"tables": 2, "source": 1024 - 255}, ErrorCode.WEIGHT_ADDRESS),
        ({"tables": 1, "source": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ],
    ids=describe,
)
def test_table_errors(changes: dict[str, int], code: ErrorCode) -> None:
    bench = Bench(CONFIGS["tiny-8x4"], seed=2, stall=0.3)
    bench.add(Opcode.TABLE, **changes)
    bench.run_alone(code)


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
