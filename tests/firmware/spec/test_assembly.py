"""Assembler and disassembler: each other's inverse, and readable errors."""

from __future__ import annotations

import numpy as np
import pytest

from systola_firmware.spec.assembly import AssemblyError, assemble, disassemble, format_operation
from systola_firmware.spec.isa import INSTRUCTIONS, Combine, Opcode, Operation, Rounding, Unit, decode, encode_program


def random_operation(rng: np.random.Generator) -> Operation:
    definition = INSTRUCTIONS[Opcode(rng.choice([int(opcode) for opcode in Opcode]))]
    values = {}
    for field in definition.fields.values():
        draw = rng.integers(4)
        anything = int(rng.integers(field.minimum, field.maximum + 1))
        values[field.name] = (0, 1 if field.maximum else 0, anything, field.minimum if draw % 2 else field.maximum)[draw]
    masks = rng.integers(0, 16, 2)
    wait, signal = (tuple(unit for unit in Unit if mask >> unit & 1) for mask in masks)
    return Operation(definition.opcode, values, wait, signal, bool(rng.integers(2)))


def test_random_operations_come_back() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        words = random_operation(rng).encode()
        text = format_operation(decode(words)[0])
        assert assemble(text) == words, text


def test_whole_programs_come_back_with_their_addresses() -> None:
    rng = np.random.default_rng(2)
    operations = [random_operation(rng) for _ in range(50)]
    words = encode_program(operations)
    text = disassemble(words, {0: "the first layer"})
    assert assemble(text) == words
    assert text.startswith("# the first layer\n")
    addresses = [int(line.rpartition("# ")[2]) for line in text.splitlines()[1:]]
    assert addresses == [0, *np.cumsum([operation.definition.length for operation in operations])[:-1].tolist()]


def test_any_words_come_back() -> None:
    """Words that are no instruction: unknown opcodes, reserved bits, an instruction cut off."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        words = rng.integers(0, 1 << 32, rng.integers(1, 40)).tolist()
        assert assemble(disassemble(words)) == words
    assert disassemble([0x80000000, 0x10, 0x7F]) == ".word 0x80000000  # 0\n.word 0x00000010  # 1\n.word 0x0000007f  # 2\n"
    assert disassemble([]) == ""


def test_the_text_is_what_the_docstring_shows() -> None:
    text = "POST destination=0x4000 last_columns=8 per_channel rounding=UP x=32:16 y=16:-512 zero_point=-3 signal=MATMUL mark"
    operation, _ = decode(assemble(text))
    assert operation.opcode is Opcode.POST
    assert operation["destination"] == 0x4000
    assert operation["per_channel"] == 1
    assert operation["rounding"] == Rounding.UP
    assert (operation["y_count"], operation["y_step"]) == (16, -512)
    assert (operation["group_count"], operation["group_step"]) == (1, 0)
    assert (operation.wait, operation.signal, operation.mark) == ((), (Unit.MATMUL,), True)
    assert format_operation(operation) == text


def test_a_count_without_a_step_is_a_plain_field() -> None:
    text = "LSTM hidden=0x40 cell=0x80 cell_exponent=-12 x=2:16 x_step_cell=32 group_count=3 block=9:64"
    operation, _ = decode(assemble(text))
    assert (operation["group_count"], operation["block_count"], operation["block_step"]) == (3, 9, 64)
    assert format_operation(operation) == text


def test_comments_blank_lines_order_and_lists() -> None:
    lines = ["# nothing", "", "  VECTOR x_step1=-4 combine=MAX wait=POST,MATMUL   # two units", "END"]
    operation, end = decode(assemble(lines))
    assert operation["combine"] == Combine.MAX
    assert operation["x_step1"] == -4
    assert operation.wait == (Unit.MATMUL, Unit.POST)
    assert assemble(lines)[end:] == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("END\nMATMULL", "line 2: 'MATMULL' is not an instruction: END, MATMUL, POST, VECTOR, TABLE"),
        ("MATMUL colour=1", "line 1: field 'colour' is unknown to MATMUL"),
        ("MATMUL x_count=1", "line 1: field 'x_count' is unknown to MATMUL"),
        ("MATMUL x=3", "line 1: field 'x': a loop is count:step"),
        ("MATMUL x=3:four", "line 1: field 'x': 'four' is not a number"),
        ("MATMUL x=4096:0", "line 1: MATMUL: x_count = 4096 is outside 0..4095"),
        ("MATMUL source", "line 1: field 'source': a value is missing"),
        ("MATMUL source=1 source=2", "line 1: field 'source' is given twice"),
        ("POST rounding=ODD", "line 1: field 'rounding': 'ODD' is not a number"),
        ("POST wait=PORT", "line 1: field 'wait': 'PORT' is not a unit: MATMUL, POST, LSTM, SEQUENCER"),
        ("POST wait", "line 1: field 'wait': '' is not a unit"),
        ("POST mark=1", "line 1: field 'mark' is unknown to POST"),
        (".word", "line 1: .word takes one number"),
        (".word 0x100000000", "line 1: .word: 0x100000000 does not fit 32 bits"),
        (".word zero", "line 1: .word: 'zero' is not a number"),
    ],
)
def test_errors_name_line_and_field(text: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(text)
    assert str(caught.value).startswith(message)
