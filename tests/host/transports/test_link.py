"""The link's host side against a model of the device, over a pipe that damages what passes."""

from __future__ import annotations

import random

import pytest
from support.links.link_model import Damage, LossyPipe, ModelDevice

from systola.errors import AddressError, LinkError
from systola.transports.link import LinkTransport
from systola_firmware.spec.link import RECEIVE_BUFFER_BYTES

MEMORY_BYTES = 8192

DAMAGE = {
    "none": Damage(),
    "flip": Damage(flip=1e-3),
    "drop": Damage(drop=1e-3),
    "repeat": Damage(repeat=1e-3),
    "insert": Damage(insert=1e-3),
    "all": Damage(flip=5e-4, drop=5e-4, repeat=5e-4, insert=5e-4),
}


def connect(damage: Damage, seed: int) -> tuple[LinkTransport, ModelDevice, LossyPipe]:
    device = ModelDevice(bytearray(MEMORY_BYTES), expected=seed & 0xFF)
    pipe = LossyPipe(device, damage, seed)
    return LinkTransport(pipe, "model", timeout=0.05, attempts=25, clock=pipe.clock), device, pipe


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("seed", range(4))
def test_transfers_arrive_whole_and_writes_happen_once(kind: str, seed: int) -> None:
    transport, device, pipe = connect(DAMAGE[kind], seed)
    choice = random.Random(seed)
    reference = bytearray(MEMORY_BYTES)
    for _ in range(12):
        length = 4 * choice.choice([1, 2, 59, 60, 61, choice.randint(1, 1500)])
        address = 4 * choice.randrange((MEMORY_BYTES - length) // 4 + 1)
        if choice.random() < 0.5:
            data = choice.randbytes(length)
            transport.write(address, data)
            reference[address : address + length] = data
            assert device.memory == reference
        else:
            assert transport.read(address, length) == reference[address : address + length]
    assert set(device.writes.values()) <= {1}
    if kind == "none":  # after damage, what is sent again may meet what still waits
        assert 0 < pipe.most_in_flight <= RECEIVE_BUFFER_BYTES
    if kind in ("flip", "drop", "insert", "all"):
        assert transport.resends > 0


def test_a_hopeless_line_ends_in_an_error_and_never_in_a_wrong_answer() -> None:
    finished = refused = 0
    for seed in range(12):
        device = ModelDevice(bytearray(random.Random(seed).randbytes(MEMORY_BYTES)))
        pipe = LossyPipe(device, Damage(), seed)
        transport = LinkTransport(pipe, "model", timeout=0.05, attempts=2, clock=pipe.clock)
        pipe.damage = Damage(flip=2e-3, drop=2e-3)
        try:
            assert transport.read(0, 4096) == device.memory[:4096]
            finished += 1
        except LinkError:
            refused += 1
            pipe.damage = Damage()
            assert transport.read(0, 4096) == device.memory[:4096]  # usable again when the line is
    assert refused > 0


def test_many_frames_fit_a_sequence_number_of_eight_bits() -> None:
    transport, device, _ = connect(Damage(drop=2e-4), 7)
    data = random.Random(7).randbytes(MEMORY_BYTES)
    for _ in range(20):  # about 700 frames
        transport.write(0, data)
    assert transport.read(0, MEMORY_BYTES) == data
    assert set(device.writes.values()) == {1}


def test_lost_responses_do_not_repeat_a_write() -> None:
    class Mute(LossyPipe):
        """Loses the first answer after :attr:`losing` is set."""

        losing = False

        def read(self, timeout: float, /) -> bytes:
            answer = super().read(timeout)
            if self.losing and answer:
                self.losing = False
                return b""
            return answer

    device = ModelDevice(bytearray(64))
    pipe = Mute(device, Damage(), 1)
    transport = LinkTransport(pipe, "model", timeout=0.05, clock=pipe.clock)
    pipe.losing = True
    transport.write(0, b"\1\2\3\4")
    assert transport.resends == 1
    assert device.writes == {(1, 0): 1}
    assert transport.read(0, 4) == b"\1\2\3\4"


class SlowPipe:
    """A line without damage to a device that takes ``seconds_a_byte`` of virtual time for each byte, in both
    directions."""

    def __init__(self, seconds_a_byte: float) -> None:
        self.device = ModelDevice(bytearray(MEMORY_BYTES))
        self.seconds_a_byte = seconds_a_byte
        self.now = self.free = 0.0
        self.line: list[tuple[float, int]] = []  # when it is there, and the byte

    def write(self, data: bytes, /) -> None:
        for byte in data:
            self.free = max(self.free, self.now) + self.seconds_a_byte
            for answered in self.device.feed(bytes([byte])):
                self.free += self.seconds_a_byte
                self.line.append((self.free, answered))

    def read(self, timeout: float, /) -> bytes:
        self.now = min(self.now + timeout, max(self.now, self.line[0][0])) if self.line else self.now + timeout
        received = bytes(byte for when, byte in self.line if when <= self.now)
        del self.line[: len(received)]
        return received

    def clock(self) -> float:
        return self.now

    def close(self) -> None:
        """Nothing to close."""


def test_a_device_slower_than_the_timeout_is_served_all_the_same() -> None:
    pipe = SlowPipe(1 / 100)  # 2.5 s a frame
    transport = LinkTransport(pipe, "model", timeout=2.0, attempts=5, clock=pipe.clock)
    data = random.Random(3).randbytes(MEMORY_BYTES)
    for start in range(0, MEMORY_BYTES, 1024):
        transport.write(start, data[start : start + 1024])
    assert pipe.device.memory == data
    assert set(pipe.device.writes.values()) == {1}


def test_an_answer_to_sync_is_taken_when_it_is_late() -> None:
    pipe = SlowPipe(1 / 28)  # 1 s for SYNC and its answer: twice the share of the timeout that it has
    LinkTransport(pipe, "model", timeout=2.0, attempts=5, clock=pipe.clock)
    assert pipe.now < 2.0


def test_a_device_as_slow_as_the_simulation_on_a_loaded_machine_is_never_resent_to() -> None:
    pipe = SlowPipe(1 / 200)  # more than a second a frame
    transport = LinkTransport(pipe, "model", timeout=2.0, attempts=5, clock=pipe.clock)
    data = random.Random(4).randbytes(MEMORY_BYTES)
    transport.write(0, data)
    assert transport.read(0, MEMORY_BYTES) == data
    assert transport.resends == 0


def test_an_address_without_memory_is_named_and_the_link_lives_on() -> None:
    transport, _, _ = connect(Damage(), 3)
    with pytest.raises(AddressError, match=r"no memory there: READ of 0x00002000 to 0x00002004"):
        transport.read(MEMORY_BYTES, 4)
    with pytest.raises(AddressError, match=r"WRITE of 0x00001ffc to 0x00002004"):
        transport.write(MEMORY_BYTES - 4, bytes(8))
    transport.write(0, b"back")
    assert transport.read(0, 4) == b"back"


@pytest.mark.parametrize(("address", "length"), [(1, 4), (0, 3), (2, 2)])
def test_unaligned_access_is_rejected(address: int, length: int) -> None:
    transport, _, _ = connect(Damage(), 0)
    with pytest.raises(ValueError, match="whole words"):
        transport.read(address, length)
    with pytest.raises(ValueError, match="whole words"):
        transport.write(address, bytes(length))


class Echo:
    """A pipe to something that is no Systola device: it answers with ``answer``."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.closed = False

    def write(self, _data: bytes, /) -> None:
        """Take and forget."""

    def read(self, _timeout: float, /) -> bytes:
        return self.answer

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [(b"", "does not answer"), (b"login: ", "are not a Systola device's answers"), (b"\x00\x11\x00", "not a Systola device's")],
)
def test_a_foreign_or_silent_port_is_told_apart(answer: bytes, sentence: str) -> None:
    pipe = Echo(answer)
    with pytest.raises(LinkError, match=sentence) as caught:
        LinkTransport(pipe, "port", timeout=0.01, attempts=2, hint=" (at 9600 baud)")
    assert "(at 9600 baud)" in str(caught.value)
    assert pipe.closed


def test_bad_parameters_are_rejected() -> None:
    with pytest.raises(ValueError, match="not 0 and 8"):
        LinkTransport(Echo(b""), "port", timeout=0)
