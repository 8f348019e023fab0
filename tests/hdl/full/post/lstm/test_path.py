"""The LSTM instruction in the PostUnit: states after every time step, stalls on every port, speed, errors."""

from __future__ import annotations

import pytest
from support.benches.post_bench import CONFIGS, LSTM_CONFIGS, FullBench

from systola_firmware.spec.isa import ErrorCode, Opcode
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.lstm.cell import LstmCell
from systola_hdl.full.post.lstm.reads import LstmReads
from systola_hdl.full.post.output_stage import OutputStage
from systola_hdl.full.post.parameters import ParameterLoader
from systola_sim.blocks.post_memories import PostMemories
from systola_sim.blocks.post_unit import PostUnitModel


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", LSTM_CONFIGS)
def test_lstm(name: str, stall: float) -> None:
    bench = FullBench(LSTM_CONFIGS[name], seed=20 + len(name), stall=stall)
    for blocks, groups, sequences in ((3, 3, 2), (1, 1, 1), (2, 1, 3)):
        bench.add_lstm(blocks, groups, sequences)
    # What comes before and after shares drain, requantizers and output stage.
    bench.add_post({"x": 2, "y": 2, "group": 1, "block": 1}, per_channel=True, destination=2000)
    bench.add_lstm(2, 2, 2)
    memories, _ = bench.run()
    assert memories.drained == sum(len(jobs) for _, jobs in bench.operations)
    lstms = [operation for operation, _ in bench.operations if operation.opcode is Opcode.LSTM]
    group_units = bench.config.columns // 4
    assert bench.cell_busy == sum(
        op["block_count"] * op["x_count"] * ((op["group_count"] - 1) * group_units + op["last_units"]) for op in lstms
    )


@pytest.mark.parametrize("name", ["ulx3s-85f", "tiny-8x4"])
def test_speed(name: str) -> None:
    """The port of the activations is the bound: two reads a bundle; a short time step takes its latency."""
    config = CONFIGS[name].replace(lstm_serial=False)
    bench = FullBench(config, seed=3, stall=0.0)
    bench.add_lstm(1, 8, 4, last_units=config.columns // 4)
    bench.add_lstm(10, 1, 1)
    _, (many, steps) = bench.run()
    bundles = 8 * 4 * config.columns // max(config.requantize_lanes, 4)
    latency = OutputStage.gates_latency + LstmCell.latency
    # Once, the shared factors and the first biases; between two groups, the drain's gap.
    parameters = 2 * (PostMemories.weight_latency + ParameterLoader.set_latency)
    ends = PostMemories.accumulator_latency + OutputStage.direct_latency + PostMemories.write_latency
    assert many <= 2 * bundles + 7 * Drain.job_gap + parameters + latency + LstmReads.latency + ends + 18
    assert steps <= 10 * (latency + ends + Drain.job_gap + 12) + parameters + 10


GOOD = {"last_units": 1, "x_count": 2, "x_step": 20, "x_step_preactivation": 40, "x_step_cell": 20}
ERRORS = [
    ({"x_count": 0}, ErrorCode.BAD_FIELD),
    ({"group_count": 0}, ErrorCode.BAD_FIELD),
    ({"block_count": 0}, ErrorCode.BAD_FIELD),
    ({"last_units": 0}, ErrorCode.BAD_FIELD),
    ({"last_units": 3}, ErrorCode.BAD_FIELD),
    ({"last_units": 2}, ErrorCode.NONE),
    ({"x_count": 513, "x_step": 0, "x_step_preactivation": 0, "x_step_cell": 0}, ErrorCode.BAD_FIELD),
    ({"shift": 7}, ErrorCode.BAD_FIELD),
    ({"shift": -32}, ErrorCode.BAD_FIELD),
    ({"shift": -31}, ErrorCode.NONE),
    ({"cell_exponent": -16}, ErrorCode.BAD_FIELD),
    ({"cell_exponent": -8}, ErrorCode.BAD_FIELD),
    # 256 words; factors and biases of two groups take four
    ({"parameters": 252}, ErrorCode.NONE),
    ({"parameters": 253}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 254}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": 255}, ErrorCode.WEIGHT_ADDRESS),
    ({"parameters": (1 << 24) - 1}, ErrorCode.WEIGHT_ADDRESS),
    ({"preactivation": 4096 - 64}, ErrorCode.NONE),
    ({"preactivation": 4096 - 63}, ErrorCode.ACTIVATION_ADDRESS),
    ({"preactivation": 39, "x_step_preactivation": -40}, ErrorCode.ACTIVATION_ADDRESS),
    ({"preactivation": 4096}, ErrorCode.ACTIVATION_ADDRESS),
    ({"cell": 4096 - 26}, ErrorCode.NONE),
    ({"cell": 4096 - 25}, ErrorCode.ACTIVATION_ADDRESS),
    ({"cell": 4096 - 4}, ErrorCode.ACTIVATION_ADDRESS),
    ({"hidden": 4096 - 23}, ErrorCode.NONE),
    ({"hidden": 4096 - 22}, ErrorCode.ACTIVATION_ADDRESS),
    ({"hidden": 3, "x_step": -4}, ErrorCode.ACTIVATION_ADDRESS),
    ({"hidden": (1 << 20) - 1}, ErrorCode.ACTIVATION_ADDRESS),
    # the first of two that comes up counts
    ({"parameters": 253, "preactivation": 4096 - 50}, ErrorCode.ACTIVATION_ADDRESS),
    ({"parameters": 253, "preactivation": 4096 - 20, "x_count": 1}, ErrorCode.WEIGHT_ADDRESS),
]


def describe(value: object) -> str:
    return ",".join(f"{name}={number}" for name, number in value.items()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("changes", "code"), ERRORS, ids=describe)
def test_errors(changes: dict[str, int], code: ErrorCode) -> None:
    """Every bundle before the erroneous one is written, none after."""
    bench = FullBench(CONFIGS["ulx3s-85f"], seed=1, stall=0.3)
    bench.add_lstm(1, 2, 2, **(GOOD | changes))
    operation, jobs = bench.operations[0]
    model = PostUnitModel(bench.config, bench.activation.copy(), bench.weights)
    assert model.execute(operation, jobs) is code
    bench.run()


def test_without_the_cell_the_opcode_is_illegal() -> None:
    bench = FullBench(CONFIGS["tiny-4x4"].replace(lstm=False), seed=1, stall=0.0)
    bench.add(Opcode.LSTM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostUnitModel, "execute", lambda *_: ErrorCode.ILLEGAL_OPCODE)
        bench.run()
