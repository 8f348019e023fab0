"""ActivationMemory against a bytearray: any address, three readers, two writers."""

from __future__ import annotations

import itertools
import random

import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.memory.activation_memory import ActivationMemory

CONFIGS = {
    "4x4": PRESETS["tiny-4x4"].replace(activation_bytes=256),
    "8x4": PRESETS["tiny-8x4"].replace(activation_bytes=280),  # 35 lines: no power of two
    "8x4, DMA": PRESETS["tiny-8x4-dma"].replace(activation_bytes=264),
    "16x8": PRESETS["ulx3s-85f"].replace(activation_bytes=304),
    "16x16": PRESETS["wide-16x16"].replace(activation_bytes=256),
}


def address(rng: random.Random, config: Config) -> int:
    end = config.activation_bytes
    return rng.choice((0, end - 1, end - config.rows, rng.randrange(end), rng.randrange(end)))


@pytest.mark.parametrize("name", CONFIGS)
def test_against_bytes(name: str) -> None:
    """Everything at once. A read sees a write from ``write_latency`` cycles before it, none of the same cycle or
    later."""
    config = CONFIGS[name]
    rng = random.Random(name)
    dut = ActivationMemory(config)
    size, rows, lanes = config.activation_bytes, config.rows, config.requantize_lanes
    memory = bytearray(rng.randbytes(size))
    for index, lane in enumerate(dut.lanes):
        lane.data.init = list(memory[index::rows])
    cycles = 500
    pending: list[tuple[int, int, bytes, int]] = []  # due cycle, address, data, mask
    answers: dict[str, dict[int, tuple[int, bytes, set[int]]]] = {"read_post": {}, "read_stream": {}}
    counts = {"read_post": 0, "read_stream": 0, "host read": 0, "host write": 0}

    def read(at: int, count: int) -> tuple[bytes, set[int]]:
        """Bytes, and which of them an unfinished write may have changed."""
        touched = {(a + i) % size for _, a, data, mask in pending for i in range(len(data)) if mask >> i & 1}
        where = [(at + i) % size for i in range(count)]
        return bytes(memory[a] for a in where), {i for i, a in enumerate(where) if a in touched}

    def equal(found: int, expected: bytes, unsure: set[int]) -> bool:
        got = found.to_bytes(rows, "little")
        return all(i in unsure or got[i] == byte for i, byte in enumerate(expected))

    async def bench(ctx: object) -> None:
        host, host_at, request, written = None, 0, None, None
        posted: list[tuple[int, int]] = []  # the post-processor's reads: when the streamer's would be accepted, address
        for cycle in range(cycles):
            if written is not None and ctx.get(dut.host.response.valid):  # its turn came, as for a write accepted two cycles ago
                pending.append((cycle - 2 + dut.write_latency, *written))
                written = None
            for due, at, data, mask in [entry for entry in pending if entry[0] <= cycle]:
                for i, byte in enumerate(data):
                    if mask >> i & 1:
                        memory[(at + i) % size] = byte
                pending.remove((due, at, data, mask))
            for due, at in [entry for entry in posted if entry[0] == cycle]:
                answers["read_post"][due + dut.read_latency] = (at, *read(at, rows))
                posted.remove((due, at))
            if host is not None:  # its turn comes late
                host[1].update(read(host_at, 4)[1])
            for client in answers:
                port = getattr(dut, client)
                ctx.set(port.valid, rng.random() < 0.4)
                ctx.set(port.address, address(rng, config))
            ctx.set(dut.write.valid, rng.random() < 0.3)
            ctx.set(dut.write.address, address(rng, config))
            data, mask = rng.randbytes(lanes), rng.getrandbits(lanes)
            ctx.set(dut.write.data.as_value(), int.from_bytes(data, "little"))
            ctx.set(dut.write.mask, mask)
            if request is None and rng.random() < 0.7:
                request = {"address": 4 * rng.randrange(size // 4), "write": rng.getrandbits(1), "data": rng.getrandbits(32)}
                ctx.set(dut.host.request.payload, request)
            ctx.set(dut.host.request.valid, request is not None)
            ctx.set(dut.host.response.ready, rng.random() < 0.6)

            for client, waiting in answers.items():
                port = getattr(dut, client)
                assert ctx.get(port.data_valid) == (cycle in waiting)
                if cycle in waiting:
                    at, expected, unsure = waiting.pop(cycle)
                    assert equal(ctx.get(port.data.as_value()), expected, unsure), (client, at)
                    counts[client] += 1
                if ctx.get(port.valid) and ctx.get(port.ready):
                    at = ctx.get(port.address)
                    if client == "read_post":  # it is read later than the streamer's
                        posted.append((cycle + dut.post_latency - dut.read_latency, at))
                    else:
                        waiting[cycle + dut.read_latency] = (at, *read(at, rows))
            if ctx.get(dut.host.response.valid) and ctx.get(dut.host.response.ready):
                payload = dut.host.response.payload
                assert not ctx.get(payload.error)
                assert host is not None
                assert equal(ctx.get(payload.data), *host)
                host = None
            if request is not None and ctx.get(dut.host.request.ready):
                if request["write"]:
                    host, host_at = (bytes(4), set()), 0
                    written = (request["address"], request["data"].to_bytes(4, "little"), 0xF)
                else:
                    host, host_at = read(request["address"], 4), request["address"]
                counts["host write" if request["write"] else "host read"] += 1
                request = None
            if ctx.get(dut.write.valid) and ctx.get(dut.write.ready):
                pending.append((cycle + dut.write_latency, ctx.get(dut.write.address), data, mask))
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(counts.values()) > 15, counts


def test_priorities() -> None:
    """The post-processor is never refused; its read takes the streamer's turn two cycles later, and the host waits for
    all."""
    dut = ActivationMemory(CONFIGS["8x4"])

    async def bench(ctx: object) -> None:
        ctx.set(dut.host.request.valid, 1)
        ctx.set(dut.host.response.ready, 1)
        for host_writes, post, stream, write in itertools.product((0, 1), repeat=4):
            ctx.set(dut.host.request.payload.write, host_writes)
            ctx.set(dut.read_post.valid, post)
            ctx.set(dut.read_stream.valid, stream)
            ctx.set(dut.write.valid, write)
            await ctx.tick().repeat(2 * dut.post_latency)  # what came before is answered
            answers = 0
            for _ in range(2 * dut.post_latency):
                assert ctx.get(dut.read_post.ready)
                assert ctx.get(dut.write.ready)
                assert ctx.get(dut.read_stream.ready) == (not post)
                answers += ctx.get(dut.host.response.valid)
                await ctx.tick()

            assert not answers or not (write if host_writes else post or stream)
        ctx.set(dut.read_post.valid, 0)
        await ctx.tick().repeat(dut.post_latency)
        ctx.set(dut.read_post.valid, 1)
        for ready in (1, 1, 0):
            assert ctx.get(dut.read_stream.ready) == ready
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
