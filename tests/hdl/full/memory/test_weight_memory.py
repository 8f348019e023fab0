"""WeightMemory against a bytearray: the host writes and reads words of 32 bits while two clients read whole words."""

from __future__ import annotations

import random

import pytest
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.full.memory.weight_memory import WeightMemory

CONFIGS = {
    "4x4": PRESETS["tiny-4x4"].replace(weight_bytes=256),  # one bank
    "8x4": PRESETS["tiny-8x4"].replace(weight_bytes=272),
    "8x4, DMA": PRESETS["tiny-8x4-dma"].replace(weight_bytes=264),
    "16x8": PRESETS["ulx3s-85f"].replace(weight_bytes=544),
    "16x16": PRESETS["wide-16x16"].replace(weight_bytes=1024),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_against_bytes(name: str) -> None:
    config = CONFIGS[name]
    rng = random.Random(name)
    dut = WeightMemory(config)
    size = config.weight_word_bytes
    memory = bytearray(config.weight_bytes)
    answers: dict[str, dict[int, bytes]] = {"read_post": {}, "read_loader": {}}
    counts = {"read_post": 0, "read_loader": 0, "host": 0}

    async def bench(ctx: object) -> None:
        host, request, settled = None, None, 0
        for cycle in range(600):
            if request is None and rng.random() < 0.5:
                request = {
                    "address": 4 * rng.randrange(config.weight_bytes // 4),
                    "write": rng.getrandbits(1),
                    "data": rng.getrandbits(32),
                }
                ctx.set(dut.host.request.payload, request)
            # Readers stay away while a write waits and until it is in: programs never read what the host is still
            # writing.
            writes = request is not None and request["write"]
            for client in answers:
                port = getattr(dut, client)
                ctx.set(port.valid, cycle >= settled and not writes and rng.random() < 0.4)
                ctx.set(port.address, rng.randrange(config.weight_words))
            ctx.set(dut.host.request.valid, request is not None and not (writes and any(answers.values())))
            ctx.set(dut.host.response.ready, rng.random() < 0.6)

            for client, waiting in answers.items():
                port = getattr(dut, client)
                assert ctx.get(port.data_valid) == (cycle in waiting)
                if cycle in waiting:
                    assert ctx.get(port.data.as_value()).to_bytes(size, "little") == waiting.pop(cycle)
                    counts[client] += 1
                if ctx.get(port.valid) and ctx.get(port.ready):
                    start = size * ctx.get(port.address)
                    latency = dut.post_latency if client == "read_post" else dut.read_latency
                    waiting[cycle + latency] = bytes(memory[start : start + size])
            if ctx.get(dut.host.response.valid) and ctx.get(dut.host.response.ready):
                assert ctx.get(dut.host.response.payload) == dut.host.response.payload.shape().const({"data": host, "error": 0})
                host = None
                counts["host"] += 1
            if ctx.get(dut.host.request.valid) and ctx.get(dut.host.request.ready):
                span = slice(request["address"], request["address"] + 4)
                host = 0 if request["write"] else int.from_bytes(memory[span], "little")
                if request["write"]:
                    memory[span] = request["data"].to_bytes(4, "little")
                    settled = cycle + 3
                request = None
            await ctx.tick()

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(counts.values()) > 20, counts


def test_priorities() -> None:
    """The post-processor is never refused; its request takes the loader's turn two cycles later, and the host waits for
    both."""
    dut = WeightMemory(CONFIGS["8x4"])

    async def bench(ctx: object) -> None:
        ctx.set(dut.host.request.valid, 1)
        ctx.set(dut.host.response.ready, 1)
        for post, loader in ((1, 1), (1, 0), (0, 1), (0, 0)):
            ctx.set(dut.read_post.valid, post)
            ctx.set(dut.read_loader.valid, loader)
            await ctx.tick()
            await ctx.tick()
            answered = 0
            for _ in range(2 * dut.post_latency):
                assert ctx.get(dut.read_post.ready)
                assert ctx.get(dut.read_loader.ready) == (not post)
                answered += ctx.get(dut.host.response.valid)
                await ctx.tick()
            assert bool(answered) == (not post and not loader)
        ctx.set(dut.read_post.valid, 1)
        assert ctx.get(dut.read_loader.ready)
        await ctx.tick()
        assert ctx.get(dut.read_loader.ready)
        await ctx.tick()
        assert not ctx.get(dut.read_loader.ready)

    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()
