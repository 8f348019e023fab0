"""The endpoint's transfers: reads and writes of the host's memory, against a host of TLPs in Python and the monitor of
TLPs."""

from __future__ import annotations

import random

import pytest
from support.pcie.endpoint_bench import EndpointBench

from systola_firmware.spec.dma import DmaError
from systola_hdl.pcie.endpoint import TlpEndpoint

HIGH = 0x12_3456_0000


def lengths(rng: random.Random, most: int) -> int:
    """Small ones, those around the limits, and all others."""
    near = rng.choice((1, 2, 4, 8, 64, 128, 256, 512, 1024, 2048, 4096)) + rng.randint(-3, 3)
    return max(1, min(most, rng.choice((near, near, rng.randint(1, 24), rng.randint(1, most)))))


def transfer(seed: int, *, count: int, most: int, stalls: float) -> EndpointBench:
    """Transfers both ways at random addresses, with random settings, checked byte for byte."""
    rng = random.Random(seed)
    function = {
        "max_payload": rng.randint(0, 2),
        "max_read_request": rng.randint(0, 5),
        "read_completion_boundary": rng.randint(0, 1),
    }
    dut = TlpEndpoint(20, slots=rng.choice((8, 16)), timeout=100_000)
    bench = EndpointBench(dut, seed=seed, stalls=stalls, reorder=True, **function)
    asked, written = [], {}
    at = rng.randint(0, 4200)
    for _ in range(count):
        length = lengths(rng, most)
        base = rng.choice((0x10_0000, HIGH)) + at
        content, given = rng.randbytes(length), rng.randbytes(length)
        bench.host.write(base, content)
        bench.reads.append((base, length))
        asked.append((content, DmaError.NONE))
        there = base + 0x100_0000
        bench.writes.append((there, given))
        bench.host.write(there - 9, b"\xa5" * (length + 18))
        written[there] = given
        at += length + 18 + rng.randint(0, 4200)
    limit = 2000 + 20 * count * most
    bench.simulate(lambda: len(bench.read_results) == count == len(bench.write_results) and bench.idle, limit=limit)
    assert bench.read_results == asked
    assert bench.write_results == [DmaError.NONE] * count
    for there, given in written.items():
        guard = b"\xa5" * 9
        assert bench.host.read(there - 9, len(given) + 18) == guard + given + guard
    assert not bench.events
    bench.monitor.finish()
    return bench


@pytest.mark.parametrize("seed", range(3, 6))
def test_random_transfers(seed: int) -> None:
    transfer(seed, count=8, most=600, stalls=(0.0, 0.3, 0.6)[seed % 3])


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_random_transfers(seed: int) -> None:
    transfer(seed, count=40, most=5000, stalls=(0.0, 0.2, 0.5, 0.8)[seed % 4])


@pytest.mark.full
@pytest.mark.parametrize("seed", [200, 201, 202])
def test_transfers_of_64_kib(seed: int) -> None:
    transfer(seed, count=3, most=1 << 16, stalls=0.1)


@pytest.mark.parametrize("offset", [0, 3, 5, *(pytest.param(offset, marks=pytest.mark.full) for offset in (1, 2, 4, 6, 7))])
def test_every_alignment_of_every_small_length(offset: int) -> None:
    bench = EndpointBench(TlpEndpoint(20))
    sizes = range(1, 20)
    memory = bytes(range(1, 65)) * len(sizes)
    bench.host.write(0x1000, memory)
    for index, size in enumerate(sizes):
        bench.reads.append((0x1000 + 64 * index + offset, size))
        bench.writes.append((HIGH * (index % 2) + 64 * index + offset, memory[:size]))
    bench.simulate(lambda: len(bench.read_results) == len(sizes) == len(bench.write_results) and bench.idle)
    assert bench.read_results == [(memory[offset : offset + size], DmaError.NONE) for size in sizes]
    for index, size in enumerate(sizes):
        around = bytes(offset) + memory[:size] + bytes(32 - offset - size)
        assert bench.host.read(HIGH * (index % 2) + 64 * index, 32) == around


@pytest.mark.parametrize("address", [0x10000, HIGH])
def test_throughput_at_a_payload_of_256_bytes(address: int) -> None:
    """Nearly all that the interface can carry: 34 beats for 256 bytes, each way and both at once."""
    size = 1 << 12
    bench = EndpointBench(TlpEndpoint(20), max_payload=1)
    content = random.Random(1).randbytes(size)
    bench.host.write(address, content)
    bench.reads.append((address, size))
    bench.writes.append((address + 0x10_0000, content))
    bench.simulate(lambda: bench.read_results != [] and bench.write_results != [])
    assert bench.read_results[0][0] == content == bench.host.read(address + 0x10_0000, size)
    best = 34 * size // 256
    # The writes share their beats with two for each of the read requests. Filling the pipeline is counted.
    assert bench.sent_beats <= best + 2 * (size // 256 + 1) + 4
    assert bench.cycle <= best + 2 * size // 256 + 100
    assert bench.monitor.most_outstanding >= 8


def test_outstanding_reads_fill_the_slots() -> None:
    """Nothing is answered until every slot is in use; then the answers come in any order."""
    bench = EndpointBench(TlpEndpoint(20, slots=8), reorder=True, seed=3)
    content = random.Random(2).randbytes(4096)
    bench.host.write(0x1000, content)
    step = bench.host.step

    def patient() -> None:
        if bench.monitor.most_outstanding == 8:
            step()

    bench.host.step = patient  # type: ignore[method-assign]
    bench.reads.append((0x1000, 4096))
    bench.simulate(lambda: bench.read_results != [])
    assert bench.read_results == [(content, DmaError.NONE)]
    assert bench.monitor.most_outstanding == 8
