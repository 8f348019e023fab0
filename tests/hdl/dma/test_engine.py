"""The DMA engine against its model: any descriptors, any stalls; its speed; everything that must stop it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from support.benches.dma_bench import RECORD, RING, DmaBench
from support.pcie.host_memory import BASE, PlainHost

from systola_firmware.spec.dma import RECORD_BYTES, Descriptor, DmaError, DmaKind, StatusRecord, split_dma_status
from systola_firmware.spec.memory_map import DMA_IDENTITY, DMA_REGISTERS, DmaStatus, Region, dma_register_address, region_bytes
from systola_firmware.spec.presets import preset
from systola_sim.machine.dma_model import DmaModel

SMALL = preset("tiny-8x4-dma").replace(activation_bytes=520, weight_bytes=384, program_words=67)  # 65 lines, 48 words
WIDE = preset("litefury").replace(activation_bytes=512, weight_bytes=512, program_words=64)
MEMORIES = (Region.PROGRAM, Region.ACTIVATION, Region.WEIGHT)
#: Host memory: what TO_DEVICE reads, what FROM_DEVICE writes, records.
SOURCE, TARGET, RECORDS, SIZE = 0x400, 0x800, 0xC00, 0x1000


def transfer(kind: DmaKind, rng: random.Random, config: Any, *, overlap: bool = False) -> Descriptor:
    region = rng.choice(MEMORIES)
    size, unit = region_bytes(config, region), 1 if region is Region.ACTIVATION else 4
    length = unit * rng.choice((1, 2, 3, rng.randrange(1, size // unit + 1), rng.randrange(1, 20)))
    offset = rng.choice((0, size - length, unit * rng.randrange((size - length) // unit + 1)))
    area = SOURCE if kind is DmaKind.TO_DEVICE else TARGET
    host = BASE + area + rng.randrange(0x400 - length + 1)
    return Descriptor(kind, length, region.base + offset, host, overlap=overlap)


def anything(rng: random.Random, config: Any) -> Descriptor:
    kind = rng.choice((DmaKind.TO_DEVICE, DmaKind.FROM_DEVICE) * 2 + tuple(DmaKind))
    if kind in {DmaKind.TO_DEVICE, DmaKind.FROM_DEVICE}:
        return transfer(kind, rng, config, overlap=rng.random() < 0.3)
    if kind is DmaKind.RECORD:
        return Descriptor(kind, host_address=BASE + RECORDS + 8 * rng.randrange(0x300 // 8))
    return Descriptor(kind, device_address=rng.getrandbits(32))


class PretendingModel(DmaModel):
    """The model of the DMA engine, before an engine that runs nothing but keeps the addresses."""

    def __init__(self, bench: DmaBench) -> None:
        self.host = PlainHost(bytearray(bench.host.memory))
        self.runs: list[int] = []
        super().__init__(bench.config, self.host, self.host.interrupt)

    def _run_program(self, start: int) -> None:
        self.runs.append(start)

    def ring(self, bench: DmaBench, descriptors: Sequence[Descriptor]) -> None:
        """Execute what the bench is about to be given."""
        values = {"ring_size": bench.ring_size, "doorbell": bench.rung + len(descriptors)}
        for name, offset in (("ring", RING), ("record", RECORD)):
            values |= {f"{name}_low": BASE + offset & 0xFFFFFFFF, f"{name}_high": BASE + offset >> 32}
        for number, descriptor in enumerate(descriptors, start=bench.rung):
            raw = descriptor.encode()
            at = RING + len(raw) * (number % bench.ring_size)
            self.host.memory[at : at + len(raw)] = raw
        for name, value in values.items():
            self.write(dma_register_address(name), value.to_bytes(4, "little"))
        self.run(len(descriptors))


@pytest.mark.parametrize(
    ("config", "busy", "noise", "latency"), [(SMALL, 0.0, 0.0, 1), (SMALL, 0.4, 0.3, 7), (SMALL, 0.8, 0.0, 2), (WIDE, 0.2, 0.5, 30)]
)
def test_anything_against_the_model(config: Any, busy: float, noise: float, latency: int) -> None:
    bench = DmaBench(config, (config.name, busy), size=SIZE, latency=latency, busy=busy)
    bench.noise = noise
    rng = random.Random(17)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        model = PretendingModel(bench)
        for _ in range(5):
            descriptors = [anything(rng, config) for _ in range(rng.randrange(1, bench.ring_size + 1))]
            model.ring(bench, descriptors)
            await bench.ring(ctx, descriptors)
            assert split_dma_status(await bench.settle(ctx)) == (DmaStatus.LINK_UP, DmaError.NONE)
            assert not model.busy
            assert await bench.register(ctx, "completed") == bench.rung
            assert bench.host.memory == model.host.memory
        assert bench.host.interrupts == model.host.interrupts
        assert [address for _, address in bench.starts] == model.runs
        bench.noise = 0
        for region in MEMORIES:
            size = region_bytes(config, region)
            assert await bench.device_bytes(ctx, region) == model.read(region.base, size // 4), region

    bench.run(test)
    assert bench.starts


def test_the_engines_own_reads_go_first() -> None:
    """Whatever they do to its turns, and the link to its queue, what goes in comes out, of each memory."""
    bench = DmaBench(SMALL, 14, size=SIZE, busy=0.9)
    bench.noise = 0.3

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        for number, region in enumerate(MEMORIES):
            source, target = SOURCE + 201 * number, TARGET + 203 * number
            await bench.ring(ctx, [Descriptor(DmaKind.TO_DEVICE, 200, region.base + 4, BASE + source)])
            await bench.ring(ctx, [Descriptor(DmaKind.FROM_DEVICE, 200, region.base + 4, BASE + target)])
            assert await bench.settle(ctx) == DmaStatus.LINK_UP
            assert bench.host.memory[target : target + 200] == bench.host.memory[source : source + 200], region

    bench.run(test)


@pytest.mark.parametrize("region", [Region.ACTIVATION, Region.WEIGHT])
def test_speed(region: Region) -> None:
    """Each way, to an odd address where that is possible, at 7.5 bytes a cycle and more."""
    length = 4096
    config = preset("tiny-8x4-dma").replace(activation_bytes=length + 64, weight_bytes=length + 64)
    bench = DmaBench(config, region, size=0x1000 + 2 * length, latency=100)
    address = region.base + (3 if region is Region.ACTIVATION else 4)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        source, target = BASE + 0x1000, BASE + 0x1000 + length
        await bench.ring(
            ctx, [Descriptor(DmaKind.TO_DEVICE, length, address, source), Descriptor(DmaKind.FROM_DEVICE, length, address, target)]
        )
        assert await bench.settle(ctx) == DmaStatus.LINK_UP

    bench.run(test)
    assert bench.host.memory[0x1000 : 0x1000 + length] == bench.host.memory[0x1000 + length :]
    for cycles in (bench.link.read_cycles[8:], bench.link.write_cycles):  # without the two descriptors
        assert len(cycles) == length // 8
        assert length / (cycles[-1] - cycles[0] + 1) >= 7.5


def test_program_words_take_a_cycle_each() -> None:
    config = preset("tiny-8x4-dma").replace(activation_bytes=256, weight_bytes=256)
    length = 4 * config.program_words
    bench = DmaBench(config, 3, size=0x1000 + 2 * length)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        move = (length, Region.PROGRAM.base, BASE + 0x1000), (length, Region.PROGRAM.base, BASE + 0x1000 + length)
        await bench.ring(ctx, [Descriptor(DmaKind.TO_DEVICE, *move[0]), Descriptor(DmaKind.FROM_DEVICE, *move[1])])
        assert await bench.settle(ctx) == DmaStatus.LINK_UP

    bench.run(test)
    assert bench.host.memory[0x1000 : 0x1000 + length] == bench.host.memory[0x1000 + length :]
    for cycles in (bench.link.read_cycles[8:], bench.link.write_cycles):
        assert length / (cycles[-1] - cycles[0] + 1) >= 3.75


def test_little_time_between_programs() -> None:
    """Inputs of 490 bytes are read ahead while the program before runs: what is left is copying them, and a record."""
    config = preset("tiny-8x4-dma").replace(activation_bytes=2048, weight_bytes=256)
    bench = DmaBench(config, 4, ring_size=32, latency=150, program_cycles=400)
    count = 6

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        jobs = []
        for _ in range(count):
            jobs += [
                Descriptor(DmaKind.TO_DEVICE, 490, Region.ACTIVATION.base + 7, BASE + 0x801),
                Descriptor(DmaKind.RUN, device_address=5),
                Descriptor(DmaKind.FROM_DEVICE, 12, Region.ACTIVATION.base + 600, BASE + 0xC03),
                Descriptor(DmaKind.INTERRUPT),
            ]
        await bench.ring(ctx, jobs)
        assert await bench.settle(ctx) == DmaStatus.LINK_UP

    bench.run(test)
    assert len(bench.link.interrupt_cycles) == count
    idle = [start - end for end, (start, _) in zip(bench.ends, bench.starts[1:], strict=False)]
    assert len(idle) == count - 1
    assert max(idle) <= 150, idle


def test_what_overlaps_and_what_waits() -> None:
    """OVERLAP moves while a program runs; a transfer without it, a record and a fence wait for its end."""
    bench = DmaBench(SMALL, 6, size=SIZE, ring_size=16, program_cycles=300)
    there = Region.ACTIVATION.base

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        await bench.ring(
            ctx,
            [
                Descriptor(DmaKind.RUN, device_address=1),
                Descriptor(DmaKind.TO_DEVICE, 8, there, BASE + SOURCE, overlap=True),
                Descriptor(DmaKind.FROM_DEVICE, 8, there, BASE + TARGET, overlap=True),
                Descriptor(DmaKind.FROM_DEVICE, 16, there, BASE + TARGET + 8),
                Descriptor(DmaKind.RUN, device_address=2),
                Descriptor(DmaKind.RECORD, host_address=BASE + RECORDS),
                Descriptor(DmaKind.FROM_DEVICE, 8, there, BASE + TARGET + 48),
                Descriptor(DmaKind.FENCE),
                Descriptor(DmaKind.TO_DEVICE, 8, there + 16, BASE + TARGET + 48),
                Descriptor(DmaKind.FROM_DEVICE, 8, there + 16, BASE + TARGET + 32),
            ],
        )
        assert await bench.settle(ctx) == DmaStatus.LINK_UP
        assert await bench.register(ctx, "completed") == 10

    bench.run(test)
    link, (first, second) = bench.link, bench.ends
    assert link.write_cycles[0] < first < link.write_cycles[1] < bench.starts[1][0]
    assert link.write_cycles[3] > second
    assert bench.host.memory[TARGET + 32 : TARGET + 40] == bench.host.memory[SOURCE : SOURCE + 8]


def bad(kind: int, flags: int, length: int, device: int, host: int = BASE + SOURCE) -> bytes:
    return bytes([kind, flags, 0, 0]) + length.to_bytes(4, "little") + device.to_bytes(8, "little") + host.to_bytes(16, "little")


END = {region: region.base + region_bytes(SMALL, region) for region in MEMORIES}
BAD = {
    "kind 0": bad(0, 0, 8, Region.ACTIVATION.base),
    "kind 7": bad(7, 0, 8, Region.ACTIVATION.base),
    "kind 129": bad(129, 0, 8, Region.ACTIVATION.base),
    "flag": bad(1, 2, 8, Region.ACTIVATION.base),
    "overlapping program": bad(3, 1, 0, 0),
    "no length": bad(1, 0, 0, Region.ACTIVATION.base),
    "nothing from the end": bad(2, 0, 0, END[Region.ACTIVATION]),
    "registers": bad(1, 0, 4, Region.REGISTERS.base),
    "trace": bad(2, 0, 4, Region.TRACE.base),
    "dma": bad(1, 0, 4, Region.DMA.base),
    "no region": bad(1, 0, 4, 0xF000_0000),
    "behind": bad(1, 0, 1, END[Region.ACTIVATION]),
    "far behind": bad(2, 0, 1, Region.ACTIVATION.base + 0x0FFF_FFFF),
    "one byte too many": bad(1, 0, 9, END[Region.ACTIVATION] - 8),
    "everything and more": bad(2, 0, 0xFFFFFF, Region.ACTIVATION.base),
    "one word too many": bad(1, 0, 12, END[Region.WEIGHT] - 8),
    "one program word too many": bad(2, 0, 8, END[Region.PROGRAM] - 4),
    "weights at a byte": bad(1, 0, 8, Region.WEIGHT.base + 2),
    "half a weight word": bad(2, 0, 6, Region.WEIGHT.base),
    "program at a byte": bad(1, 0, 4, Region.PROGRAM.base + 1),
    "record off": bad(4, 0, 0, 0, BASE + RECORDS + 4),
}


def record(bench: DmaBench) -> StatusRecord:
    return StatusRecord.decode(bytes(bench.host.memory[RECORD : RECORD + RECORD_BYTES]))


async def works(ctx: Any, bench: DmaBench) -> None:
    """The engine is usable: 40 bytes go round."""
    await bench.set_up(ctx)
    there, target = Region.ACTIVATION.base + 5, TARGET + 0x200
    bench.host.memory[target : target + 40] = bytes(40)
    await bench.ring(ctx, [Descriptor(DmaKind.TO_DEVICE, 40, there, BASE + SOURCE + 1)])
    await bench.ring(ctx, [Descriptor(DmaKind.FROM_DEVICE, 40, there, BASE + target), Descriptor(DmaKind.INTERRUPT)])
    assert split_dma_status(await bench.settle(ctx)) == (DmaStatus.LINK_UP, DmaError.NONE)
    assert await bench.register(ctx, "completed") == 3
    assert bench.host.memory[target : target + 40] == bench.host.memory[SOURCE + 1 : SOURCE + 41]
    assert (record(bench).completed, record(bench).error, record(bench).sequence) == (3, DmaError.NONE, 1)


async def stops(ctx: Any, bench: DmaBench, error: DmaError, completed: int) -> None:
    """The ring has stopped, said so in every way, and is usable after a reset."""
    assert split_dma_status(await bench.settle(ctx)) == (DmaStatus.STOPPED | DmaStatus.LINK_UP, error)
    assert await bench.register(ctx, "completed") == completed
    await ctx.tick().repeat(60)
    told = record(bench)
    assert (told.error, told.completed, told.status) == (error, completed, DmaStatus.STOPPED | DmaStatus.LINK_UP)
    assert told.doorbell == bench.rung
    assert bench.link.events[-2:] == [f"write {RECORD:#x} {RECORD_BYTES}", "interrupt"]
    interrupts = bench.host.interrupts
    await bench.write(ctx, "doorbell", bench.rung + 1)
    await ctx.tick().repeat(200)
    assert await bench.register(ctx, "completed") == completed
    assert bench.host.interrupts == interrupts
    bench.host.reads_fail.clear()
    bench.host.writes_fail.clear()
    await bench.reset(ctx)
    assert [await bench.register(ctx, name) for name in ("completed", "doorbell", "ring_size", "ring_low", "record_high")] == [
        0
    ] * 5
    await works(ctx, bench)


def test_bad_descriptors_are_refused_and_touch_nothing() -> None:
    bench = DmaBench(SMALL, 8, size=SIZE, ring_size=4)
    untouched = bytes(region_bytes(SMALL, Region.ACTIVATION))

    async def test(ctx: Any) -> None:
        for name, raw in BAD.items():
            await bench.set_up(ctx)
            before = bytes(bench.host.memory[TARGET:])
            good = Descriptor(DmaKind.TO_DEVICE, 3, Region.ACTIVATION.base, BASE + SOURCE)
            after = Descriptor(DmaKind.FROM_DEVICE, 8, Region.ACTIVATION.base, BASE + TARGET)
            await bench.ring(ctx, [good, raw, after])
            assert split_dma_status(await bench.settle(ctx)) == (
                DmaStatus.STOPPED | DmaStatus.LINK_UP,
                DmaError.BAD_DESCRIPTOR,
            ), name
            assert await bench.register(ctx, "completed") == 1, name
            assert bench.host.memory[TARGET:] == before, name
            await bench.reset(ctx)
        assert not bench.starts
        assert await bench.device_bytes(ctx, Region.ACTIVATION) == bytes(bench.host.memory[SOURCE : SOURCE + 3]) + untouched[3:]
        assert not any(await bench.device_bytes(ctx, Region.WEIGHT))
        assert not any(await bench.device_bytes(ctx, Region.PROGRAM))
        await bench.set_up(ctx)
        await bench.ring(ctx, [BAD["kind 0"]])
        await stops(ctx, bench, DmaError.BAD_DESCRIPTOR, 0)

    bench.run(test)


@pytest.mark.parametrize("busy", [0.0, 0.5])
def test_failures_of_the_host_memory(busy: float) -> None:
    """Of a descriptor's fetch, of data, of a write, of a record: each stops the ring where it was."""
    bench = DmaBench(SMALL, 9, size=SIZE, latency=5, busy=busy)
    good = Descriptor(DmaKind.TO_DEVICE, 30, Region.ACTIVATION.base + 1, BASE + SOURCE)
    reads = Descriptor(DmaKind.TO_DEVICE, 100, Region.WEIGHT.base + 4, BASE + SOURCE + 0x200)
    writes = Descriptor(DmaKind.FROM_DEVICE, 100, Region.WEIGHT.base + 4, BASE + TARGET)
    records = Descriptor(DmaKind.RECORD, host_address=BASE + RECORDS)

    async def test(ctx: Any) -> None:
        for code in (DmaError.TIMEOUT, DmaError.UNSUPPORTED_REQUEST, DmaError.POISONED, DmaError.BUS_MASTER_DISABLED):
            await bench.set_up(ctx)
            bench.host.reads_fail[BASE + SOURCE + 0x240] = code
            await bench.ring(ctx, [good, reads, good, good])
            await stops(ctx, bench, code, 1)
            await bench.reset(ctx)
            await bench.set_up(ctx)
            bench.host.writes_fail[BASE + TARGET + 99] = code
            await bench.ring(ctx, [good, good, writes, records])
            await stops(ctx, bench, code, 2)
            await bench.reset(ctx)
        await bench.set_up(ctx)
        bench.host.reads_fail[BASE + RING + 4 * 32] = DmaError.COMPLETER_ABORT
        await bench.ring(ctx, [good, good, writes, records, good])
        await stops(ctx, bench, DmaError.COMPLETER_ABORT, 4)
        await bench.reset(ctx)
        await bench.set_up(ctx)
        bench.host.writes_fail[BASE + RECORDS] = DmaError.MALFORMED
        await bench.ring(ctx, [good, records, good])
        await stops(ctx, bench, DmaError.MALFORMED, 1)
        await bench.reset(ctx)
        await bench.set_up(ctx)  # the record that tells of the error fails as well: the interrupt comes all the same
        bench.host.writes_fail[BASE + RECORD] = DmaError.TIMEOUT
        before = bench.host.interrupts
        await bench.ring(ctx, [good, Descriptor(DmaKind.INTERRUPT), good])
        assert split_dma_status(await bench.settle(ctx))[1] is DmaError.TIMEOUT
        await ctx.tick().repeat(200)
        assert bench.host.interrupts == before + 1
        bench.host.writes_fail.clear()
        await bench.reset(ctx)
        await works(ctx, bench)

    bench.run(test)


