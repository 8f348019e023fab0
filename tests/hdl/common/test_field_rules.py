"""Rules of instruction fields in gateware: both sides of each border, in the logic made of them and in both engines."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.sim import Simulator, SimulatorContext
from support.benches import compact_bench, post_bench
from support.benches.post_bench import describe
from support.programs.field_borders import Changes, borders

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import INSTRUCTIONS, ErrorCode, Opcode, Operation, Unit, opcodes_of, violations
from systola_firmware.spec.presets import preset
from systola_hdl.common.field_rules import above, below, broken, outside
from systola_hdl.common.layouts import payload_layout

RULED = [opcode for opcode, definition in INSTRUCTIONS.items() if any(field.legal for field in definition.fields.values())]
FULL, COMPACT = post_bench.CONFIGS["tiny-8x4"], compact_bench.COMPACT


def illegal(config: Config) -> list[tuple[Opcode, Changes]]:
    """Every opcode of ``config``'s POST unit, and changes that break one rule of a single field, or of a product."""
    opcodes = opcodes_of(Unit.POST, config)
    return [(opcode, changes) for opcode in opcodes for changes, legal in borders(opcode, config) if not legal]


def add_good(bench: post_bench.Bench, opcode: Opcode, changes: Changes) -> None:
    """An instruction that breaks no rule, with changes; by default, of the least legal values."""
    match opcode:
        case Opcode.POST:
            bench.add_good_post(changes)
        case Opcode.VECTOR:
            bench.add_good_vector(changes)
        case Opcode.LSTM:
            bench.add_lstm(1, 1, 1, **changes)
        case _:
            fields = INSTRUCTIONS[opcode].fields.values()
            bench.add(opcode, **{field.name: field.legal.low for field in fields if field.legal} | changes)


@pytest.mark.parametrize("name", ["tiny-4x4", "tiny-8x4", "ulx3s-85f"])
@pytest.mark.parametrize("opcode", RULED)
def test_the_logic_and_the_instruction_set_agree(opcode: Opcode, name: str) -> None:
    config, definition = preset(name), INSTRUCTIONS[opcode]
    ruled = {field: data for field, data in definition.fields.items() if data.legal is not None}
    words = Signal(payload_layout(opcode))
    m = Module()
    parts = {field: Signal(name=f"broken_{field}") for field in ruled}
    known = {field: words[field] for field in definition.fields}
    for field, signal in parts.items():
        m.d.comb += signal.eq(broken(opcode, field, known, config))
    seen: set[bool] = set()

    async def bench(ctx: SimulatorContext) -> None:
        for changes, _ in borders(opcode, config):
            fields = {field: rule.legal.low for field, rule in ruled.items() if rule.legal is not None} | changes
            ctx.set(words, fields)
            told = any(ctx.get(signal) for signal in parts.values())
            alone = [text for text in violations(Operation(opcode, fields), config) if "*" not in text]
            assert told == bool(alone), (changes, alone)
            seen.add(told)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == {False, True}


def test_a_field_without_a_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="every value of the field zero_point of POST is legal"):
        outside(Opcode.POST, "zero_point", Signal(data.StructLayout({"x": 8})).x, FULL)


def test_each_side_by_itself() -> None:
    value, m = Signal(12), Module()
    sides = Signal(2)
    m.d.comb += sides.eq(above(Opcode.LSTM, "x_count", value, FULL) << 1 | below(Opcode.LSTM, "x_count", value, FULL))

    async def bench(ctx: SimulatorContext) -> None:
        for number, expected in ((0, 1), (1, 0), (FULL.accumulator_depth, 0), (FULL.accumulator_depth + 1, 2), (4095, 2)):
            ctx.set(value, number)
            assert ctx.get(sides) == expected

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("opcode", "changes"), illegal(FULL), ids=describe)
def test_every_rule_of_the_full_engine(opcode: Opcode, changes: Changes) -> None:
    bench = post_bench.FullBench(FULL, seed=1, stall=0.3)
    add_good(bench, opcode, changes)
    bench.run_alone(ErrorCode.BAD_FIELD)


@pytest.mark.parametrize(("opcode", "changes"), illegal(COMPACT), ids=describe)
def test_every_rule_of_the_compact_engine(opcode: Opcode, changes: Changes) -> None:
    bench = compact_bench.CompactBench(stall=0.3)
    add_good(bench, opcode, changes)
    bench.run_alone(ErrorCode.BAD_FIELD)
