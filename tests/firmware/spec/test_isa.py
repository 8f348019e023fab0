"""The instruction set's tables and their packing."""

from __future__ import annotations

import numpy as np
import pytest
from support.programs.field_borders import borders

from systola_firmware.spec.isa import (
    ERROR_WORDS,
    HEADER,
    INSTRUCTIONS,
    MAX_PAYLOAD_WORDS,
    ErrorCode,
    Field,
    IsaError,
    Opcode,
    Operation,
    Unit,
    decode,
    decode_program,
    encode_program,
    opcodes_of,
    violations,
)
from systola_firmware.spec.presets import preset

#: Counts and columns of one, nothing else: no rule is broken.
PLAIN = {
    opcode: {name: field.legal.low if field.legal else 0 for name, field in definition.fields.items()}
    for opcode, definition in INSTRUCTIONS.items()
}
PLAIN[Opcode.VECTOR]["sources"] = 1
EVERY_FIELD = [(opcode, field) for opcode, definition in INSTRUCTIONS.items() for field in definition.fields.values()]


def random_operation(rng: np.random.Generator, opcode: Opcode) -> Operation:
    values = {f.name: int(rng.integers(f.minimum, f.maximum + 1)) for f in INSTRUCTIONS[opcode].fields.values()}
    units = [tuple(unit for unit in Unit if rng.integers(2)) for _ in range(2)]
    return Operation(opcode, values, units[0], units[1], bool(rng.integers(2)))


def test_every_opcode_is_defined_and_fits_its_words() -> None:
    assert set(INSTRUCTIONS) == set(Opcode)
    assert sum(field.bits for field in HEADER) == 32
    for definition in INSTRUCTIONS.values():
        assert all(sum(field.bits for field in word) <= 32 for word in definition.words)
        names = [field.name for word in definition.words for field in word]
        assert len(set(names)) == len(names)
        assert definition.length == 1 + len(definition.words)
        assert len(definition.words) <= MAX_PAYLOAD_WORDS[definition.unit]
    assert MAX_PAYLOAD_WORDS[Unit.LSTM] == 0


@pytest.mark.parametrize("opcode", list(Opcode))
def test_random_values_come_back(opcode: Opcode) -> None:
    rng = np.random.default_rng(int(opcode))
    for _ in range(100):
        operation = random_operation(rng, opcode)
        words = operation.encode()
        assert len(words) == operation.definition.length
        assert all(0 <= word < 1 << 32 for word in words)
        assert decode(words) == (operation, len(words))
        assert decode([0, *words, 0], 1) == (operation, 1 + len(words))


@pytest.mark.parametrize(("opcode", "field"), EVERY_FIELD, ids=lambda item: item.name)
def test_a_field_keeps_its_range_and_its_place(opcode: Opcode, field: Field) -> None:
    empty = Operation(opcode, {}).encode()
    changed = set()
    for value in (field.minimum, field.maximum, -1 if field.signed else 1):
        words = Operation(opcode, {field.name: value}).encode()
        assert decode(words)[0][field.name] == value
        changed |= {index for index, (before, after) in enumerate(zip(empty, words, strict=True)) if before != after}
    assert len(changed) == 1, "a field lies in one word"
    for value in (field.minimum - 1, field.maximum + 1):
        with pytest.raises(IsaError, match=rf"{opcode.name}: {field.name} = {value} is outside {field.minimum}\.\.{field.maximum}"):
            Operation(opcode, {field.name: value}).encode()


def test_the_layout_that_the_gateware_relies_on() -> None:
    """Written out by hand, so that a change of the tables that moves a bit is seen."""
    operation = Operation(
        Opcode.POST, {"destination": 0x12345, "last_columns": 8, "per_channel": 1, "rounding": 2, "x_count": 3, "x_step": -1}
    )
    operation = Operation(operation.opcode, operation.fields, (Unit.MATMUL,), (Unit.MATMUL, Unit.POST), mark=True)
    words = operation.encode()
    assert words[0] == 0x20 | 1 << 8 | 3 << 12 | 1 << 16
    assert words[1] == 0x12345 | 8 << 20 | 1 << 27 | 2 << 28
    assert words[2] == 3 | 0xFFFFF << 12
    assert words[3:] == [0] * 6


