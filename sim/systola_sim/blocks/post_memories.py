"""Simulated memories around the post-processor: exact latencies, random stalls, random data where none is promised."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from systola_firmware.spec.config import Config

__all__ = ["PostMemories"]


class PostMemories:
    """One process that serves the ports ``drain``, ``activation_read``, ``activation_write`` and ``weights``.

    It also checks the ports: payloads stay while refused, ``valid`` does not fall, only bytes inside are touched.

    Parameters
    ----------
    ports:
        Ports by name, of those above; others are not served.
    stall:
        Chance of a refusal in each cycle, and of a full half being announced late.
    activation, weights:
        int8 contents; writes change ``activation``.
    jobs:
        Contents of accumulator halves in the order they are filled, int32 (positions, columns).

    Attributes
    ----------
    cycle:
        Cycles since the start.
    writes:
        Cycle, address and mask of every write.
    drained:
        Halves released.
    """

    read_latency = 4
    write_latency = 2
    weight_latency = 3
    accumulator_latency = 3

    def __init__(
        self,
        config: Config,
        ports: dict[str, Any],
        rng: random.Random,
        *,
        stall: float,
        activation: npt.NDArray[np.int8],
        weights: npt.NDArray[np.int8],
        jobs: Sequence[npt.NDArray[np.int32]] = (),
    ) -> None:
        self.config = config
        self.ports = ports
        self.rng = rng
        self.stall = stall
        self.activation = activation
        self.weights = weights
        self.jobs = deque(jobs)
        self.cycle = 0
        self.drained = 0
        self.writes: list[tuple[int, int, int]] = []

    def _announce(self, ctx: Any) -> bool:
        """Set this cycle's ``full``; once high it stays until the release."""
        return bool(self.jobs) and (ctx.get(self.ports["drain"].full) or self.rng.random() >= self.stall)

    async def serve(self, ctx: Any) -> None:
        """Background process: serves every cycle for ever."""
        rng, ports = self.rng, self.ports
        requests = [name for name in ("activation_read", "activation_write", "weights") if name in ports]
        answers: dict[str, deque[int | None]] = {
            "activation_read": deque([None] * (self.read_latency - 1)),
            "weights": deque([None] * (self.weight_latency - 1)),
        }
        drains: deque[int] = deque([0] * (self.accumulator_latency - 1))
        pending: deque[tuple[int, int, bytes]] = deque()
        refused: dict[str, tuple[int, ...]] = {}
        signals = []
        for name in requests:
            port = ports[name]
            signals += [port.valid, port.address]
            if name == "activation_write":
                signals += [port.data.as_value(), port.mask]
        if "drain" in ports:
            signals += [ports["drain"].address, ports["drain"].release]
        while True:
            ready = {name: rng.random() >= self.stall for name in requests}
            for name in requests:
                ctx.set(ports[name].ready, ready[name])
            if "drain" in ports:
                ctx.set(ports["drain"].full, self._announce(ctx))
            _, _, *sampled = await ctx.tick().sample(*signals)
            values = iter(sampled)
            while pending and pending[0][0] + self.write_latency <= self.cycle:
                _, address, byte = pending.popleft()
                self.activation[address] = np.frombuffer(byte, np.int8)[0]
            for name in requests:
                valid, address = next(values), next(values)
                payload = (address,) if name != "activation_write" else (address, next(values), next(values))
                if name in refused:
                    assert valid, f"{name}: valid fell before it was accepted"
                    assert payload == refused.pop(name), f"{name}: payload changed before it was accepted"
                if valid and not ready[name]:
                    refused[name] = payload
                accepted = bool(valid and ready[name])
                if name == "activation_write":
                    if accepted:
                        self._write(pending, *payload)
                    continue
                answers[name].append(self._word(name, address) if accepted else None)
                answer = answers[name].popleft()
                data = ports[name].data.as_value()
                ctx.set(ports[name].data_valid, answer is not None)
                ctx.set(data, rng.getrandbits(len(data)) if answer is None else answer)
            if "drain" in ports:
                position, release = next(values), next(values)
                columns = self.config.columns
                known = self.jobs and position < len(self.jobs[0])
                data = self.jobs[0][position].astype("<i4").tobytes() if known else rng.randbytes(4 * columns)
                drains.append(int.from_bytes(data, "little"))
                ctx.set(ports["drain"].data.as_value(), drains.popleft())
                if release:
                    assert self.jobs, "released a half that was not full"
                    self.jobs.popleft()
                    self.drained += 1
                    ctx.set(ports["drain"].full, 0)
            self.cycle += 1

    def _word(self, name: str, address: int) -> int:
        """Answer to a read."""
        if name == "weights":
            size = self.config.weight_word_bytes
            return int.from_bytes(self.weights[address * size : (address + 1) * size].tobytes(), "little")
        assert address < self.config.activation_bytes
        indices = (address + np.arange(self.config.rows)) % self.config.activation_bytes
        return int.from_bytes(self.activation[indices].tobytes(), "little")

    def _write(self, pending: deque[tuple[int, int, bytes]], address: int, data: int, mask: int) -> None:
        """Note a write; it becomes visible ``write_latency`` cycles later."""
        self.writes.append((self.cycle, address, mask))
        for lane in range(self.config.requantize_lanes):
            if mask >> lane & 1:
                assert address + lane < self.config.activation_bytes, "wrote outside the memory"
                pending.append((self.cycle, address + lane, bytes([data >> 8 * lane & 0xFF])))
