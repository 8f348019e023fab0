"""The golden board's memory map, and its runs."""

from __future__ import annotations

import numpy as np
import pytest

from systola_firmware.spec.isa import ErrorCode, Opcode, Operation, encode_program
from systola_firmware.spec.memory_map import (
    COUNTERS,
    GATEWARE_VERSION,
    IDENTITY,
    MARK_WORDS,
    REGISTERS,
    STATUS_ERROR_SHIFT,
    Control,
    Region,
    Status,
    present_regions,
    region_bytes,
    register_address,
)
from systola_firmware.spec.presets import PRESETS
from systola_sim.machine.golden_board import BadAddressError, GoldenBoard

CONFIG = PRESETS["tiny-4x4"]
START = int(Control.START).to_bytes(4, "little")
LOOPS = {f"{loop}_count": 1 for loop in ("t0", "t1", "group", "x", "y")}
INCREMENT = Operation(
    Opcode.VECTOR,
    {**LOOPS, "source": 8, "sources": 1, "destination": 100, "x_count": 4, "x_step": 1, "x_step_out": 1}
    | {"last_lanes": 1, "minimum": -128, "maximum": 127, "bias": 1},
    mark=True,
)


def load(board: GoldenBoard, *operations: Operation, at: int = 0) -> None:
    board.write(Region.PROGRAM.base + 4 * at, np.array(encode_program(operations), dtype="<u4").tobytes())


def start(board: GoldenBoard) -> None:
    board.write(register_address("control"), START)


def test_it_describes_itself() -> None:
    board = GoldenBoard(CONFIG)
    assert board.read(0, 1) == b"SYST"
    assert board.register("identity") == IDENTITY
    assert board.register("gateware_version") == GATEWARE_VERSION
    assert board.register("config_rows") == 4
    assert board.register("config_clock_hz") == CONFIG.clock_hz
    assert board.register("status") == 0


@pytest.mark.parametrize("region", [Region.PROGRAM, Region.ACTIVATION, Region.WEIGHT])
def test_memories_keep_what_is_written(region: Region) -> None:
    board, size = GoldenBoard(CONFIG), region_bytes(CONFIG, region)
    data = np.random.default_rng(1).bytes(240)
    for address in (region.base, region.base + size - 240):
        board.write(address, data)
        assert board.read(address, 60) == data
    assert board.read(region.base + 240, 1) == bytes(4)


@pytest.mark.parametrize("region", present_regions(CONFIG))
def test_past_the_end_of_a_region_is_a_bad_address(region: Region) -> None:
    board = GoldenBoard(CONFIG)
    end = region.base + region_bytes(CONFIG, region)
    assert len(board.read(end - 4, 1)) == 4
    with pytest.raises(BadAddressError, match=f"{end:#010x}") as caught:
        board.read(end - 4, 2)
    assert caught.value.address == end
    with pytest.raises(BadAddressError):
        board.write(end, bytes(4))


@pytest.mark.parametrize("address", [2, Region.WEIGHT.base + 1, 5 << 28, 15 << 28, 1 << 32, -4])
def test_no_memory_there(address: int) -> None:
    with pytest.raises(BadAddressError):
        GoldenBoard(CONFIG).read(address, 1)


def test_words_before_a_bad_address_are_written() -> None:
    board = GoldenBoard(CONFIG)
    end = Region.ACTIVATION.base + CONFIG.activation_bytes
    with pytest.raises(BadAddressError):
        board.write(end - 4, b"abcdefgh")
    assert board.read(end - 4, 1) == b"abcd"


def test_half_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="whole 32-bit words, not 6 bytes"):
        GoldenBoard(CONFIG).write(Region.ACTIVATION.base, bytes(6))


def test_only_writable_registers_change() -> None:
    board = GoldenBoard(CONFIG)
    before = board.read(0, len(REGISTERS))
    control = REGISTERS["control"].offset
    board.write(0, b"\xff" * control)
    board.write(control + 4, b"\xff" * (len(before) - control - 4))
    changed = {name for name, r in REGISTERS.items() if board.register(name) != int.from_bytes(before[r.offset :][:4], "little")}
    assert changed == {"start_address", "scratch"}
    board.write(Region.TRACE.base, b"\xff" * 4)
    assert board.read(Region.TRACE.base, 1) == bytes(4)


