"""The instruction set: the one definition of every instruction's layout.

The gateware's decoder (``systola_hdl.common.layouts``), the assembler and disassembler
(``systola_firmware.spec.assembly``), the numpy interpreter (``systola_sim.machine.interpreter``), the compiler and
``docs/isa.md`` are derived from the tables in this module.

An instruction is a header word and the payload words of its opcode; all words are 32 bits. A field lies within one
word, least significant bit first, in the order listed. Units execute their instructions in order; units overlap, and
synchronise by counted tokens: before an instruction starts, one token is taken from every unit in ``wait``; when it has
completed, one token is given to every unit in ``signal``. There is one counter for each ordered pair of units.

The meaning of each instruction is given as a loop nest in ``docs/isa.md``, from :data:`Opcode` docstrings here.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

#: Version of the instruction set. The device does not check it; the driver refuses a program of another version.
VERSION = 2

WORD_BITS = 32

#: Width of an iteration count, and of a signed address step in bytes.
COUNT_BITS, STEP_BITS = 12, 20
#: Most iterations of a loop.
COUNT_LIMIT = (1 << COUNT_BITS) - 1

#: Gates of an LSTM's hidden unit in the order in which everything stores them.
GATES = ("input", "forget", "cell", "output")

#: Largest value of a token counter.
TOKEN_LIMIT = 255


class Unit(enum.IntEnum):
    """Execution units. The value is the bit position in the header's ``wait`` and ``signal`` masks."""

    MATMUL = 0  #: weight loader, activation streamer, array
    POST = 1  #: drain, requantize, vector operations
    LSTM = 2  #: reserved; the LSTM instruction runs on POST, which owns the requantizers it needs
    SEQUENCER = 3  #: the sequencer itself: END


class Rounding(enum.IntEnum):
    """Requantization of an int32 accumulator by multiplier ``q`` and shift ``s`` (see ``docs/numerics.md``)."""

    DOUBLE = 0  #: TFLM and LiteRT reference: doubling high multiply, then half away from zero
    SINGLE = 1  #: one rounding of the 63-bit product, half up
    UP = 2  #: doubling high multiply, then half up
    FP32 = 3  #: reserved: float32 product, half to even


class Combine(enum.IntEnum):
    """How VECTOR combines taps."""

    SUM = 0
    MAX = 1


