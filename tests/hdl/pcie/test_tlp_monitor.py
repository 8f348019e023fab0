"""The monitor of TLPs by itself: it is silent about what is right, and names the rule that anything else breaks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.pcie.tlp import (
    Status,
    Tlp,
    TlpType,
    byte_enables,
    completion_count,
    completion_lower_address,
    from_beats,
    memory_read,
    memory_write,
    to_beats,
)
from support.pcie.tlp_monitor import TlpMonitor, TlpViolation

DEVICE, HOST = 0x0200, 0x0008


def monitor() -> TlpMonitor:
    return TlpMonitor(function_id=DEVICE, max_payload=128, max_read_request=256)


def completion(request: Tlp, length: int | None = None, **changes: object) -> Tlp:
    """The one completion of a memory read, of a function other than the requester's."""
    completer = HOST if request.requester == DEVICE else DEVICE
    size = request.length if length is None else length
    tlp = Tlp(TlpType.COMPLETION_DATA, length=size, requester=request.requester, tag=request.tag, completer=completer)
    tlp.byte_count, tlp.lower_address = completion_count(request), completion_lower_address(request)
    tlp.payload = bytes(4 * size)
    return replace(tlp, **changes)  # type: ignore[arg-type]


def device_read(address: int = 0x1000, length: int = 64, **fields: int) -> Tlp:
    return memory_read(address, length, **({"requester": DEVICE, "tag": 1} | fields))


def device_write(address: int = 0x1000, content: bytes = bytes(64), **fields: int) -> Tlp:
    return memory_write(address, content, **({"requester": DEVICE} | fields))


#: A request of the device that breaks the rule.
BAD_REQUESTS: dict[str, list[Tlp]] = {
    "type": [Tlp(TlpType.IO_READ, requester=DEVICE), Tlp(TlpType.MEMORY_READ_LOCKED_32, requester=DEVICE)],
    "poisoned": [replace(device_write(), poisoned=True)],
    "digest": [replace(device_read(), digest=True)],
    "requester": [device_read(requester=HOST), device_write(requester=HOST)],
    "tag": [device_read(tag=32)],
    "length": [replace(device_write(), length=15), replace(device_write(), length=17), replace(device_read(), payload=bytes(4))],
    "max payload": [device_write(content=bytes(132))],
    "max read request": [device_read(length=260), device_read(0x1003, 256)],
    "4 KiB": [device_read(0x1FFC, 5), device_write(0x1FC4, bytes(64))],
    "address": [replace(device_read(), address=0x1002)],
    "address format": [
        replace(device_read(), type=TlpType.MEMORY_READ_64),
        replace(device_write(), type=TlpType.MEMORY_WRITE_64),
    ],
    "last byte enables": [
        replace(device_read(length=4), last_be=0xF),
        replace(device_write(content=bytes(3)), last_be=1),
        replace(device_read(), last_be=0),
        replace(device_read(), last_be=0b1110),
        replace(device_read(), last_be=0b0101),
    ],
    "first byte enables": [
        replace(device_write(content=bytes(4)), first_be=0),
        replace(device_write(), first_be=0),
        replace(device_read(), first_be=0b0111),
        replace(device_read(), first_be=0b1010),
    ],
}


@pytest.mark.parametrize("rule", BAD_REQUESTS)
def test_bad_requests(rule: str) -> None:
    for tlp in BAD_REQUESTS[rule]:
        with pytest.raises(TlpViolation) as caught:
            monitor().from_device(tlp.dwords())
        assert caught.value.rule == rule, tlp


def test_good_requests() -> None:
    watch = monitor()
    for address in (0x1000, 0x1FFF, 1 << 32, (1 << 64) - 256):
        for length in (1, 2, 3, 4, 5, 127):
            if address % 4096 + length <= 4096:
                watch.from_device(device_write(address, bytes(length)).dwords())
    for tag in range(32):
        watch.from_device(device_read(0x1000 + tag, 200, tag=tag).dwords())
    assert watch.most_outstanding == 32 == len(watch.device_tags)
    watch.forget(2)
    watch.from_device(device_read(length=0, tag=2).dwords())


def test_rules_about_the_state() -> None:
    watch = monitor()
    watch.bus_master = False
    for tlp in (device_read(), device_write()):
        with pytest.raises(TlpViolation, match="bus master"):
            watch.from_device(tlp.dwords())
    watch.bus_master = True
    watch.from_device(device_read().dwords())
    with pytest.raises(TlpViolation, match="tag reuse"):
        watch.from_device(device_read(0x2000).dwords())
    with pytest.raises(TlpViolation, match="unanswered"):
        watch.finish()
    watch.to_device(completion(device_read()).dwords())
    watch.finish()
    watch.from_device(device_read().dwords())
    watch.reset()
    watch.from_device(device_read().dwords())