def test_a_failing_program_stops_the_ring() -> None:
    bench = DmaBench(SMALL, 10, size=SIZE)
    bench.failing_starts = {77}

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        run = [Descriptor(DmaKind.RUN, device_address=address) for address in (1, 77, 2)]
        await bench.ring(ctx, run)
        await stops(ctx, bench, DmaError.PROGRAM_FAILED, 1)
        assert [address for _, address in bench.starts] == [1, 77]

    bench.run(test)


def test_bad_rings() -> None:
    bench = DmaBench(SMALL, 11, size=SIZE)

    async def test(ctx: Any) -> None:
        for name, value in (("ring_size", 0), ("ring_size", 6), ("ring_low", BASE + RING + 16 & 0xFFFFFFFF), ("doorbell", 9)):
            await bench.set_up(ctx)
            reads = len(bench.link.read_cycles)
            await bench.write(ctx, name, value)
            bench.rung = value if name == "doorbell" else 1
            await bench.write(ctx, "doorbell", bench.rung)
            await ctx.tick().repeat(100)
            assert len(bench.link.read_cycles) == reads
            await stops(ctx, bench, DmaError.BAD_RING, 0)
            await bench.reset(ctx)
        await bench.set_up(ctx)
        await bench.write(ctx, "record_low", BASE + RECORD + 4 & 0xFFFFFFFF)
        await bench.write(ctx, "doorbell", 1)
        assert split_dma_status(await bench.settle(ctx))[1] is DmaError.BAD_RING

    bench.run(test)


