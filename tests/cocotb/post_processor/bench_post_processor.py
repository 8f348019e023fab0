"""The post-processor against the loops of the instruction set, with every memory port stalling at random."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from bench_support import DelayLine, bench_config, bits_of, int8_values, pack, start
from cocotb.triggers import FallingEdge, ReadOnly
from support.benches.stream_rules import StreamRule
from support.programs.payload import payload_words

from systola_firmware.spec.isa import Combine, ErrorCode, Opcode, Operation, Rounding, Unit
from systola_hdl.common.layouts import instruction_payload
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_sim.blocks.post_unit import PostUnitModel

CONFIG = bench_config()
PAYLOAD = instruction_payload(Unit.POST)
LANES, COLUMNS = CONFIG.requantize_lanes, CONFIG.columns
ROUNDINGS = (Rounding.DOUBLE, Rounding.SINGLE, Rounding.UP)
#: Operands lie below, results above.
DESTINATION = CONFIG.activation_bytes // 2
Jobs = list[npt.NDArray[np.int32]]


class Bench:
    """The unit's surroundings: memories with their latencies, refusing with chance ``stall``."""

    def __init__(self, dut: Any, rng: random.Random, stall: float) -> None:
        self.dut, self.rng, self.stall = dut, rng, stall
        self.activation = int8_values(rng, CONFIG.activation_bytes)
        self.weights = int8_values(rng, CONFIG.weight_bytes)
        self.jobs: Jobs = []
        self.pending: list[tuple[int, int, int]] = []  # cycle from which it is seen, address, byte
        self.cycle = 0

    async def run(self, operations: list[tuple[Operation, Jobs]], watchdog: int = 4000) -> None:
        """Execute one after the other and compare memory and error with the model after each; stop at an error."""
        dut = self.dut
        model = PostUnitModel(CONFIG, self.activation.copy(), self.weights)
        self.jobs = [job for _, jobs in operations for job in jobs]
        ports = ("activation_read", "activation_write", "weights")
        inputs = {f"{port}__ready": 0 for port in ports} | {"drain__full": 0, "control__instruction__valid": 0}
        await start(dut, **inputs)
        memories = cocotb.start_soon(self._serve())
        for operation, jobs in operations:
            expected = model.execute(operation, jobs)
            dut.control__instruction__valid.value = 1
            dut.control__instruction__payload.value = pack(PAYLOAD, {"opcode": operation.opcode, "words": payload_words(operation)})
            taken = done = error = False
            for _ in range(watchdog):
                await ReadOnly()
                done, error = bool(dut.control__done.value), bool(dut.control__error.value)
                assert not (done or error) or taken
                assert bool(dut.control__busy.value) == taken or error
                taken = taken or bool(dut.control__instruction__ready.value)
                code = ErrorCode(int(dut.control__error_code.value)) if error else ErrorCode.NONE
                await FallingEdge(dut.clk)
                if taken:
                    dut.control__instruction__valid.value = 0
                if done or error:
                    break
            else:
                raise AssertionError(f"no end of {operation}")
            assert code == expected, operation
            for _ in range(1 if done else 40):  # a read one cycle after `done` sees everything; after an error nothing follows
                await FallingEdge(dut.clk)
            np.testing.assert_array_equal(self.activation, model.activation, err_msg=str(operation))
            if error:
                break
        assert error or not self.jobs
        memories.cancel()

    async def _serve(self) -> None:
        dut, rng = self.dut, self.rng
        reads = {"activation_read": DelayLine(ActivationMemory.post_latency), "weights": DelayLine(WeightMemory.post_latency)}
        rules = {name: StreamRule(name) for name in (*reads, "activation_write")}
        drained, full = DelayLine(AccumulatorBuffer.read_latency), False
        while True:
            ready = {name: rng.random() >= self.stall for name in rules}
            for name, value in ready.items():
                getattr(dut, f"{name}__ready").value = value
            for name, line in reads.items():
                answer, data = line.take(), getattr(dut, f"{name}__data")
                getattr(dut, f"{name}__data_valid").value = answer is not None
                data.value = rng.getrandbits(len(data)) if answer is None else answer
            full = bool(self.jobs) and (full or rng.random() >= self.stall)
            dut.drain__full.value = full
            answer = drained.take()
            dut.drain__data.value = rng.getrandbits(32 * COLUMNS) if answer is None else answer
            while self.pending and self.pending[0][0] <= self.cycle:
                _, address, byte = self.pending.pop(0)
                self.activation[address] = byte - (byte >> 7 << 8)
            await ReadOnly()
            for name, line in reads.items():
                valid, address = bool(getattr(dut, f"{name}__valid").value), int(getattr(dut, f"{name}__address").value)
                rules[name].check(valid, ready[name], address)
                line.put(self._word(name, address) if valid and ready[name] else None)
            self._take_write(rules["activation_write"], ready["activation_write"])
            position = int(dut.drain__address.value)
            known = full and position < len(self.jobs[0])
            drained.put(bits_of(self.jobs[0][position].astype("<i4")) if known else None)
            if dut.drain__release.value:
                assert full, "released a half that was not full"
                self.jobs.pop(0)
                full = False
            self.cycle += 1
            await FallingEdge(dut.clk)

    def _word(self, name: str, address: int) -> int:
        if name == "weights":
            size = CONFIG.weight_word_bytes
            return bits_of(self.weights[address * size : (address + 1) * size])
        return bits_of(self.activation[(address + np.arange(CONFIG.rows)) % CONFIG.activation_bytes])

    def _take_write(self, rule: StreamRule, ready: bool) -> None:
        dut = self.dut
        valid, address = bool(dut.activation_write__valid.value), int(dut.activation_write__address.value)
        data, mask = int(dut.activation_write__data.value), int(dut.activation_write__mask.value)
        rule.check(valid, ready, address, data, mask)
        if valid and ready:
            for lane in range(LANES):
                if mask >> lane & 1:
                    assert address + lane < CONFIG.activation_bytes, "wrote outside the memory"
                    seen = self.cycle + ActivationMemory.write_latency
                    self.pending.append((seen, address + lane, data >> 8 * lane & 0xFF))

    def output(self) -> dict[str, int]:
        """Random requantization and clamp."""
        rng = self.rng
        minimum, maximum = sorted(rng.choice(((-128, 127), rng.choices(range(-128, 128), k=2))))
        return {
            "zero_point": rng.randint(-128, 127),
            "minimum": minimum,
            "maximum": maximum,
            "multiplier": rng.choice((0, 1 << 30, (1 << 31) - 1, rng.randrange(1 << 30, 1 << 31))),
            "shift": rng.choice((-31, 6, rng.randint(-24, 0))),
            "rounding": rng.choice(ROUNDINGS),
        }

    def post(self) -> tuple[Operation, Jobs]:
        """A drain of one to four halves into dense rows, with valid parameters."""
        rng, per_channel = self.rng, self.rng.randrange(2)
        x, y, groups, blocks = rng.randint(1, 5), rng.randint(1, 2), rng.randint(1, 2), rng.randint(1, 2)
        words = CONFIG.channel_parameter_words if per_channel else CONFIG.bias_words
        address = rng.randrange(CONFIG.weight_words - groups * words)
        for group in range(groups):
            parts = [np.array([rng.choice((0, -(1 << 31), rng.randint(-9999, 9999))) for _ in range(COLUMNS)], "<i4").view(np.int8)]
            if per_channel:
                multipliers = [rng.choice((0, (1 << 31) - 1, rng.randrange(1 << 30, 1 << 31))) for _ in range(COLUMNS)]
                shifts = [rng.choice((-31, 6, rng.randint(-24, 0))) for _ in range(COLUMNS)]
                parts += [np.array(multipliers, "<i4").view(np.int8), np.array(shifts, np.int8)]
            block = np.concatenate(parts)
            first = (address + group * words) * CONFIG.weight_word_bytes
            self.weights[first : first + len(block)] = block
        fields = {"destination": DESTINATION + rng.randrange(9), "parameters": address, "per_channel": per_channel}
        row = groups * COLUMNS
        for loop, count, step in (("x", x, row), ("y", y, x * row), ("group", groups, COLUMNS), ("block", blocks, y * x * row)):
            fields |= {f"{loop}_count": count, f"{loop}_step": step}
        fields["last_columns"] = rng.randint(1, COLUMNS)
        generator = np.random.default_rng(rng.getrandbits(32))
        jobs = []
        for _ in range(blocks * groups):
            values = generator.integers(-(1 << 31), 1 << 31, (x * y, COLUMNS)) >> generator.integers(0, 31, (x * y, COLUMNS))
            jobs.append(values.astype(np.int32))
        return Operation(Opcode.POST, fields | self.output()), jobs

    def vector(self) -> tuple[Operation, Jobs]:
        """Fill, map, pool or add; operands below ``DESTINATION``, results above."""
        rng, sources = self.rng, self.rng.randint(0, 2)
        combine = rng.choice(tuple(Combine))
        table = rng.randrange(2) if combine is Combine.SUM else 0
        fields = {"sources": sources, "combine": combine, "table": table, "requantize": rng.randrange(2)}
        fields |= {"source": rng.randrange(200), "source1": rng.randrange(200), "destination": DESTINATION + rng.randrange(9)}
        groups, x, y = rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 2)
        row = groups * LANES
        fields |= {"group_count": groups, "group_step": LANES, "x_count": x, "y_count": y, "last_lanes": rng.randint(1, LANES)}
        fields |= {"x_step_out": row, "y_step_out": x * row}
        fields |= {f"{loop}_step{operand}": rng.randint(0, 50) for loop in "xy" for operand in ("", "1")}
        for loop in ("t0", "t1"):
            fields |= {f"{loop}_count": rng.randint(1, 3) if sources == 1 else 1, f"{loop}_step": rng.randint(0, 30)}
        fields["bias"] = 0 if combine is Combine.MAX else rng.choice((0, 1 << 30, rng.randint(-500, 500)))
        return Operation(Opcode.VECTOR, fields | self.output()), []

    def table(self, tables: int = 2) -> tuple[Operation, Jobs]:
        words = 1024 * tables // CONFIG.weight_word_bytes
        return Operation(Opcode.TABLE, {"source": self.rng.randrange(CONFIG.weight_words - words), "tables": tables}), []


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.5])
async def random_instructions(dut: Any, stall: float) -> None:
    bench = Bench(dut, random.Random(f"post {stall}"), stall)
    for _ in range(6):
        # Parameters of one instruction may overwrite another's, so each run has one POST.
        operations = [
            bench.table(),
            bench.post(),
            *(bench.vector() for _ in range(3)),
            bench.table(1),
            bench.vector(),
            bench.vector(),
        ]
        await bench.run(operations)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def rounds_halves_as_the_mode_says(dut: Any) -> None:
    """Every eighth: random factors hardly ever meet a half, where alone the modes differ."""
    bench = Bench(dut, random.Random(10), 0.3)
    values = np.random.default_rng(10)
    for rounding in ROUNDINGS:
        operation, jobs = bench.post()
        bench.weights[:] = 0  # no bias
        exact = {"per_channel": 0, "multiplier": 1 << 30, "shift": -2, "rounding": rounding}
        exact |= {"zero_point": 0, "minimum": -128, "maximum": 127}
        small = [values.integers(-200, 200, job.shape).astype(np.int32) for job in jobs]
        await bench.run([(Operation(Opcode.POST, {**operation.fields, **exact}), small)])


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def stops_at_an_error(dut: Any) -> None:
    bench = Bench(dut, random.Random(9), 0.3)
    for code, opcode, change in (
        (ErrorCode.BAD_FIELD, Opcode.VECTOR, {"x_count": 0}),
        (ErrorCode.BAD_FIELD, Opcode.POST, {"last_columns": COLUMNS + 1}),
        (ErrorCode.ACTIVATION_ADDRESS, Opcode.VECTOR, {"destination": CONFIG.activation_bytes - 1, "last_lanes": LANES}),
        (ErrorCode.ACTIVATION_ADDRESS, Opcode.POST, {"destination": CONFIG.activation_bytes - 2, "last_columns": COLUMNS}),
        (ErrorCode.WEIGHT_ADDRESS, Opcode.TABLE, {"source": CONFIG.weight_words}),
    ):
        operation, jobs = {Opcode.VECTOR: bench.vector, Opcode.POST: bench.post, Opcode.TABLE: bench.table}[opcode]()
        broken = Operation(opcode, {**operation.fields, **change})
        assert PostUnitModel(CONFIG, bench.activation.copy(), bench.weights).execute(broken, jobs) is code
        await bench.run([bench.table(), bench.vector(), (broken, jobs), bench.vector()])  # tables survive a reset
