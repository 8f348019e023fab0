# amaranth: UnusedElaboratable=no
"""The compact engine's memories against bytearrays: every client at once, with random pauses; the two bodies' ports."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from amaranth.hdl import Value
from support.benches.family_bench import run_every_cycle
from support.benches.simulate import simulator_of

from systola_firmware.spec.presets import PRESETS
from systola_hdl.cells.families import Family
from systola_hdl.cells.single_port_memory import SinglePortMemory
from systola_hdl.compact.interfaces import stored_words
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.memory.weight_memory import WeightMemory

CONFIG = PRESETS["icebreaker"].replace(activation_bytes=256, weight_bytes=256 + 32, program_words=64)


class Reader:
    """A client that reads: keeps a request until it is taken, and checks each answer ``latency`` cycles after that."""

    def __init__(self, port: object, latency: int, pick: Callable[[], int], expected: Callable[[int], bytes]) -> None:
        self.port, self.latency, self.pick, self.expected = port, latency, pick, expected
        self.wants = False
        self.due: dict[int, bytes] = {}
        self.answers = 0

    def drive(self, ctx: object, rng: random.Random) -> None:
        if not self.wants and rng.random() < 0.3:
            self.wants, self.address = True, self.pick()
            ctx.set(self.port.address, self.address)
        ctx.set(self.port.valid, self.wants)

    def check(self, ctx: object, cycle: int) -> bool:
        """Whether a request was taken in this cycle."""
        assert ctx.get(self.port.data_valid) == (cycle in self.due)
        if cycle in self.due:
            raw = ctx.get(Value.cast(self.port.data))
            assert raw.to_bytes(4, "little") == self.due.pop(cycle), cycle
            self.answers += 1
        taken = self.wants and bool(ctx.get(self.port.ready))
        if taken:
            self.due[cycle + self.latency] = self.expected(self.address)
            self.wants = False
        return taken


class Host:
    """The host's side: holds an access until it is done."""

    def __init__(self, port: object, memory: bytearray) -> None:
        self.port, self.memory = port, memory
        self.wants = False
        self.reads = self.writes = 0

    def drive(self, ctx: object, rng: random.Random) -> None:
        if not self.wants and rng.random() < 0.5:
            self.wants = True
            self.address, self.write = 4 * rng.randrange(len(self.memory) // 4), rng.random() < 0.5
            self.data = rng.randbytes(4)
            ctx.set(self.port.address, self.address // 4)
            ctx.set(self.port.write, self.write)
            ctx.set(self.port.data, int.from_bytes(self.data, "little"))
        ctx.set(self.port.valid, self.wants)

    def check(self, ctx: object) -> None:
        """What a write wrote counts from its ``done`` on, what a read saw at its ``done``: both were made a cycle
        before."""
        if not ctx.get(self.port.done):
            return
        assert self.wants
        self.wants = False
        where = slice(self.address, self.address + 4)
        if self.write:
            self.memory[where] = self.data
            self.writes += 1
        else:
            assert ctx.get(self.port.read_data).to_bytes(4, "little") == self.memory[where]
            self.reads += 1


def fill(banks: list[SinglePortMemory], memory: bytearray) -> None:
    for index, bank in enumerate(banks):
        bank.data.init = [int.from_bytes(memory[a : a + 2], "little") for a in range(2 * index, len(memory), 4)]


def simulate(dut: object, bench: Callable[[object], object]) -> None:
    simulator = simulator_of(dut)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("family", [Family.PORTABLE, Family.ICE40])
def test_single_port_memory(family: Family) -> None:
    """Random reads, writes and pauses on a few words, also the last; what was read stays until the next access."""
    rng = random.Random(5)
    depth = SinglePortMemory.largest
    words = {address: rng.getrandbits(16) for address in (0, 1, 2, 0x1555, depth - 2, depth - 1)}
    accesses = [(1, 1, address, word, 0b11) for address, word in words.items()]
    for _ in range(600):
        enable, write = rng.random() < 0.8, rng.random() < 0.4
        accesses.append((int(enable), int(write), rng.choice(list(words)), rng.getrandbits(16), rng.getrandbits(2)))
    stimuli = [
        {"dut.enable": enable, "dut.write": write, "dut.address": address, "dut.write_data": word, "dut.mask": mask}
        for enable, write, address, word, mask in accesses
    ]
    found = run_every_cycle({"dut": SinglePortMemory(depth)}, family, stimuli)
    expected, reads = None, 0
    for (enable, write, address, word, mask), outputs in zip(accesses, found, strict=True):
        if expected is not None:
            assert outputs["dut.read_data"] == expected
            reads += 1
        if enable and write:
            bits = 0x00FF * (mask & 1) | 0xFF00 * (mask >> 1)
            words[address] = words[address] & ~bits | word & bits
            expected = None
        elif enable:
            expected = words[address]
    assert reads > 200


def test_activation_memory_against_bytes() -> None:
    rng = random.Random(1)
    dut = ActivationMemory(CONFIG)
    size = CONFIG.activation_bytes
    memory = bytearray(rng.randbytes(size))
    fill(dut.banks, memory)

    def pick() -> int:
        return rng.choice((0, size - 1, size - 2, size - 3, rng.randrange(size), 2 * rng.randrange(size // 2)))

    def vector(address: int) -> bytes:
        return bytes(memory[(address + i) % size] for i in range(4))

    readers = [Reader(port, dut.read_latency, pick, vector) for port in (dut.read_post, dut.read_stream)]
    host = Host(dut.host, memory)
    written = 0

    async def bench(ctx: object) -> None:
        nonlocal written
        pending = None
        for cycle in range(3000):
            for client in (*readers, host):
                client.drive(ctx, rng)
            if pending is None and rng.random() < 0.2:
                pending = (rng.randrange(size // 4), rng.randbytes(4), rng.getrandbits(4))
                ctx.set(dut.write.address, pending[0])
                ctx.set(dut.write.data.as_value(), int.from_bytes(pending[1], "little"))
                ctx.set(dut.write.mask, pending[2])
            ctx.set(dut.write.valid, pending is not None)
            host.check(ctx)
            taken = [reader.check(ctx, cycle) for reader in readers]
            if pending is not None and ctx.get(dut.write.ready):
                taken.append(True)
                line, data, mask = pending
                for i in range(4):
                    if mask >> i & 1:
                        memory[4 * line + i] = data[i]
                pending = None
                written += 1
            assert sum(taken) <= 1  # there is one port
            await ctx.tick()

    simulate(dut, bench)
    assert min(readers[0].answers, readers[1].answers, host.reads, host.writes, written) > 50


def test_odd_vector_takes_two_cycles() -> None:
    """Even ones one; the second half of an odd one comes before anybody else's turn."""
    dut = ActivationMemory(CONFIG)

    async def bench(ctx: object) -> None:
        for address, cycles in ((4, 1), (6, 1), (5, 2), (7, 2), (2, 1)):
            ctx.set(dut.read_stream.address, address)
            ctx.set(dut.read_stream.valid, 1)
            for left in reversed(range(cycles)):
                ctx.set(dut.write.valid, left == 0 and cycles == 2)
                ctx.set(dut.read_post.valid, left == 0 and cycles == 2)
                assert ctx.get(dut.read_stream.ready) == (left == 0)
                assert not (ctx.get(dut.write.valid) and ctx.get(dut.write.ready))
                await ctx.tick()
        for write, post, stream in ((1, 1, 1), (0, 1, 1), (0, 0, 1)):
            ctx.set(dut.write.valid, write)
            ctx.set(dut.read_post.valid, post)
            ctx.set(dut.read_stream.valid, stream)
            assert ctx.get(dut.write.ready)
            assert ctx.get(dut.read_post.ready) == (post and not write)
            assert ctx.get(dut.read_stream.ready) == (stream and not post)
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.parametrize("weight_bytes", [256, 256 + 32])
def test_weight_memory_against_bytes(weight_bytes: int) -> None:
    """With and without the weights' end at a multiple of the program's size."""
    rng = random.Random(weight_bytes)
    config = CONFIG.replace(weight_bytes=weight_bytes)
    dut = WeightMemory(config)
    memory = bytearray(rng.randbytes(4 * stored_words(config)))
    fill(dut.banks, memory)

    def word(address: int) -> bytes:
        return bytes(memory[4 * address : 4 * address + 4])

    def fetched(address: int) -> bytes:
        return word(address + weight_bytes // 4)

    def pick() -> int:
        return rng.randrange(weight_bytes // 4)

    readers = [
        Reader(dut.fetch, dut.fetch_latency, lambda: rng.randrange(config.program_words), fetched),
        Reader(dut.read_post, dut.read_latency, pick, word),
        Reader(dut.read_loader, dut.read_latency, pick, word),
    ]
    host = Host(dut.host, memory)

    async def bench(ctx: object) -> None:
        for cycle in range(2000):
            for client in (*readers, host):
                client.drive(ctx, rng)
            host.check(ctx)
            wanted = [reader.wants for reader in readers]
            taken = [reader.check(ctx, cycle) for reader in readers]
            assert taken == [wants and not any(wanted[:i]) for i, wants in enumerate(wanted)]
            await ctx.tick()

    simulate(dut, bench)
    assert min(host.reads, host.writes, *(reader.answers for reader in readers)) > 50


def test_sizes() -> None:
    with pytest.raises(ValueError, match="power of two in a compact engine, not 320"):
        ActivationMemory(CONFIG.replace(activation_bytes=320))
    with pytest.raises(ValueError, match="from 2 to 16384, not 16385"):
        SinglePortMemory(16385)