def test_start_runs_the_program_from_the_start_address() -> None:
    board = GoldenBoard(CONFIG)
    load(board, INCREMENT, Operation(Opcode.END, {}), at=20)
    board.write(Region.PROGRAM.base, b"\x7f\0\0\0")
    board.write(Region.ACTIVATION.base + 8, np.array([1, -2, 126, 127], np.int8).tobytes())
    board.write(register_address("start_address"), (20).to_bytes(4, "little"))
    board.write(register_address("control"), bytes(4))
    assert board.register("status") == 0, "nothing was started yet"
    start(board)
    assert board.register("status") == Status.DONE
    assert np.frombuffer(board.read(Region.ACTIVATION.base + 100, 1), np.int8).tolist() == [2, -1, 127, 127]
    assert board.register("marks") == 1
    mark = np.frombuffer(board.read(Region.TRACE.base, len(MARK_WORDS)), "<u4")
    assert mark.tolist() == [20, *[0] * len(COUNTERS)]
    assert [board.register(f"counter_{name}") for name in COUNTERS] == [0] * len(COUNTERS)


def test_more_marks_than_the_trace_keeps_are_counted() -> None:
    board = GoldenBoard(CONFIG.replace(trace_marks=2))
    load(board, *[INCREMENT] * 3)
    start(board)
    assert board.register("marks") == 3
    trace = np.frombuffer(board.read(Region.TRACE.base, 2 * len(MARK_WORDS)), "<u4").reshape(2, -1)
    assert trace[:, 0].tolist() == [0, INCREMENT.definition.length]


def test_an_error_is_reported_and_a_good_run_clears_it() -> None:
    board = GoldenBoard(CONFIG)
    load(board, INCREMENT)
    board.write(Region.PROGRAM.base + 4 * INCREMENT.definition.length, b"\x7f\0\0\0")
    start(board)
    assert board.register("status") == Status.ERROR | ErrorCode.ILLEGAL_OPCODE << STATUS_ERROR_SHIFT
    assert board.register("error_address") == INCREMENT.definition.length
    board.write(Region.PROGRAM.base, bytes(4))
    start(board)
    assert (board.register("status"), board.register("error_address")) == (Status.DONE, 0)


def test_a_program_may_fill_the_store_but_not_pass_it() -> None:
    board = GoldenBoard(CONFIG)
    board.write(register_address("start_address"), CONFIG.program_words.to_bytes(4, "little"))
    start(board)
    assert board.register("status") == Status.ERROR | ErrorCode.PROGRAM_OVERRUN << STATUS_ERROR_SHIFT
    assert board.register("error_address") == CONFIG.program_words


def test_a_batch_answers_as_single_runs_do_and_leaves_the_board_alone() -> None:
    board = GoldenBoard(CONFIG)
    load(board, INCREMENT)
    board.write(Region.ACTIVATION.base + 8, b"\x05\x06\x07\x08")
    data = np.array([[1, 2], [30, 40], [-5, -6]], np.int8)
    (outputs,) = board.run_batch([(8, data)], [(100, 4)])
    assert outputs.tolist() == [[2, 3, 8, 9], [31, 41, 8, 9], [-4, -5, 8, 9]]
    assert board.read(Region.ACTIVATION.base + 100, 1) == bytes(4)
    assert board.register("status") == 0


def test_a_batch_says_what_is_wrong() -> None:
    board, two, three = GoldenBoard(CONFIG), np.zeros((2, 4), np.int8), np.zeros((3, 4), np.int8)
    with pytest.raises(ValueError, match=r"agree about the number of inferences, not \[2, 3\]"):
        board.run_batch([(0, two), (8, three)], [])
    with pytest.raises(ValueError, match="outside the activation memory of 32768"):
        board.run_batch([(CONFIG.activation_bytes - 3, two)], [])
    with pytest.raises(ValueError, match="outside the activation memory of 32768"):
        board.run_batch([(0, two)], [(-1, 4)])
    board.write(Region.PROGRAM.base, b"\x7f\0\0\0")
    with pytest.raises(RuntimeError, match="stopped with ILLEGAL_OPCODE at word 0"):
        board.run_batch([(0, two)], [])