def test_access_by_name() -> None:
    operation = Operation(Opcode.TABLE, {"source": 5})
    assert (operation["source"], operation["tables"]) == (5, 0)
    with pytest.raises(KeyError, match="colour"):
        operation["colour"]
    with pytest.raises(IsaError, match="TABLE has no field colour, size"):
        Operation(Opcode.TABLE, {"size": 1, "colour": 2}).encode()


def test_programs_end_at_end() -> None:
    rng = np.random.default_rng(5)
    operations = [random_operation(rng, opcode) for opcode in (Opcode.MATMUL, Opcode.POST, Opcode.VECTOR, Opcode.TABLE, Opcode.END)]
    words = encode_program(operations)
    decoded = decode_program([*words, 0x7F])
    assert [operation for _, operation in decoded] == operations
    assert [address for address, _ in decoded] == np.cumsum([0, *(o.definition.length for o in operations[:-1])]).tolist()


def test_what_is_no_instruction_is_named() -> None:
    with pytest.raises(IsaError, match="word 1: unknown opcode 0x7f"):
        decode([0, 0x7F], 1)
    with pytest.raises(IsaError, match="word 0: TABLE needs 2 words, 1 are left"):
        decode([int(Opcode.TABLE)])


@pytest.mark.parametrize("opcode", INSTRUCTIONS)
def test_both_sides_of_every_border(opcode: Opcode) -> None:
    config = preset("tiny-8x4")
    assert not list(violations(Operation(opcode, PLAIN[opcode]), config))
    for changes, legal in borders(opcode, config):
        told = list(violations(Operation(opcode, PLAIN[opcode] | changes), config))
        assert bool(told) is not legal, (changes, told)


def test_rules_by_hand() -> None:
    """The borders as numbers, from the text of the instruction set and not from its tables."""
    config = preset("tiny-8x4")  # 4 columns, 4 lanes, 128 accumulators
    post = PLAIN[Opcode.POST] | {"shift": 7}
    assert list(violations(Operation(Opcode.POST, post), config)) == ["shift = 7 is outside -31..6"]
    assert not list(violations(Operation(Opcode.POST, post | {"per_channel": 1}), config))
    assert list(violations(Operation(Opcode.POST, PLAIN[Opcode.POST] | {"last_columns": 5, "rounding": 3}), config)) == [
        "last_columns = 5 is outside 1..4",
        "rounding = 3 is outside 0..2",
    ]
    matmul = PLAIN[Opcode.MATMUL] | {"x_count": 43, "y_count": 3}
    assert list(violations(Operation(Opcode.MATMUL, matmul), config)) == ["x_count * y_count = 129 is more than 128"]
    vector = PLAIN[Opcode.VECTOR] | {"sources": 2, "t1_count": 2}
    assert list(violations(Operation(Opcode.VECTOR, vector), config)) == ["t0_count * t1_count = 2 is more than 1"]
    assert not list(violations(Operation(Opcode.VECTOR, vector | {"sources": 1}), config))


def test_opcodes_of_an_engine() -> None:
    full = preset("ulx3s-85f")
    assert opcodes_of(Unit.POST, full) == (Opcode.POST, Opcode.VECTOR, Opcode.TABLE, Opcode.LSTM)
    assert opcodes_of(Unit.POST, full.replace(lstm=False)) == (Opcode.POST, Opcode.VECTOR, Opcode.TABLE)
    assert opcodes_of(Unit.MATMUL, full) == (Opcode.MATMUL,)
    assert opcodes_of(Unit.SEQUENCER, full) == (Opcode.END,)


def test_every_error_has_words() -> None:
    assert set(ERROR_WORDS) == set(ErrorCode)
