"""A test of the tests: faults planted in the endpoint, each of which the monitor or the host must notice."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support.benches.planted import Fault, with_fault
from support.pcie.endpoint_bench import EndpointBench
from support.pcie.tlp import Status, Tlp, TlpType, memory_read, memory_write
from support.pcie.tlp_monitor import TlpViolation

from systola_firmware.spec.dma import DmaError

HOST, BAR, HIGH = 0x0018, 0xE300_0000, 0x7_0000_0000


def session(fault: Fault | None) -> None:
    """Some of everything: words of all byte enables, refusals, transfers of all alignments, a message. Fails if all is
    not well."""
    planted = fault and replace(fault, module=f"tlp.{fault.module}")
    endpoint = with_fault("systola_hdl.pcie", "endpoint", planted)
    rng = random.Random(7)
    bench = EndpointBench(endpoint.TlpEndpoint(20, message=True, timeout=600), max_read_request=0, reorder=True, seed=7)
    content = rng.randbytes(600)
    tag, expected = 40, {}
    words = {0x30_0078: 0, 0x10_007C: 0}
    for index, enables in enumerate((0b1111, 0b0110, 0b0001, 0b1001, 0b1000, 0b0000, 0b0100)):
        address, word = list(words.items())[index % 2]
        new = rng.getrandbits(32)
        mask = sum(0xFF << 8 * byte for byte in range(4) if enables >> byte & 1)
        word = (word & ~mask) | (new & mask)
        words[address] = word
        write = memory_write(BAR + address, new.to_bytes(4, "little"), requester=HOST, tag=tag + 100)
        read = memory_read(BAR + address, requester=HOST, tag=tag, traffic_class=3, attributes=5)
        bench.host.request(replace(write, first_be=enables))
        bench.host.request(replace(read, first_be=enables))
        expected[tag] = (Status.SUCCESSFUL, word.to_bytes(4, "little"))
        tag += 3
    refused = [memory_read(BAR, 30), Tlp(TlpType.IO_WRITE, address=0x80, payload=bytes(4)), memory_read(BAR + 0x8000)]
    for tlp in refused:
        bench.host.request(replace(tlp, requester=HOST, tag=tag))
        expected[tag] = (Status.UNSUPPORTED_REQUEST, b"")
        tag += 3
    reads = [(0x1FF1, 1), (0x9FA1, 420), (HIGH + 0x3FF5, 40), (HIGH + 0x5004, 130)]
    writes = [(0x2003, 1), (0x2FA1, 300), (HIGH + 0x2FFC, 9), (HIGH + 0x8000, 140), (0x6002, 3)]
    for address, size in reads:
        bench.host.write(address, content[:size])
    bench.reads.extend(reads)
    bench.writes.extend((address, content[:size]) for address, size in writes)
    ends: list[int] = []

    def every() -> None:
        if len(bench.write_results) == len(writes) and not bench.interrupts:
            bench.interrupt, bench.interrupts = 1, 1
        if bench.host.messages and not ends and len(bench.read_results) == len(reads):
            ends.append(bench.cycle + 40)  # for what should not come any more

    bench.simulate(
        lambda: bool(ends) and bench.cycle > ends[0] and len(bench.host.answers) == len(expected), every=every, limit=1500
    )
    assert bench.read_results == [(content[:size], DmaError.NONE) for _, size in reads]
    assert bench.write_results == [DmaError.NONE] * len(writes)
    for address, size in writes:
        assert bench.host.read(address - 1, size + 2) == b"\0" + content[:size] + b"\0"
    assert bench.host.messages == [0x4321]
    assert {tag: (answer.status, answer.payload) for tag, answer in bench.host.answers.items()} == expected
    assert bench.events["unexpected"] == bench.events["malformed"] == bench.events["timeout"] == 0
    bench.monitor.finish()


#: What is wrong: the fault, and the monitor's rule that it breaks; None: the monitor has no rule for it, the host
#: notices.
FAULTS: dict[str, tuple[Fault, str | None]] = {
    "completion: lower address 0": (
        Fault(
            "completer",
            "third.lower_address.eq(Mux(request.memory, Cat(lower, request.address[2:7]), 0))",
            "third.lower_address.eq(0)",
        ),
        "lower address",
    ),
    "completion: byte count always 4": (
        Fault("completer", "second.byte_count.eq(count)", "second.byte_count.eq(4)"),
        "byte count",
    ),
    "completion: byte count 8": (Fault("completer", "second.byte_count.eq(count)", "second.byte_count.eq(8)"), "byte count"),
    "completion: another tag": (
        Fault("completer", "third.tag.eq(request.request.tag)", "third.tag.eq(request.request.tag ^ 1)"),
        "unexpected completion",
    ),
    "completion: another requester": (
        Fault("completer", "third.requester.eq(request.request.requester)", "third.requester.eq(request.request.requester ^ 1)"),
        "unexpected completion",
    ),
    "request of one dword: last enables": (
        Fault("splitter", "segment.last_be.eq(Mux(one, 0, ends))", "segment.last_be.eq(ends)"),
        "last byte enables",
    ),
    "request: no first enables": (
        Fault("splitter", "segment.first_be.eq(Mux(one, begins & ends, begins))", "segment.first_be.eq(0)"),
        "first byte enables",
    ),
    "write: length one too great": (
        Fault("write_requester", "first.length.eq(at_hand.dwords)", "first.length.eq(at_hand.dwords + 1)"),
        "length",
    ),
    "write: ends early": (Fault("write_requester", "o.last.eq(left <= 2)", "o.last.eq(left <= 4)"), "length"),
    "word: enables of a write ignored": (
        Fault("completer", "bus.request.payload.data.eq(merged)", "bus.request.payload.data.eq(written)"),
        None,
    ),
    "word: a posted write is answered": (
        Fault(
            "completer",
            'self.events.unsupported.eq(bus.response.payload.error)\n                    m.next = "IDLE"',
            'self.events.unsupported.eq(bus.response.payload.error)\n                    m.next = "HEADER"',
        ),
        "unexpected completion",
    ),
    "message: sent twice": (
        Fault("interrupter", "(waiting & ~begin) | self.event", "(waiting & ~(begin & self.o.payload.last)) | self.event"),
        None,
    ),
    "answer: second dword of a beat ignored": (
        Fault("slots", "write.en.eq(Mux(later, lanes[1], lanes[0]))", "write.en.eq(~later & lanes[0])"),
        None,
    ),
}

MORE: dict[str, tuple[Fault, str | None]] = {
    "word: not read before it is written in part": (
        Fault("completer", "with m.Elif(request.write & enables.all()):", "with m.Elif(request.write):"),
        None,
    ),
    "completion: another completer": (
        Fault("completer", "second.completer.eq(self.function_id)", "second.completer.eq(self.function_id ^ 8)"),
        "completer",
    ),
    "completion: success where there is nothing": (
        Fault("completer", "Mux(refused, CompletionStatus.UNSUPPORTED_REQUEST, CompletionStatus.SUCCESSFUL)", "0"),
        "status",
    ),
    "completion: traffic class": (
        Fault("completer", "header.traffic_class.eq(request.traffic_class)", "header.traffic_class.eq(0)"),
        "traffic class",
    ),
    "completion: attributes": (
        Fault("completer", "header.attributes_high.eq(request.attributes[2])", "header.attributes_high.eq(0)"),
        "traffic class",
    ),
    "completion: none for what is refused": (
        Fault(
            "completer",
            'refused.eq(1)\n                        m.next = "HEADER"',
            'refused.eq(1)\n                        m.next = "IDLE"',
        ),
        None,
    ),
    "request: another requester": (
        Fault("read_requester", "request.requester.eq(self.function_id)", "request.requester.eq(0)"),
        "requester",
    ),
    "read: more than the largest request": (
        Fault("read_requester", "splitter.wide.eq(self.wide)", "splitter.wide.eq(1)"),
        "max read request",
    ),
    "write: more than the largest payload": (
        Fault("write_requester", "splitter.wide.eq(self.wide)", "splitter.wide.eq(1)"),
        "max payload",
    ),
    "request: across 4 KiB": (
        Fault("splitter", "place.eq(Mux(self.wide, address[:_OFFSET_BITS], address[: _OFFSET_BITS - 1]))", "place.eq(address[:2])"),
        "4 KiB",
    ),
    "request: four dwords for a low address": (
        Fault("read_requester", "header.long.eq(segment.long)", "header.long.eq(1)"),
        "address format",
    ),
    "request: three dwords for a high address": (
        Fault("write_requester", "long = at_hand.long", "long = at_hand.long & 0"),
        None,
    ),
    "read: one tag for all": (Fault("slots", "self.tag.eq(tail | use << TAG_BITS - 1)", "self.tag.eq(3)"), "tag reuse"),
    "read: tags too wide": (
        Fault(
            "read_requester",
            "Cat(segment.first_be, segment.last_be, slots.tag)",
            "Cat(segment.first_be, segment.last_be, slots.tag | 32)",
        ),
        "tag",
    ),
    "read: last enables of all": (
        Fault("splitter", "m.d.comb += ends.eq(0xF >> (-value % 4))", "m.d.comb += ends.eq(0xF)"),
        None,
    ),
    "write: no first enables but all": (
        Fault("splitter", "m.d.comb += begins.eq(0xF << value & 0xF)", "m.d.comb += begins.eq(0xF)"),
        None,
    ),
    "packet: a pause": (
        Fault("write_requester", 'fsm.ongoing("DATA")', '(fsm.ongoing("DATA") & (left != 7))'),
        "pause",
    ),
    "packet: keep of the last beat": (Fault("write_requester", "o.keep.eq(Mux(left == 1, 1, 3))", "o.keep.eq(3)"), "length"),
    "message: enables": (Fault("interrupter", "second.first_be.eq(0xF)", "second.first_be.eq(0x3)"), None),
    "answer: order of slots": (
        Fault("slots", "read.addr.eq(Cat(self.read_word, head))", "read.addr.eq(Cat(self.read_word, slot))"),
        None,
    ),
    "answer: offset of what follows": (
        Fault("slots", "advanced.data.place.eq(Mux(c.lanes[0], following, place))", "advanced.data.place.eq(place)"),
        None,
    ),
}


def check(name: str, fault: Fault, rule: str | None) -> None:
    with pytest.raises(AssertionError) as caught:
        session(fault)
    if rule is not None:
        assert isinstance(caught.value, TlpViolation), f"{name}: {caught.value}"
        assert caught.value.rule == rule


def test_the_endpoint_as_it_is() -> None:
    session(None)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_noticed(name: str) -> None:
    check(name, *FAULTS[name])


@pytest.mark.full
@pytest.mark.parametrize("name", MORE)
def test_more_planted_faults_are_noticed(name: str) -> None:
    check(name, *MORE[name])
