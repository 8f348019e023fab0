# amaranth: UnusedElaboratable=no
"""What the endpoint answers to requests of the host: words, byte enables, refusals, messages."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support.pcie.endpoint_bench import FUNCTION_ID, EndpointBench
from support.pcie.tlp import Status, Tlp, TlpType, memory_read, memory_write

from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import bar_offset, map_address
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.pcie.tlp.completer import TlpCompleter

WINDOW = 20
BAR = 0xF100_0000
HOST = 0x0010


def merge(word: int, new: int, enables: int) -> int:
    mask = sum(0xFF << 8 * byte for byte in range(4) if enables >> byte & 1)
    return (word & ~mask) | (new & mask)


@pytest.mark.parametrize(("seed", "stalls"), [(1, 0.0), (2, 0.5)])
def test_random_words(seed: int, stalls: float) -> None:
    """Reads and writes with all byte enables at all addresses, 32 and 64 bits of address; answered in the order of a
    plain memory."""
    rng = random.Random(seed)
    bench = EndpointBench(TlpEndpoint(WINDOW), seed=seed, stalls=stalls)
    model: dict[int, int] = {}
    expected: dict[int, tuple[int, int | None]] = {}
    tag = 0
    for _ in range(200):
        bar = rng.choice((BAR, 0x78_0000_0000))
        offset = bar_offset((rng.randint(0, 5) << 28) | 4 * rng.randint(0, 5), WINDOW)
        address, enables = map_address(offset, WINDOW), rng.randint(0, 15)
        attributes = {"traffic_class": rng.randint(0, 7), "attributes": rng.randint(0, 7)}
        if rng.random() < 0.5:
            value = rng.getrandbits(32)
            tlp = memory_write(bar + offset, value.to_bytes(4, "little"), requester=HOST, **attributes)
            model[address] = merge(model.get(address, 0), value, enables)
        else:
            tlp = memory_read(bar + offset, 4, requester=HOST, tag=tag, **attributes)
            expected[tag] = (Status.SUCCESSFUL, model.get(address, 0))
            tag += 1
        bench.host.request(replace(tlp, first_be=enables))
    bench.host.request(memory_read(BAR, requester=HOST, tag=tag))
    expected[tag] = (Status.SUCCESSFUL, model.get(map_address(0, WINDOW), 0))
    bench.simulate(lambda: len(bench.host.answers) == len(expected))
    for tag, answer in bench.host.answers.items():
        assert (answer.status, int.from_bytes(answer.payload, "little")) == expected[tag]
    assert {address: word for address, word in bench.words.items() if word} == {a: w for a, w in model.items() if w}
    assert not bench.events
    bench.monitor.finish()


NON_POSTED = [
    memory_read(BAR + 8, 8),
    memory_read(BAR + 3, 14),
    memory_read(BAR, 4096),
    Tlp(TlpType.MEMORY_READ_LOCKED_32, address=BAR),
    Tlp(TlpType.MEMORY_READ_LOCKED_64, address=BAR | 1 << 40),
    Tlp(TlpType.IO_READ, address=0x3F8),
    Tlp(TlpType.IO_WRITE, address=0x3F8, payload=bytes(4)),
    Tlp(TlpType.CONFIG_READ_0, completer=FUNCTION_ID),
    Tlp(TlpType.CONFIG_WRITE_0, completer=FUNCTION_ID, payload=bytes(4)),
    Tlp(TlpType.CONFIG_READ_1, completer=FUNCTION_ID),
    Tlp(TlpType.CONFIG_WRITE_1, completer=FUNCTION_ID, payload=bytes(4)),
    Tlp(TlpType.FETCH_ADD_32, address=BAR, payload=bytes(4)),
    Tlp(TlpType.SWAP_32, address=BAR, payload=bytes(4)),
    Tlp(TlpType.COMPARE_AND_SWAP_32, address=BAR, length=2, payload=bytes(8)),
    Tlp(TlpType.SWAP_64, address=BAR | 1 << 40, length=2, payload=bytes(8)),
    Tlp(TlpType.COMPARE_AND_SWAP_64, address=BAR | 1 << 40, length=4, payload=bytes(16)),
    Tlp(TlpType.FETCH_ADD_64, address=BAR | 1 << 40, length=2, payload=bytes(8)),
]


def test_other_requests_are_refused() -> None:
    """Each of these has exactly one completion, Unsupported Request without data, and none reaches the bus."""
    bench = EndpointBench(TlpEndpoint(WINDOW), stalls=0.2)
    for tag, tlp in enumerate(NON_POSTED):
        bench.host.request(replace(tlp, requester=HOST, tag=tag))
    missed = len(NON_POSTED)
    bench.host.request(memory_read(0x4000, requester=HOST, tag=missed), bar_hit=False)
    bench.simulate(lambda: len(bench.host.answers) == missed + 1)
    assert {answer.status for answer in bench.host.answers.values()} == {Status.UNSUPPORTED_REQUEST}
    assert bench.accesses == []
    assert bench.events == {"unsupported": missed + 1, "posted": 0, "poisoned": 0, "malformed": 0, "unexpected": 0, "timeout": 0}
    bench.monitor.finish()


def probe(bench: EndpointBench) -> None:
    """A good read at the end: everything before it has had its effect, and the endpoint lives."""
    bench.words[map_address(4, WINDOW)] = 0x600D_F00D
    bench.host.request(memory_read(BAR + 4, requester=HOST, tag=99))
    bench.simulate(lambda: 99 in bench.host.answers)
    assert bench.host.answers[99].payload == b"\x0d\xf0\x0d\x60"
    bench.monitor.finish()


def test_posted_requests_are_never_answered() -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW))
    bench.host.request(memory_write(BAR, bytes(8), requester=HOST))
    bench.host.request(memory_write(BAR, bytes(4), requester=HOST), bar_hit=False)
    bench.host.request(replace(memory_write(BAR, bytes(4), requester=HOST), poisoned=True))
    bench.host.request(Tlp(TlpType.MESSAGE_LOCAL, requester=HOST, length=0, tag=3))
    bench.host.request(Tlp(TlpType.MESSAGE_DATA_LOCAL, requester=HOST, length=1, payload=bytes(4)))
    probe(bench)
    assert bench.accesses == [(map_address(4, WINDOW), 0)]
    assert bench.host.answers.keys() == {99}
    assert bench.events == {"unsupported": 2, "posted": 2, "poisoned": 1, "malformed": 0, "unexpected": 0, "timeout": 0}


def test_where_there_is_no_memory() -> None:
    """A read is refused; a write, whole or in part, is reported."""
    bench = EndpointBench(TlpEndpoint(WINDOW))
    bench.host.request(memory_read(BAR + 0x8000, requester=HOST, tag=1))
    bench.host.request(memory_write(BAR + 0x8000, bytes(4), requester=HOST))
    bench.host.request(memory_write(BAR + 0x8000, bytes(3), requester=HOST))
    probe(bench)
    assert bench.host.answers[1].status == Status.UNSUPPORTED_REQUEST
    assert (bench.events["unsupported"], bench.events["posted"]) == (3, 2)


def test_malformed_packets_are_dropped() -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW))
    bad = [
        Tlp(TlpType.MEMORY_WRITE_32, address=BAR, payload=bytes(8)),
        Tlp(TlpType.MEMORY_WRITE_32, address=BAR, length=2, payload=bytes(4)),
        Tlp(TlpType.MEMORY_WRITE_64, address=BAR),
        Tlp(TlpType.MEMORY_READ_32, address=BAR, payload=bytes(4)),
        Tlp(TlpType.MEMORY_READ_32, address=BAR, payload=bytes(4096)),
        Tlp(TlpType.CONFIG_WRITE_0),
        Tlp(TlpType.MEMORY_WRITE_32, address=BAR, length=1024, payload=bytes(4104)),
    ]
    for tlp in bad:
        bench.host.request(replace(tlp, requester=HOST), faulty=True)
    words = memory_read(BAR, requester=HOST).dwords()
    bench.host.sent.append((words[:2], True))  # shorter than a header
    bench.host.sent.append(([*memory_read(1 << 40).dwords()[:3]], True))
    bench.host.sent.append(([words[0] | 0x80_00_00_00, *words[1:]], True))  # a prefix
    bench.host.sent.append(([words[0] | 0x1F_00_00_00, *words[1:]], True))  # no type of any kind
    probe(bench)
    assert bench.events["malformed"] == len(bad) + 4
    assert bench.accesses == [(map_address(4, WINDOW), 0)]


@pytest.mark.parametrize("beat", [0, 1, 2])
def test_packets_that_the_block_below_marks_as_bad(beat: int) -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW))
    content = memory_write(1 << 40 | BAR, bytes(4), requester=HOST)
    bench.error_beat = beat
    bench.host.request(content)
    probe(bench)
    assert bench.accesses == [(map_address(4, WINDOW), 0)]
    assert not bench.events


def test_requests_wait_for_the_completer_without_holding_completions_back() -> None:
    """As many reads as are promised can wait while nothing leaves; completions still pass them."""
    bench = EndpointBench(TlpEndpoint(WINDOW))
    content = bytes(range(1, 201))
    bench.host.write(0x1000, content)
    bench.reads.append((0x1000, 200))
    started: list[int] = []

    def every() -> None:
        # Once the device's read is on its way, the bus stops answering; then requests come, and after them the
        # completion.
        if bench.monitor.packets and not started:
            started.append(bench.cycle)
            bench.bus_stalled = True
            sent = list(bench.host.sent)
            bench.host.sent.clear()
            for tag in range(TlpCompleter.queue):
                bench.host.request(memory_read(BAR, requester=HOST, tag=tag))
            bench.host.sent.extend(sent)
        if bench.read_results:
            bench.bus_stalled = False

    bench.simulate(lambda: len(bench.host.answers) == TlpCompleter.queue, every=every)
    assert bench.read_results == [(content, DmaError.NONE)]


@pytest.mark.parametrize("address", [0xFEE0_0000, 0x1_FEE0_0000])
def test_an_interrupt_is_a_message_behind_the_writes(address: int) -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW, message=True), stalls=0.3)
    bench.host.message_address = bench.message["address"] = address
    bench.writes.append((0x1000, bytes(range(1, 101))))

    def every() -> None:
        if bench.write_results and not bench.interrupts:
            bench.interrupt, bench.interrupts = 1, 1
        if bench.host.messages:
            assert bench.host.read(0x1000, 100) == bytes(range(1, 101))

    bench.simulate(lambda: bool(bench.host.messages) and bench.cycle > 300, every=every)
    assert bench.host.messages == [0x4321]
    bench.monitor.finish()


@pytest.mark.parametrize("reason", ["enable", "bus_master_enable"])
def test_no_message_unless_allowed(reason: str) -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW, message=True))
    (bench.message if reason == "enable" else bench.function)[reason] = 0

    def every() -> None:
        bench.interrupt = int(bench.cycle == 10)
        if bench.cycle == 20:  # and not later either: the event is lost
            bench.message["enable"] = 1
            bench.configure(bus_master_enable=1)

    bench.simulate(lambda: bench.cycle == 60, every=every)
    assert bench.host.messages == []


def test_a_hard_block_is_asked_for_each_message() -> None:
    bench = EndpointBench(TlpEndpoint(WINDOW))
    acknowledged: list[int] = []

    def every() -> None:
        bench.interrupt = int(bench.cycle in (10, 14, 22))
        bench.message["acknowledge"] = int(bench.cycle in (20, 22, 30) and bench.message_request)
        if bench.message["acknowledge"]:
            acknowledged.append(bench.cycle)

    bench.simulate(lambda: bench.cycle == 50, every=every)
    # Those of 10 and 14 are one, the third comes with the acknowledgement in 22 that nobody has asked for.
    assert acknowledged == [20, 30]


@pytest.mark.parametrize("window", [11, 29])
def test_windows_that_cannot_be(window: int) -> None:
    with pytest.raises(ValueError, match=f"window {window}: must be from 12 to 28"):
        TlpEndpoint(window)


@pytest.mark.parametrize(
    ("parameters", "message"), [({"slots": 3}, "slots 3: must be 2, 4, 8 or 16"), ({"timeout": 0}, "timeout 0: must be at")]
)
def test_parameters_that_cannot_be(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TlpEndpoint(WINDOW, **parameters)