class ErrorCode(enum.IntEnum):
    """Why a program stopped; :data:`ERROR_WORDS` says it in words."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    PROGRAM_OVERRUN = 2
    ACTIVATION_ADDRESS = 3
    WEIGHT_ADDRESS = 4
    BAD_FIELD = 5
    TIMEOUT = 6
    TOKEN_OVERFLOW = 7
    ABORTED = 8


#: The reason of each code, as a phrase.
ERROR_WORDS: dict[ErrorCode, str] = {
    ErrorCode.NONE: "",
    ErrorCode.ILLEGAL_OPCODE: "an unknown instruction",
    ErrorCode.PROGRAM_OVERRUN: "the program store ended before END",
    ErrorCode.ACTIVATION_ADDRESS: "an address outside the activation memory",
    ErrorCode.WEIGHT_ADDRESS: "an address outside the weight memory",
    ErrorCode.BAD_FIELD: "an instruction with an impossible field",
    ErrorCode.TIMEOUT: "no progress",
    ErrorCode.TOKEN_OVERFLOW: "too many tokens",
    ErrorCode.ABORTED: "abort by the host",
}

#: Cycles without progress in any unit after which a program is stopped with TIMEOUT.
WATCHDOG_CYCLES = 1 << 20


class Sizes(Protocol):
    """What legal ranges and opcodes depend on of an engine; :class:`~systola_firmware.spec.config.Config` has it."""

    @property
    def columns(self) -> int: ...

    @property
    def requantize_lanes(self) -> int: ...

    @property
    def accumulator_depth(self) -> int: ...

    @property
    def units_per_group(self) -> int: ...

    @property
    def lstm(self) -> bool: ...


@dataclass(frozen=True)
class Condition:
    """A rule holds only in an instruction whose field ``field`` has one of ``values``."""

    field: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Legal:
    """The values of a field that an engine takes, ``low`` to ``high``; others end in BAD_FIELD.

    ``high`` is a number or the name of one of :class:`Sizes`; None is the largest value that the field can hold.
    ``reserved`` instead of ``high``: this value and those above it are reserved.
    """

    low: int = 0
    high: int | str | None = None
    reserved: int | None = None
    only: Condition | None = None

    def bounds(self, field: Field, sizes: Sizes) -> tuple[int, int]:
        """Smallest and largest legal value on an engine of ``sizes``."""
        if self.reserved is not None:
            return self.low, self.reserved - 1
        if self.high is None:
            return self.low, field.maximum
        return self.low, self.high if isinstance(self.high, int) else int(getattr(sizes, self.high))


@dataclass(frozen=True)
class ProductRule:
    """The product of the values of ``fields`` is at most ``high``, a number or the name of one of :class:`Sizes`."""

    fields: tuple[str, ...]
    high: int | str
    only: Condition | None = None

    def bound(self, sizes: Sizes) -> int:
        """Largest legal product on an engine of ``sizes``."""
        return self.high if isinstance(self.high, int) else int(getattr(sizes, self.high))


@dataclass(frozen=True)
class Field:
    """One field: ``bits`` wide, two's complement if ``signed``; ``legal`` is given if not every value is legal."""

    name: str
    bits: int
    doc: str
    signed: bool = False
    legal: Legal | None = None

    @property
    def minimum(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1


#: The legal values of a count; some counts have an upper bound as well.
_COUNTS = Legal(1)


def _count(name: str, doc: str, legal: Legal = _COUNTS) -> Field:
    return Field(f"{name}_count", COUNT_BITS, f"iterations: {doc}", legal=legal)


#: Exponents of a multiplier.
SHIFT_MINIMUM, SHIFT_MAXIMUM = -31, 6
_SHIFTS = Legal(SHIFT_MINIMUM, SHIFT_MAXIMUM)
#: log2 of the scale of an LSTM's cell state.
CELL_EXPONENT_MINIMUM, CELL_EXPONENT_MAXIMUM = -15, -9
_CELL_EXPONENTS = Legal(CELL_EXPONENT_MINIMUM, CELL_EXPONENT_MAXIMUM)
#: The rounding modes that an engine has.
_ROUNDINGS = Legal(reserved=Rounding.FP32)


def _loop(name: str, doc: str) -> tuple[Field, ...]:
    return (_count(name, doc), Field(f"{name}_step", STEP_BITS, f"address step: {doc}", signed=True))


HEADER: tuple[Field, ...] = (
    Field("opcode", 8, "operation"),
    Field("wait", 4, "mask of units to take a token from before starting"),
    Field("signal", 4, "mask of units to give a token to when complete"),
    Field("mark", 1, "record a trace mark when complete"),
    Field("reserved", 15, "zero"),
)


class Opcode(enum.IntEnum):
    """Operations."""

    END = 0x00
    MATMUL = 0x10
    POST = 0x20
    VECTOR = 0x21
    TABLE = 0x22
    LSTM = 0x23


def _quantize_out(only: Condition) -> tuple[Field, ...]:
    return (
        Field("zero_point", 8, "added after requantization", signed=True),
        Field("minimum", 8, "lower clamp of the output", signed=True),
        Field("maximum", 8, "upper clamp of the output", signed=True),
        Field("shift", 8, "power-of-two exponent of the multiplier", signed=True, legal=replace(_SHIFTS, only=only)),
    )


#: A POST with parameters for each channel ignores its own shift.
_ONE_FACTOR = Condition("per_channel", (0,))
#: A VECTOR that does not requantize ignores its rounding and shift.
_REQUANTIZES = Condition("requantize", (1,))


@dataclass(frozen=True)
class Instruction:
    """Layout and meaning of one opcode."""

    opcode: Opcode
    unit: Unit
    words: tuple[tuple[Field, ...], ...]  #: payload words, after the header
    doc: str
    rules: tuple[ProductRule, ...] = ()  #: rules that concern several fields together
    needs: str | None = None  #: name of one of :class:`Sizes`: an engine where it is False lacks the opcode

    @property
    def length(self) -> int:
        """Words, the header included."""
        return 1 + len(self.words)

    @functools.cached_property  # the interpreter asks for it at every field of every job
    def fields(self) -> dict[str, Field]:
        """Payload fields by name."""
        return {field.name: field for word in self.words for field in word}


INSTRUCTIONS: dict[Opcode, Instruction] = {
    definition.opcode: definition
    for definition in (
        Instruction(Opcode.END, Unit.SEQUENCER, (), "Wait until every unit has finished, then stop with status *done*."),
        Instruction(
            Opcode.MATMUL,
            Unit.MATMUL,
            (
                (
                    Field("source", 20, "first activation address, bytes"),
                    Field("diagonal", 1, "depthwise: weights on the diagonal"),
                    Field("recurrent", 1, "each block but the first waits for LSTM to finish the block before"),
                ),
                _loop("x", "output positions, inner"),
                _loop("y", "output positions, outer"),
                _loop("k0", "reduction, inner (chunks of ROWS bytes)"),
                _loop("k1", "reduction, middle"),
                _loop("k2", "reduction, outer"),
                _loop("group", "groups of COLUMNS output channels"),
                _loop("block", "blocks of output positions"),
                (Field("weights", 24, "first word of the weights, in words of the weight memory"),),
            ),
            """\
One job for each block and group; a job fills one half of the accumulators, which must be free, and hands it to POST.

    for block, group:                                       # group inner
        tile = 0
        for k2, k1, k0:                                     # k0 inner
            load W[ROWS][COLUMNS]
            for y, x:                                       # x inner
                a = source + block*block_step + group*group_step + k2*k2_step + k1*k1_step + k0*k0_step + y*y_step + x*x_step
                for c in COLUMNS:
                    sum = Σ_r activation[a + r] * W[r][c]       # int8 × int8
                    accumulator[y*x_count + x][c] = sum if tile == 0 else accumulator[...][c] + sum   # int32, wraps
            tile += 1

Weights of tile `t` of group `g`, n = g * (k0_count*k1_count*k2_count) + t (blocks start over at n = 0):
dense: ROWS/R words from `weights + n*ROWS/R`, where R is weight_rows_per_cycle; word j, byte i*COLUMNS + c is
W[j*R + i][c]. Diagonal: bytes c of row n % R of word `weights + n // R`, W[r][c] = that byte if r == c, else 0.
`a` must lie in the activation memory; `a + r` wraps at its end (such lanes meet zero weights in a sound program).
Complete when the last activation has been read.

With `recurrent`, blocks are time steps: block b > 0 begins only when the LSTM instruction that drains this MATMUL has
written all of block b - 1. So one MATMUL and one LSTM are the whole recurrence, however many time steps it has.""",
            (ProductRule(("x_count", "y_count"), "accumulator_depth"),),
        ),
        Instruction(
            Opcode.POST,
            Unit.POST,
            (
                (
                    Field("destination", 20, "first output address, bytes"),
                    Field("last_columns", 7, "channels of the last group", legal=Legal(1, "columns")),
                    Field("per_channel", 1, "multiplier and shift from the parameters, not from the instruction"),
                    Field("rounding", 3, "Rounding", legal=_ROUNDINGS),
                    Field("wide", 1, "outputs are int16"),
                ),
                _loop("x", "output positions, inner"),
                _loop("y", "output positions, outer"),
                _loop("group", "groups of COLUMNS output channels"),
                _loop("block", "blocks of output positions"),
                (Field("parameters", 24, "first word of the parameters, in words of the weight memory"),),
                _quantize_out(_ONE_FACTOR),
                (Field("multiplier", 32, "q, 0 or 2^30 to 2^31-1", signed=True),),
            ),
            """\
Drain the accumulator halves that the MATMUL of the same loops fills, in the same order.

    for block, group:                                       # group inner
        wait for a full half
        load parameters of this group
        for y, x:                                           # x inner
            for c in COLUMNS (last group: last_columns):
                v = accumulator[y*x_count + x][c] + bias[c]                                 # int32, wraps
                activation[destination + block*block_step + group*group_step + y*y_step + x*x_step + c]
                    = clamp(REQ(v, q[c], s[c]) + zero_point, minimum, maximum)
        free the half

Parameters of group `g` start at word `parameters + g*P`: COLUMNS int32 biases, little endian; if per_channel, then
COLUMNS int32 multipliers, then COLUMNS int8 shifts, padded to a whole word. P is 4/R words, per_channel 2*4/R + 1.
Other channels of the last group are not written. Complete when the last byte is in the activation memory.

With `wide`, an output is clamp(REQ(v, q[c], s[c]), -32768, 32767), an int16, little endian, at destination +
block*block_step + group*group_step + y*y_step + x*x_step + 2*c; zero_point, minimum and maximum are not used.""",
        ),
        Instruction(
            Opcode.VECTOR,
            Unit.POST,
            (
                (
                    Field("source", 20, "first address of operand 0, bytes"),
                    Field("sources", 2, "operands: 0 (fill), 1 or 2", legal=Legal(0, 2)),
                    Field("combine", 1, "Combine"),
                    Field("table", 1, "map each operand byte through its table"),
                    Field("requantize", 1, "requantize the combined value"),
                    Field("rounding", 3, "Rounding", legal=replace(_ROUNDINGS, only=_REQUANTIZES)),
                ),
                (
                    Field("source1", 20, "first address of operand 1, bytes"),
                    Field("last_lanes", 7, "lanes of the last group", legal=Legal(1, "requantize_lanes")),
                ),
                (Field("destination", 20, "first output address, bytes"),),
                _loop("t0", "taps, inner"),
                _loop("t1", "taps, outer"),
                _loop("group", "groups of LANES channels; the step is operand 0's, operand 1's and the destination's"),
                _loop("x", "positions, inner; the step is operand 0's"),
                (Field("x_step1", 20, "x step of operand 1", signed=True),),
                (Field("x_step_out", 20, "x step of the destination", signed=True),),
                _loop("y", "positions, outer; the step is operand 0's"),
                (Field("y_step1", 20, "y step of operand 1", signed=True),),
                (Field("y_step_out", 20, "y step of the destination", signed=True),),
                _quantize_out(_REQUANTIZES),
                (Field("multiplier", 32, "q, 0 or 2^30 to 2^31-1", signed=True),),
                (Field("bias", 32, "added to the combined value", signed=True),),
            ),
            """\
Element-wise, pooling and fill on the activation memory, LANES (requantize_lanes) channels at a time.

    for y, x, group:                                        # group inner
        for l in LANES (last group: last_lanes):
            v = 0 for SUM, -128 for MAX                     # the identity of the combination over int8
            if sources >= 1:
                for t1, t0:                                 # t0 inner
                    e = activation[source + y*y_step + x*x_step + group*group_step + t1*t1_step + t0*t0_step + l]
                    v = combine(v, T0[e] if table else e)
            if sources == 2:
                e = activation[source1 + y*y_step1 + x*x_step1 + group*group_step + l]
                v = combine(v, T1[e] if table else e)
            v = v + bias                                    # int32, wraps; bias is 0 for MAX in a sound program
            if requantize: v = REQ(v, multiplier, shift)
            activation[destination + y*y_step_out + x*x_step_out + group*group_step + l]
                = clamp(v + zero_point, minimum, maximum)

sources == 0 (fill) reads nothing: v is the combination's identity + bias, so that without requantize it writes
clamp(bias + zero_point, ...) for SUM and clamp(bias - 128 + zero_point, ...) for MAX. SUM of table values wraps at 32
bits. A table entry used by MAX must be >= -128. Complete when the last byte is in the activation memory; every read of
an instruction may come before any of its writes or after, so source and destination overlap only where each element is
read before it is written: exactly in place, or not at all.""",
            (ProductRule(("t0_count", "t1_count"), 1, Condition("sources", (0, 2))),),
        ),
        Instruction(
            Opcode.LSTM,
            Unit.POST,
            (
                (
                    Field("hidden", 20, "first output address: int8 hidden state of block 0, bytes"),
                    Field("last_units", 5, "hidden units of the last group", legal=Legal(1, "units_per_group")),
                ),
                (Field("preactivation", 20, "first address of the int16 input part, bytes"),),
                (
                    Field("cell", 20, "first address of the int16 cell state, bytes"),
                    Field("cell_exponent", 6, "cs", signed=True, legal=_CELL_EXPONENTS),
                ),
                (
                    _count("x", "sequences of the batch", Legal(1, "accumulator_depth")),
                    Field("x_step", STEP_BITS, "address step: the hidden state's", signed=True),
                ),
                (Field("x_step_preactivation", 20, "x step of the input part", signed=True),),
                (Field("x_step_cell", 20, "x step of the cell state", signed=True),),
                (_count("group", "groups of COLUMNS/4 hidden units"),),
                _loop("block", "time steps; the step is the hidden state's"),
                (Field("block_step_preactivation", 20, "block step of the input part", signed=True),),
                (Field("parameters", 24, "first word of the parameters, in words of the weight memory"),),
                (
                    Field("zero_point", 8, "of the hidden state", signed=True),
                    Field("shift", 8, "exponent of the hidden state's multiplier", signed=True, legal=_SHIFTS),
                    Field("clip", 15, "cell clip, 0 for none"),
                ),
                (Field("multiplier", 32, "hidden state's q, 0 or 2^30 to 2^31-1", signed=True),),
            ),
            """\
Drain the accumulator halves that a `recurrent` MATMUL fills (its x loop over sequences, y_count 1, its group and block
loops the same) through the LSTM cell. A group is U = COLUMNS/4 hidden units: column 4*u + k holds gate k of unit u,
gates in the order input, forget, cell, output.

    for block, group:                                       # group inner
        wait for a full half
        for x:
            for u in U (last group: last_units):
                for k in 4:
                    a = REQ(accumulator[x][4*u + k] + bias[4*u + k], q[4*u + k], s[4*u + k])           # int32, DOUBLE
                    p = int16 at (preactivation + block*block_step_preactivation + x*x_step_preactivation
                                  + 2*(group*COLUMNS + 4*u + k))
                    pre[k] = sat16(p + sat16(a))                                                          # Q3.12
                i, f, o = sigmoid(pre[0]), sigmoid(pre[1]), sigmoid(pre[3]);  g = tanh(pre[2], -12)       # Q0.15
                c = int16 at cell + x*x_step_cell + 2*(group*U + u)
                c = sat16(sat16(REQ(f*c, 2^30, -14)) + sat16(REQ(i*g, 2^30, -29 - cs)))                   # cs = cell_exponent
                if clip: c = clamp(c, -clip, clip)
                write c back
                h = clamp(REQ(o*tanh(c, cs), multiplier, shift) + zero_point, -128, 127)
                activation[hidden + block*block_step + x*x_step + group*U + u] = h
        free the half

All REQ round DOUBLE. sigmoid and tanh are those of `docs/numerics.md`: a table of 256 and linear interpolation.
Parameters: from word `parameters`, COLUMNS int32 multipliers, little endian, then COLUMNS int8 shifts padded to a whole
word, once for all groups; then for each group COLUMNS int32 biases. The hidden state of block b is in the activation
memory before the MATMUL begins block b + 1. In a sound program hidden states, cells and preactivations do not overlap.
Complete when the last byte is in the activation memory.""",
            needs="lstm",
        ),
        Instruction(
            Opcode.TABLE,
            Unit.POST,
            (
                (
                    Field("source", 24, "first word of the entries, in words of the weight memory"),
                    Field("tables", 2, "tables to load", legal=Legal(1, 2)),
                ),
            ),
            """\
Load the look-up tables of VECTOR: 256 int32 entries each, little endian, contiguous in the weight memory. Entry i of a
table is the value of the byte whose unsigned reading is i (so entry 0x80 belongs to -128). T0 first, then T1.""",
        ),
    )
}


def opcodes_of(unit: Unit, sizes: Sizes) -> tuple[Opcode, ...]:
    """Opcodes that ``unit`` of an engine of ``sizes`` executes, in their order; others end in ILLEGAL_OPCODE."""
    return tuple(
        opcode
        for opcode in Opcode
        if (definition := INSTRUCTIONS[opcode]).unit is unit and (definition.needs is None or getattr(sizes, definition.needs))
    )


#: Most payload words of any instruction of a unit.
MAX_PAYLOAD_WORDS: dict[Unit, int] = {
    unit: max((len(d.words) for d in INSTRUCTIONS.values() if d.unit == unit), default=0) for unit in Unit
}


class IsaError(ValueError):
    """A word sequence or a field value that the instruction set does not allow."""


def _pack(fields: Sequence[Field], values: Mapping[str, int], where: str) -> int:
    word, position = 0, 0
    for field in fields:
        value = int(values.get(field.name, 0))
        if not field.minimum <= value <= field.maximum:
            raise IsaError(f"{where}: {field.name} = {value} is outside {field.minimum}..{field.maximum}")
        word |= (value & ((1 << field.bits) - 1)) << position
        position += field.bits
    return word


def _unpack(fields: Sequence[Field], word: int) -> dict[str, int]:
    values, position = {}, 0
    for field in fields:
        value = (word >> position) & ((1 << field.bits) - 1)
        if field.signed and value >> (field.bits - 1):
            value -= 1 << field.bits
        values[field.name] = value
        position += field.bits
    return values


@dataclass(frozen=True)
class Operation:
    """One instruction with its values; ``fields`` has at least all fields that are not zero."""

    opcode: Opcode
    fields: Mapping[str, int]
    wait: tuple[Unit, ...] = ()
    signal: tuple[Unit, ...] = ()
    mark: bool = False

    @property
    def definition(self) -> Instruction:
        return INSTRUCTIONS[self.opcode]

    def __getitem__(self, name: str) -> int:
        """Value of a payload field, 0 if it was not given. Raises ``KeyError`` for a name the opcode does not have."""
        if name not in self.definition.fields:
            raise KeyError(name)
        return int(self.fields.get(name, 0))

    def encode(self) -> list[int]:
        """The instruction's 32-bit words. Raises :class:`IsaError` for an unknown field or a value out of range."""
        definition = self.definition
        unknown = set(self.fields) - set(definition.fields)
        if unknown:
            raise IsaError(f"{self.opcode.name} has no field {', '.join(sorted(unknown))}")
        header = _pack(
            HEADER,
            {
                "opcode": self.opcode,
                "wait": sum(1 << unit for unit in self.wait),
                "signal": sum(1 << unit for unit in self.signal),
                "mark": self.mark,
            },
            self.opcode.name,
        )
        return [header] + [_pack(word, self.fields, self.opcode.name) for word in definition.words]


def decode(words: Sequence[int], position: int = 0) -> tuple[Operation, int]:
    """Decode the instruction at ``position``; return it and the position after it.

    Raises :class:`IsaError` for an unknown opcode or words that end too early.
    """
    header = _unpack(HEADER, int(words[position]))
    try:
        definition = INSTRUCTIONS[Opcode(header["opcode"])]
    except ValueError:
        raise IsaError(f"word {position}: unknown opcode {header['opcode']:#04x}") from None
    end = position + definition.length
    if end > len(words):
        raise IsaError(
            f"word {position}: {definition.opcode.name} needs {definition.length} words, {len(words) - position} are left"
        )
    fields: dict[str, int] = {}
    for word, layout in zip(words[position + 1 : end], definition.words, strict=True):
        fields |= _unpack(layout, int(word))
    units = {name: tuple(unit for unit in Unit if header[name] >> unit & 1) for name in ("wait", "signal")}
    return Operation(definition.opcode, fields, units["wait"], units["signal"], bool(header["mark"])), end


def violations(operation: Operation, sizes: Sizes) -> Iterator[str]:
    """Why an engine of ``sizes`` refuses ``operation`` with BAD_FIELD, one phrase for each reason; none if it takes
    it."""

    def holds(only: Condition | None) -> bool:
        return only is None or operation[only.field] in only.values

    definition = operation.definition
    for name, field in definition.fields.items():
        if field.legal is not None and holds(field.legal.only):
            low, high = field.legal.bounds(field, sizes)
            if not low <= operation[name] <= high:
                yield f"{name} = {operation[name]} is outside {low}..{high}"
    for rule in definition.rules:
        product = math.prod(operation[name] for name in rule.fields)
        if holds(rule.only) and product > rule.bound(sizes):
            yield f"{' * '.join(rule.fields)} = {product} is more than {rule.bound(sizes)}"


def encode_program(operations: Iterable[Operation]) -> list[int]:
    """Words of a whole program."""
    return [word for operation in operations for word in operation.encode()]


def decode_program(words: Sequence[int]) -> list[tuple[int, Operation]]:
    """Operations with their addresses, up to and including the first END (or the end of ``words``)."""
    program, position = [], 0
    while position < len(words):
        operation, following = decode(words, position)
        program.append((position, operation))
        position = following
        if operation.opcode is Opcode.END:
            break
    return program
