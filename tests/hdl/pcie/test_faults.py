"""What becomes of a transfer when something goes wrong: its error, and that the next one is right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.pcie.endpoint_bench import EndpointBench
from support.pcie.tlp import Status, Tlp, TlpType
from support.pcie.tlp_host import Fault

from systola_firmware.spec.dma import DmaError
from systola_hdl.pcie.endpoint import TlpEndpoint

CONTENT = random.Random(5).randbytes(2000)
TIMEOUT = 400


def bench_of(**settings: int) -> EndpointBench:
    bench = EndpointBench(TlpEndpoint(20, timeout=TIMEOUT, slots=settings.pop("slots", 16)), max_payload=1, **settings)
    bench.host.write(0x1003, CONTENT)
    return bench


def on_request(number: int, fault: Fault) -> Callable[[Tlp], Fault]:
    """``fault`` befalls the request of this number, counted from 0."""
    count = iter(range(1 << 30))
    return lambda _: fault if next(count) == number else Fault()


def damaged(**changes: object) -> Callable[[Tlp], Tlp]:
    return lambda tlp: replace(tlp, **changes)  # type: ignore[arg-type]


FAULTS = {
    "unsupported": (Fault(Status.UNSUPPORTED_REQUEST), DmaError.UNSUPPORTED_REQUEST, None),
    "retry": (Fault(Status.CONFIG_RETRY), DmaError.UNSUPPORTED_REQUEST, None),
    "abort": (Fault(Status.COMPLETER_ABORT), DmaError.COMPLETER_ABORT, None),
    "poisoned": (Fault(damage=damaged(poisoned=True)), DmaError.POISONED, "poisoned"),
    "lost": (Fault(lost=True), DmaError.TIMEOUT, "timeout"),
}


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("name", FAULTS)
def test_a_failed_answer_ends_its_transfer_alone(name: str, number: int) -> None:
    """A read of eight requests, the one of this number fails; a read before and a read after it are right."""
    fault, code, event = FAULTS[name]
    bench = bench_of()
    bench.host.fault = on_request(number + 1, fault)
    bench.reads.extend([(0x1003, 100), (0x1003, 2000), (0x1003, 2000)])
    bench.simulate(lambda: len(bench.read_results) == 3)
    good = bench.read_results[1][0]
    assert bench.read_results == [(CONTENT[:100], DmaError.NONE), (good, code), (CONTENT, DmaError.NONE)]
    assert CONTENT.startswith(good)
    # All answers before it came; the last bytes of these wait for their neighbours in a word.
    assert len(good) == max(0, number * 256 - 3) // 8 * 8
    assert {event: 1} == {name: count for name, count in bench.events.items() if count} if event else not bench.events


def broken(bench: EndpointBench, change: Callable[[Tlp], Tlp]) -> None:
    """The second request's answer is not what it should be, in a way that the monitor would not let pass."""
    pending = on_request(1, Fault(lost=True))

    def fault(tlp: Tlp) -> Fault:
        answer = pending(tlp)
        if answer.lost:
            (whole,) = bench.host._completions(tlp)
            bench.host.complete(change(whole), faulty=True)
            bench.monitor.forget(tlp.tag)
        return answer

    bench.host.fault = fault