@pytest.mark.parametrize("after", [1, 25, 60, 95, 200])
def test_the_link_goes_down(after: int) -> None:
    """At any time: the error is LINK_DOWN, no record, but an interrupt; a reset makes the engine usable when the link
    is back."""
    bench = DmaBench(SMALL, ("down", after), size=SIZE, latency=20)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        jobs = [Descriptor(DmaKind.TO_DEVICE, 300, Region.ACTIVATION.base + 9, BASE + SOURCE)]
        jobs += [Descriptor(DmaKind.FROM_DEVICE, 300, Region.ACTIVATION.base + 9, BASE + TARGET)]
        await bench.ring(ctx, jobs * 4)
        await ctx.tick().repeat(after)
        writes = len([event for event in bench.link.events if event.startswith("write")])
        bench.host.link_up = False
        assert split_dma_status(await bench.settle(ctx)) == (DmaStatus.STOPPED, DmaError.LINK_DOWN)
        await ctx.tick().repeat(30)
        assert bench.link.events[writes:] == ["interrupt"]
        bench.host.link_up = True
        await bench.reset(ctx)
        await works(ctx, bench)

    bench.run(test)


@pytest.mark.parametrize("after", [1, 30, 60, 110, 250])
def test_reset_at_any_time(after: int) -> None:
    """What was under way ends; then nothing more happens, and the engine starts afresh."""
    bench = DmaBench(SMALL, ("reset", after), size=SIZE, latency=20, busy=0.2)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        jobs = [Descriptor(DmaKind.TO_DEVICE, 300, Region.ACTIVATION.base + 9, BASE + SOURCE), Descriptor(DmaKind.RUN)]
        jobs += [Descriptor(DmaKind.FROM_DEVICE, 300, Region.ACTIVATION.base + 9, BASE + TARGET), Descriptor(DmaKind.INTERRUPT)]
        await bench.ring(ctx, jobs * 2)
        await ctx.tick().repeat(after)
        await bench.reset(ctx)
        happened, starts = list(bench.link.events), len(bench.starts)
        await ctx.tick().repeat(200)
        assert bench.link.events == happened
        assert len(bench.starts) == starts
        await works(ctx, bench)

    bench.run(test)


