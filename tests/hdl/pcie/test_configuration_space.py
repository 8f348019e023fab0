# amaranth: UnusedElaboratable=no
"""The configuration space: what a host finds there, and that the endpoint lives by it."""

from __future__ import annotations

import pytest
from support.pcie.endpoint_bench import EndpointBench
from support.pcie.tlp import Status, Tlp, TlpType, memory_read, memory_write

from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.pcie import CLASS_CODE, DEVICE_ID, VENDOR_ID, map_address
from systola_hdl.pcie.configuration_space import ConfigurationSpace
from systola_hdl.pcie.standalone import StandaloneEndpoint

TARGET, HOST, BAR = 0x0500, 0x0018, 0xE300_0000


class Session:
    """A script of requests, each sent when the last is answered; a generator of requests gets the completions."""

    def __init__(self) -> None:
        self.bench = EndpointBench(StandaloneEndpoint(20, timeout=2000))
        self.bench.monitor.function_id = None
        self._tag = 0

    def run(self, script: object) -> None:
        """``script`` yields requests or numbers of cycles to wait, and is sent the completions."""
        bench, waits = self.bench, [0]
        generator = iter(script)  # type: ignore[call-overload]
        current: list[Tlp | None] = [None]
        finished: list[bool] = []

        def every() -> None:
            if bench.cycle < waits[0] or (current[0] is not None and current[0].tag not in bench.host.answers):
                return
            answer = bench.host.answers.pop(current[0].tag) if current[0] is not None else None
            current[0] = None
            try:
                step = generator.send(answer) if started else next(generator)
                started.append(True)
            except StopIteration:
                finished.append(True)
                return
            if isinstance(step, int):
                waits[0] = bench.cycle + step
                return
            step.requester = HOST
            if not step.type.is_posted:
                self._tag += 1
                step.tag = self._tag
                current[0] = step
            bench.host.request(step, bar_hit=False)

        started: list[bool] = []
        bench.simulate(lambda: bool(finished), every=every)


def read(register: int, target: int = TARGET) -> Tlp:
    return Tlp(TlpType.CONFIG_READ_0, register=register, completer=target)


def write(register: int, value: int, enables: int = 15, target: int = TARGET) -> Tlp:
    return Tlp(TlpType.CONFIG_WRITE_0, register=register, completer=target, first_be=enables, payload=value.to_bytes(4, "little"))


def value(answer: Tlp) -> int:
    assert answer.status == Status.SUCCESSFUL
    return int.from_bytes(answer.payload, "little")