WRONG: dict[str, Callable[[Tlp], Tlp]] = {
    "byte count": lambda tlp: replace(tlp, byte_count=tlp.byte_count - 1),
    "lower address": lambda tlp: replace(tlp, lower_address=tlp.lower_address ^ 0x40),
    "more than asked for": lambda tlp: replace(tlp, length=tlp.length + 1, payload=tlp.payload + bytes(4)),
    "no data": lambda tlp: replace(tlp, type=TlpType.COMPLETION, payload=b""),
    "shorter than its length": lambda tlp: replace(tlp, payload=tlp.payload[:-4]),
    "longer than its length": lambda tlp: replace(tlp, payload=tlp.payload + bytes(4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_does_not_fit_its_request(name: str) -> None:
    bench = bench_of()
    broken(bench, WRONG[name])
    bench.reads.extend([(0x1003, 1000), (0x1003, 2000)])
    bench.simulate(lambda: len(bench.read_results) == 2)
    assert bench.read_results == [(CONTENT[:248], DmaError.MALFORMED), (CONTENT, DmaError.NONE)]
    assert bench.events["malformed"] == 1


STRANGE: dict[str, Callable[[Tlp], Tlp]] = {
    "tag of no slot": lambda tlp: replace(tlp, tag=tlp.tag | 0x20),
    "tag not in use": lambda tlp: replace(tlp, tag=tlp.tag ^ 0x10),
    "another requester": lambda tlp: replace(tlp, requester=tlp.requester ^ 1),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_answer_that_nobody_waits_for(name: str) -> None:
    """It is dropped and counted; the request's own answer never comes."""
    bench = bench_of()
    broken(bench, STRANGE[name])
    bench.reads.extend([(0x1003, 1000), (0x1003, 2000)])
    bench.simulate(lambda: len(bench.read_results) == 2)
    assert bench.read_results == [(CONTENT[:248], DmaError.TIMEOUT), (CONTENT, DmaError.NONE)]
    assert (bench.events["unexpected"], bench.events["timeout"], bench.events["malformed"]) == (1, 1, 0)
    assert bench.unexpected == 1


def test_an_answer_marked_as_bad_by_the_block_below() -> None:
    bench = bench_of()

    def fault(_: Tlp) -> Fault:
        bench.error_beat = 5
        bench.host.fault = lambda _: Fault()
        return Fault()

    bench.host.fault = fault
    bench.reads.extend([(0x1003, 253), (0x1003, 2000)])

    def every() -> None:
        if bench.read_results:
            for tag in bench.monitor.device_tags:
                bench.monitor.forget(tag)

    bench.simulate(lambda: len(bench.read_results) == 2, every=every)
    assert bench.read_results == [(b"", DmaError.TIMEOUT), (CONTENT, DmaError.NONE)]


def test_late_answers_harm_nobody_and_give_their_tags_back() -> None:
    """Every answer is lost until no slot has a tag left; then reads fail at once. The late answers come, and all is
    well."""
    bench = bench_of(slots=2)
    bench.host.fault = lambda _: Fault(lost=True)
    bench.reads.extend([(0x1003, 2000)] * 3)
    tags: list[int] = []
    requests: list[int] = []

    def every() -> None:
        tags.append(len(bench.monitor.device_tags))
        if len(bench.read_results) == 3 and not requests:
            requests.append(bench.cycle)
            assert max(tags) == 4
            bench.host.fault = lambda _: Fault()
            for tag in bench.monitor.device_tags:
                bench.monitor.forget(tag)
            bench.host.send_late()
        # Only when the late answers have come does the device ask again.
        if requests and bench.host.quiet and bench.cycle > requests[0] + 400 and len(bench.reads) == 0 and len(requests) == 1:
            requests.append(bench.cycle)
            bench.reads.append((0x1003, 2000))

    bench.simulate(lambda: len(bench.read_results) == 4, every=every)
    assert bench.read_results == [(b"", DmaError.TIMEOUT)] * 3 + [(CONTENT, DmaError.NONE)]
    assert bench.events["timeout"] == 4
    assert bench.events["unexpected"] == bench.unexpected >= 4


def test_the_timeout_is_not_counted_afresh_for_what_is_left() -> None:
    bench = bench_of()
    bench.host.fault = lambda _: Fault(lost=True)
    bench.reads.append((0x1003, 2000))
    bench.simulate(lambda: bench.read_results != [] and bench.events.get("timeout") == 8, limit=TIMEOUT + 100)
    assert bench.read_results == [(b"", DmaError.TIMEOUT)]
    assert bench.cycle > TIMEOUT


def test_without_bus_master_enable_nothing_is_sent() -> None:
    bench = bench_of(bus_master_enable=0)

    def every() -> None:
        if bench.cycle == 3:
            bench.reads.extend([(0x1003, 2000), (0x1003, 8)])
            bench.writes.extend([(0x5000, CONTENT), (0x5001, b"a")])

    bench.simulate(lambda: len(bench.read_results) == 2 == len(bench.write_results), every=every)
    assert bench.read_results == [(b"", DmaError.BUS_MASTER_DISABLED)] * 2
    assert bench.write_results == [DmaError.BUS_MASTER_DISABLED] * 2
    assert bench.sent_beats == 0


@pytest.mark.parametrize("seed", [0, 1, 4, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(10, 30))])
def test_the_link_falls_in_mid_transfer(seed: int) -> None:
    """What was under way ends with LINK_DOWN, what comes while the link is down too, and what comes after it is right.

    A write of which nothing had been sent when the link was back again is as good as one that came after.
    """
    rng = random.Random(seed)
    bench = EndpointBench(TlpEndpoint(20, timeout=5000), seed=seed, stalls=rng.choice((0.0, 0.4)), reorder=True, max_payload=1)
    bench.host.write(0x1003, CONTENT)
    untouched = bench.host.read(0x9001, 2000)
    falls = [rng.randint(5, 300)]
    falls += [falls[0] + rng.randint(1, 60)]
    rises, begun = [], []

    def every() -> None:
        down = falls[0] <= bench.cycle < falls[1]
        if bench.cycle == falls[0]:
            sends_data = bool(bench.packet) and bool(bench.packet[0][0] >> 30 & 1)
            begun.append(sends_data or bench.host.read(0x9001, 2000) != untouched)
            bench.host.reset()
        if bench.cycle < falls[1] + 600 and len(bench.reads) < 1 and bench.cycle > 3:
            bench.reads.append((0x1003, 2000))
        if bench.cycle < falls[1] + 600 and len(bench.writes) < 1 and bench.cycle > 3:
            bench.writes.append((0x9001, CONTENT))
        bench.configure(link_up=int(not down))
        if bench.cycle == falls[1]:
            rises.append((len(bench.read_results), len(bench.write_results)))

    def over() -> bool:
        return bench.cycle > falls[1] + 700 and not bench.reads and not bench.writes and bench.idle

    bench.simulate(over, every=every)
    results = [code for _, code in bench.read_results]
    for content, code in bench.read_results:
        assert content == CONTENT if code == DmaError.NONE else CONTENT.startswith(content)
    for codes in (results, bench.write_results):
        if codes is bench.write_results and begun == [False] and DmaError.LINK_DOWN not in codes:
            assert set(codes) == {DmaError.NONE}
            continue
        assert set(codes) == {DmaError.NONE, DmaError.LINK_DOWN}
        assert codes[-1] == DmaError.NONE
        # Before the fall all is well, from the first failure on until the link is back nothing is, then all again.
        first, last = codes.index(DmaError.LINK_DOWN), len(codes) - codes[::-1].index(DmaError.LINK_DOWN)
        assert set(codes[first:last]) == {DmaError.LINK_DOWN}
    assert bench.host.read(0x9001, 2000) == CONTENT
    bench.monitor.finish()