def test_no_record_address_no_record() -> None:
    bench = DmaBench(SMALL, 12, size=SIZE)

    async def test(ctx: Any) -> None:
        await bench.set_up(ctx)
        await bench.write(ctx, "record_low", 0)
        await bench.write(ctx, "record_high", 0)
        await bench.ring(ctx, [Descriptor(DmaKind.INTERRUPT), BAD["kind 0"]])
        assert await bench.settle(ctx) & DmaStatus.STOPPED
        await ctx.tick().repeat(50)
        assert bench.link.events == ["interrupt", "interrupt"]
        assert await bench.register(ctx, "completed") == 1

    bench.run(test)


def test_registers() -> None:
    bench = DmaBench(SMALL, 13, size=SIZE)

    async def test(ctx: Any) -> None:
        assert await bench.register(ctx, "identity") == DMA_IDENTITY
        for number, name in enumerate(DMA_REGISTERS):
            if name not in {"control", "doorbell"}:
                await bench.write(ctx, name, 0x1111_1111 * (number + 1))
        kept = ("ring_size", "ring_low", "ring_high", "record_low", "record_high")
        for number, name in enumerate(DMA_REGISTERS):
            if name in kept:
                assert await bench.register(ctx, name) == 0x1111_1111 * (number + 1)
        assert await bench.register(ctx, "identity") == DMA_IDENTITY
        assert await bench.register(ctx, "completed") == 0
        assert await bench.register(ctx, "status") == DmaStatus.LINK_UP
        await bench.reset(ctx)
        assert [await bench.register(ctx, name) for name in kept] == [0] * len(kept)

    bench.run(test)
