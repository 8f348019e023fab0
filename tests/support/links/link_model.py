"""A device in Python that keeps the link's rules, and a pipe that damages what passes: for tests of the driver.

Neither shares code with the driver's side of the link; both follow ``systola_firmware.spec.link`` on their own.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from cobs import cobs

from systola_firmware.spec.link import MAX_WORDS, RECEIVE_BUFFER_BYTES, LinkOperation, LinkStatus

__all__ = ["Damage", "LossyPipe", "ModelDevice"]


class Memory(Protocol):
    """Bytes, by slices: a ``bytearray`` or what looks like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> bytes | bytearray: ...

    def __setitem__(self, span: slice, data: bytes, /) -> None: ...


@dataclass
class ModelDevice:
    """``memory`` behind the link: bytes in by :meth:`feed`, answers out.

    ``writes`` counts for every frame executed as a WRITE how often its sequence position was, by (epoch, position).
    """

    memory: Memory
    expected: int = 0
    position: int = 0  #: frames executed since the last SYNC, of which ``expected`` is the low byte
    epoch: int = 0
    writes: Counter[tuple[int, int]] = field(default_factory=Counter)
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """Process bytes from the host and return what the device says to them."""
        self._buffer += data
        *frames, rest = bytes(self._buffer).split(b"\0")
        self._buffer = bytearray(rest)
        return b"".join(self._frame(frame) for frame in frames)

    def _frame(self, frame: bytes) -> bytes:
        try:
            plain = cobs.decode(frame)
        except cobs.DecodeError:
            return b""
        if len(plain) < 12 or zlib.crc32(plain[:-4]) != struct.unpack("<I", plain[-4:])[0]:
            return b""
        sequence, operation, count, _, address = struct.unpack_from("<BBBBI", plain)
        data = plain[8:-4]
        if operation not in list(LinkOperation) or len(data) != (4 * count if operation == LinkOperation.WRITE else 0):
            return b""
        if operation == LinkOperation.SYNC:
            self.expected = (sequence + 1) & 0xFF
            self.epoch += 1
            self.position = 0
            return self._answer(sequence, LinkStatus.OK, count, address)
        behind = (self.expected - sequence) & 0xFF
        if behind > 128:
            return self._answer(sequence, LinkStatus.OUT_OF_ORDER, count, address)
        fresh = behind == 0
        if fresh:
            self.expected = (self.expected + 1) & 0xFF
        if not 1 <= count <= MAX_WORDS:
            return self._answer(sequence, LinkStatus.BAD_REQUEST, count, address)
        key = (self.epoch, self.position - (0 if fresh else behind))
        self.position += fresh
        inside = address % 4 == 0 and address + 4 * count <= len(self.memory)
        if operation == LinkOperation.WRITE:
            if fresh:
                self.writes[key] += 1
                if inside:
                    self.memory[address : address + len(data)] = data
            ok = inside or not fresh
            return self._answer(sequence, LinkStatus.OK if ok else LinkStatus.BAD_ADDRESS, count, address)
        if not inside:
            return self._answer(sequence, LinkStatus.BAD_ADDRESS, count, address, bytes(4 * count))
        return self._answer(sequence, LinkStatus.OK, count, address, bytes(self.memory[address : address + 4 * count]))

    def _answer(self, sequence: int, status: LinkStatus, count: int, address: int, data: bytes = b"") -> bytes:
        body = struct.pack("<BBBBI", sequence, status, count, self.expected, address) + data
        return bytes(cobs.encode(body + struct.pack("<I", zlib.crc32(body)))) + b"\0"


@dataclass(frozen=True)
class Damage:
    """Probabilities a byte, for each direction alike."""

    flip: float = 0.0
    drop: float = 0.0
    repeat: float = 0.0
    insert: float = 0.0


class LossyPipe:
    """A pipe to a :class:`ModelDevice` that damages bytes in both directions by ``damage``, from ``seed``.

    ``most_in_flight`` is the largest number of request bytes that ever waited for the device. The device answers when
    it is read from, a few frames at a time, as a slow board would; only then time passes, by :meth:`clock`: a
    millisecond a read, or the whole timeout when there was nothing.
    """

    def __init__(self, device: ModelDevice, damage: Damage, seed: int) -> None:
        self.device = device
        self.damage = damage
        self.most_in_flight = 0
        self.closed = False
        self._random = random.Random(seed)
        self._now = 0.0
        self._towards_device = bytearray()
        self._towards_host = bytearray()

    def write(self, data: bytes, /) -> None:
        self._towards_device += self._damaged(data)
        self.most_in_flight = max(self.most_in_flight, len(self._towards_device))
        if len(self._towards_device) > RECEIVE_BUFFER_BYTES:
            del self._towards_device[RECEIVE_BUFFER_BYTES:]  # the board's buffer overflows

    def read(self, timeout: float, /) -> bytes:
        amount = self._random.randint(1, 700)
        chunk = bytes(self._towards_device[:amount])
        del self._towards_device[:amount]
        self._towards_host += self._damaged(self.device.feed(chunk))
        amount = self._random.randint(1, 900)
        received = bytes(self._towards_host[:amount])
        del self._towards_host[:amount]
        self._now += 0.001 if received or self._towards_device else max(0.001, timeout)
        return received

    def clock(self) -> float:
        """Seconds since the start."""
        return self._now

    def close(self) -> None:
        self.closed = True

    def _damaged(self, data: bytes) -> bytes:
        result = bytearray()
        draw = self._random.random
        for value in data:
            if draw() < self.damage.drop:
                continue
            byte = value ^ (1 << self._random.randrange(8)) if draw() < self.damage.flip else value
            result += bytes([byte]) * (2 if draw() < self.damage.repeat else 1)
            if draw() < self.damage.insert:
                result.append(self._random.randrange(256))
        return bytes(result)