def test_what_a_host_does_at_the_start() -> None:
    """Identity, size of BAR0, list of capabilities; then BAR0, MSI, bus master: words, a transfer and a message."""
    session = Session()
    bench = session.bench
    bench.words[map_address(0x10_0004, 20)] = 0xCAFE_F00D
    bench.host.write(0x4003, b"hello")

    def script() -> object:
        assert value((yield read(0))) == DEVICE_ID << 16 | VENDOR_ID
        assert value((yield read(8))) >> 8 == CLASS_CODE
        assert value((yield read(0x0C))) >> 16 & 0xFF == 0  # type 0, one function
        for bar in range(0x10, 0x28, 4):
            yield write(bar, 0xFFFF_FFFF)
            assert value((yield read(bar))) == (0xFF00_0000 if bar == 0x10 else 0)
        assert value((yield read(4))) >> 20 & 1
        offset, found = value((yield read(0x34))) & 0xFF, {}
        while offset:
            head = value((yield read(offset)))
            found[head & 0xFF] = offset
            offset = head >> 8 & 0xFF
        assert found.keys() == {0x05, 0x10}
        msi, pcie = found[0x05], found[0x10]
        assert value((yield read(pcie + 4))) & 7 == 1  # 256 bytes
        assert value((yield read(pcie + 8))) == 0x2000

        yield memory_read(BAR + 0x10_0004)  # BAR0 is not there yet
        yield write(0x10, BAR)
        answer = yield memory_read(BAR + 0x10_0004)
        assert answer.status == Status.UNSUPPORTED_REQUEST
        yield write(4, 0x2)
        assert value((yield memory_read(BAR + 0x10_0004))) == 0xCAFE_F00D
        assert (yield memory_read(BAR + 0x100_0004)).status == Status.UNSUPPORTED_REQUEST
        assert (yield memory_read((1 << 32) + BAR + 4)).status == Status.UNSUPPORTED_REQUEST
        yield memory_write(BAR + 0x10_0008, b"\x01\x02\x03\x04")
        assert value((yield memory_read(BAR + 0x10_0008))) == 0x0403_0201

        bench.reads.append((0x4003, 5))
        yield 30
        assert bench.read_results == [(b"", DmaError.BUS_MASTER_DISABLED)]
        yield write(4, 0x6)
        yield write(msi + 4, bench.host.message_address)
        yield write(msi + 12, 0x0077)
        yield write(msi, 0x0001_0000, 0b0100)
        bench.monitor.function_id = TARGET
        bench.reads.append((0x4003, 5))
        yield 60
        bench.interrupt = 1
        yield 30
        # Errors so far: requests that hit nothing, all of them answered.
        assert value((yield read(pcie + 8))) >> 16 == 0b1001
        yield write(pcie + 8, 0x0009_0000, 0b1100)
        assert value((yield read(pcie + 8))) == 0x2000

    session.run(script())
    assert bench.read_results[1:] == [(b"hello", DmaError.NONE)]
    assert bench.host.messages == [0x77]
    bench.monitor.finish()


def test_writes_change_their_bytes_and_nothing_else() -> None:
    session = Session()

    def script() -> object:
        yield write(0x68, 0xFFFF_FFFF, 0b0010)
        assert value((yield read(0x68))) == 0x7000
        yield write(0x68, 0x20, 0b0001)
        assert value((yield read(0x68))) == 0x7020
        yield write(0x68, 0, 0)
        assert value((yield read(0x68))) == 0x7020
        yield write(0, 0)
        assert value((yield read(0))) == DEVICE_ID << 16 | VENDOR_ID
        yield write(0x3C, 0xFFFF_FF0B)
        assert value((yield read(0x3C))) == 0x0B
        yield write(0x100, 0xFFFF_FFFF)
        assert value((yield read(0x100))) == 0
        assert (yield read(0, TARGET | 1)).status == Status.UNSUPPORTED_REQUEST  # there is no function 1

    session.run(script())


def test_the_registers_set_the_sizes() -> None:
    """Payload and read request follow Device Control, as the monitor sees; the payload has its limit at 256 bytes."""
    session = Session()
    bench = session.bench
    content = bytes(range(256)) * 4
    bench.host.write(0x4000, content)

    def script() -> object:
        yield write(4, 0x6)
        for code in (0, 1, 5):
            yield write(0x68, code << 12 | code << 5)
            bench.configure(max_payload=min(code, 1), max_read_request=code)
            bench.host.writes = 0
            bench.reads.append((0x4000, 1024))
            bench.writes.append((0x8000, content))
            yield 500
            assert bench.host.read(0x8000, 1024) == content
            assert bench.host.writes == (8 if code == 0 else 4)

    session.run(script())
    assert bench.read_results == [(content, DmaError.NONE)] * 3


def test_a_fall_of_the_link_resets_the_registers() -> None:
    session = Session()
    bench = session.bench

    def script() -> object:
        yield write(4, 0x6)
        yield write(0x10, BAR)
        bench.link_up = 0
        yield 3
        bench.link_up = 1
        yield 5
        assert value((yield read(4))) == 0x0010_0000
        assert value((yield read(0x10))) == 0

    session.run(script())


@pytest.mark.parametrize("size", [8, 24, 1 << 32])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(ValueError, match=f"bar_bytes {size}: must be"):
        ConfigurationSpace(size)
