"""A bench for the compact post-processor: between simulated memories beside the model, with the instructions of
``post_bench``."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from support.benches.post_bench import Bench
from support.benches.simulate import RepeatedSimulation, simulator_of
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import ErrorCode, Operation
from systola_firmware.spec.presets import PRESETS
from systola_hdl.compact.post.unit import PostUnit
from systola_sim.blocks.post_unit import PostUnitModel

__all__ = ["COMPACT", "CompactBench"]

COMPACT: Config = PRESETS["icebreaker"].replace(activation_bytes=4096, weight_bytes=8192)


@functools.cache
def _simulation(config: Config) -> tuple[PostUnit, RepeatedSimulation]:
    dut = PostUnit(config)
    return dut, RepeatedSimulation(simulator_of(dut), "serve", "control")


class _Memories:
    """What a bench has served, under the names of :class:`~systola_sim.blocks.post_memories.PostMemories`."""

    def __init__(self, bench: CompactBench) -> None:
        self._bench = bench
        self.activation, self.writes = bench.memory, bench.writes

    @property
    def cycle(self) -> int:
        return self._bench.cycle

    @property
    def drained(self) -> int:
        return self._bench.drained


@dataclass
class CompactBench(Bench):
    """Serves the ports of :class:`PostUnit` with exact latencies, random stalls, and garbage where nothing is
    promised."""

    config: Config = COMPACT
    seed: int = 1
    stall: float = 0.0
    drain_latency: int = 2
    #: Cycle, word address and mask of every write.
    writes: list[tuple[int, int, int]] = field(default_factory=list)
    drained: int = 0
    cycle: int = 0

    def _build(self) -> tuple[Any, Any]:
        self._dut, self._simulation = _simulation(self.config)
        self.memory = self.activation.copy()
        self.jobs = deque(job for _, jobs in self.operations for job in jobs)
        return self._dut, _Memories(self)

    def _simulate(self, control: Callable[[Any], Any]) -> None:
        self._simulation.run(serve=self._serve(self._dut), control=control)

    async def _start(self, ctx: Any, port: Any, operation: Operation) -> None:
        ctx.set(port.opcode, operation.opcode)
        for index, word in enumerate(operation.encode()[1:]):
            while self.rng.random() < self.stall:
                await ctx.tick()
            assert not ctx.get(port.busy)
            ctx.set(port.words.valid, 1)
            ctx.set(port.words.payload, {"word": word, "index": index})
            await ctx.tick()
            ctx.set(port.words.valid, 0)
            ctx.set(port.words.payload, {"word": self.rng.getrandbits(32), "index": self.rng.randrange(15)})
        ctx.set(port.start, 1)
        await ctx.tick()
        ctx.set(port.start, 0)
        ctx.set(port.opcode, self.rng.getrandbits(8))

    def _check_stopped(self, busy: int, code: int, expected: ErrorCode) -> None:
        assert (busy, code) == (1, expected)

    async def _check_completed(self, ctx: Any, port: Any, _operation: Operation, _model: PostUnitModel) -> None:
        assert not ctx.get(port.busy)

    def _serve(self, dut: PostUnit) -> Any:
        rng = self.rng
        read, write, weights, drain = dut.activation_read, dut.activation_write, dut.weights, dut.drain
        requests = (read, weights, write, drain)

        async def serve(ctx: Any) -> None:
            answers: deque[bytes | None] = deque([None] * (self.drain_latency - 1))
            while True:
                ready = [rng.random() >= self.stall for _ in requests]
                for port, value in zip(requests, ready, strict=True):
                    ctx.set(port.ready, value)
                ctx.set(drain.full, bool(self.jobs) and bool(ctx.get(drain.full) or rng.random() >= self.stall))
                _, _, *sampled = await ctx.tick().sample(
                    *(port.valid for port in requests),
                    *(read.address, weights.address, write.address, drain.position),
                    *(write.data.as_value(), write.mask, drain.full, drain.release),
                )
                valid, addresses, (data, mask, full, release) = sampled[:4], sampled[4:8], sampled[8:]
                accepted = [bool(valid[number] and ready[number]) for number in range(4)]
                # A read accepted after a write sees it.
                indices = (addresses[0] + np.arange(4)) % self.config.activation_bytes
                self._answer(ctx, read, self.memory[indices].tobytes() if accepted[0] else None)
                self._answer(ctx, weights, self.weights[4 * addresses[1] : 4 * addresses[1] + 4].tobytes() if accepted[1] else None)
                if accepted[2]:
                    self.writes.append((self.cycle, addresses[2], mask))
                    for lane in range(4):
                        if mask >> lane & 1:
                            self.memory[4 * addresses[2] + lane] = np.uint8(data >> 8 * lane & 0xFF).view(np.int8)
                if valid[3]:
                    assert full, "drain.valid without a full half"
                answers.append(self.jobs[0][addresses[3]].astype("<i4").tobytes() if accepted[3] else None)
                self._answer(ctx, drain, answers.popleft())
                if release:
                    assert full
                    self.jobs.popleft()
                    self.drained += 1
                    ctx.set(drain.full, 0)
                self.cycle += 1

        return serve

    def _answer(self, ctx: Any, port: Any, answer: bytes | None) -> None:
        data = port.data.as_value()
        ctx.set(port.data_valid, answer is not None)
        ctx.set(data, self.rng.getrandbits(len(data)) if answer is None else int.from_bytes(answer, "little"))