#: What is wrong with the device's completion of a read of 6 bytes from 0x1006 on.
BAD_COMPLETIONS: dict[str, list[Callable[[Tlp], Tlp]]] = {
    "unexpected completion": [lambda t: replace(t, tag=t.tag + 1), lambda t: replace(t, requester=t.requester + 1)],
    "completer": [lambda t: replace(t, completer=HOST)],
    "traffic class": [lambda t: replace(t, traffic_class=1), lambda t: replace(t, attributes=1)],
    "byte count": [lambda t: replace(t, byte_count=8), lambda t: replace(t, modified=True)],
    "lower address": [lambda t: replace(t, lower_address=4), lambda t: replace(t, lower_address=0x46)],
    "status": [
        lambda t: replace(t, status=Status.UNSUPPORTED_REQUEST),
        lambda t: replace(t, status=3),
        lambda t: replace(t, type=TlpType.COMPLETION, payload=b""),
    ],
    "length": [
        lambda t: replace(t, length=1, payload=bytes(4)),
        lambda t: replace(t, length=3, payload=bytes(12)),
        lambda t: replace(t, payload=bytes(4)),
    ],
}


@pytest.mark.parametrize("rule", BAD_COMPLETIONS)
def test_bad_completions(rule: str) -> None:
    request = memory_read(0x1006, 6, requester=HOST, tag=9)
    for change in BAD_COMPLETIONS[rule]:
        watch = monitor()
        watch.to_device(request.dwords())
        with pytest.raises(TlpViolation) as caught:
            watch.from_device(change(completion(request)).dwords())
        assert caught.value.rule == rule


def test_nothing_is_due_for_a_posted_write() -> None:
    """A second completion, one for a write, and one for what has been completed: all unexpected."""
    watch = monitor()
    request = memory_write(0x1000, bytes(4), requester=HOST, tag=3)
    watch.to_device(request.dwords())
    bare = Tlp(TlpType.COMPLETION, length=0, requester=HOST, tag=3, completer=DEVICE)
    with pytest.raises(TlpViolation, match="unexpected completion"):
        watch.from_device(bare.dwords())
    read = memory_read(0x1000, requester=HOST, tag=3)
    watch.to_device(read.dwords())
    watch.from_device(completion(read).dwords())
    with pytest.raises(TlpViolation, match="unexpected completion"):
        watch.from_device(completion(read).dwords())


def test_completions_of_the_host() -> None:
    """They may be cut at the read completion boundary, and nowhere else; none may be missing or come twice."""
    request = device_read(0x1033, 150)
    whole = completion(request)
    first = replace(whole, length=4, payload=bytes(16))  # to 0x1040
    second = replace(whole, length=32, payload=bytes(128), byte_count=150 - 13, lower_address=0x40)  # to 0x10c0
    third = replace(whole, length=3, payload=bytes(12), byte_count=9, lower_address=0x40)
    watch = monitor()
    watch.from_device(request.dwords())
    for tlp in (first, second, third):
        watch.to_device(tlp.dwords())
    watch.finish()
    for sequence, rule in (
        ((second,), "byte count"),
        ((first, first), "byte count"),
        ((first, replace(second, length=31, payload=bytes(124))), "read completion boundary"),
        ((replace(first, length=40, payload=bytes(160)),), "max payload"),
        ((first, second, third, third), "unexpected completion"),
        ((replace(first, lower_address=0x32),), "lower address"),
    ):
        watch = monitor()
        watch.from_device(request.dwords())
        for tlp in sequence[:-1]:
            watch.to_device(tlp.dwords())
        with pytest.raises(TlpViolation) as caught:
            watch.to_device(sequence[-1].dwords())
        assert caught.value.rule == rule
    watch = monitor()
    watch.from_device(request.dwords())
    watch.to_device(replace(whole, type=TlpType.COMPLETION, status=Status.COMPLETER_ABORT, payload=b"").dwords())
    watch.finish()


def test_packets_survive_the_way_through_dwords_and_beats() -> None:
    rng = random.Random(4)
    for kind in TlpType:
        for _ in range(20):
            length = rng.choice((1, 2, 3, 1024))
            tlp = Tlp(kind, length=length, requester=rng.getrandbits(16), tag=rng.getrandbits(8))
            tlp.traffic_class, tlp.attributes, tlp.poisoned = rng.getrandbits(3), rng.getrandbits(3), rng.random() < 0.5
            if kind.has_data:
                tlp.payload = rng.randbytes(4 * length)
            if kind.is_completion:
                tlp.status, tlp.byte_count = rng.choice(list(Status)), rng.randint(1, 4096)
                tlp.completer, tlp.lower_address, tlp.first_be = rng.getrandbits(16), rng.getrandbits(7), 0xF
            else:
                tlp.first_be, tlp.last_be = rng.getrandbits(4), rng.getrandbits(4)
            if kind.is_configuration:
                tlp.completer, tlp.register = rng.getrandbits(16), 4 * rng.getrandbits(10)
            elif not kind.is_completion:
                tlp.address = 4 * rng.getrandbits(62 if kind.header_dwords == 4 else 30)
            words = tlp.dwords()
            found = Tlp.from_dwords(from_beats((beat["data"], beat["keep"]) for beat in to_beats(words)))
            assert found == tlp


@pytest.mark.parametrize("address", range(4))
def test_byte_enables(address: int) -> None:
    for length in range(1, 12):
        dwords, first, last = byte_enables(address, length)
        bits = [first >> bit & 1 for bit in range(4)] + [1] * 4 * max(0, dwords - 2) + [last >> bit & 1 for bit in range(4)]
        bits = bits if dwords > 1 else bits[:4]
        assert bits == [int(address <= byte < address + length) for byte in range(4 * dwords)]
        assert completion_count(memory_read(address, length)) == length
        assert completion_lower_address(memory_read(address, length)) == address
