"""Memory access over the byte link: numbered, CRC-protected frames, several in flight, resent until answered.

The frames and the device's rules are in ``systola_firmware.spec.link``. This side is go-back-N with one refinement: a
response that has arrived is kept, so only what is still unanswered is sent again.

Every :meth:`LinkTransport.read` and :meth:`LinkTransport.write` completes before it returns. So reads and writes are
never in flight together, and a repeated READ (which the device does again) cannot see a later WRITE.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cobs import cobs

from systola.errors import AddressError, LinkError
from systola.transports.base import Pipe, Transport
from systola_firmware.spec.link import CRC_BYTES, HEADER_BYTES, MAX_WORDS, RECEIVE_BUFFER_BYTES, LinkOperation, LinkStatus

__all__ = ["LinkTransport", "Response", "decode_response", "encode_request"]

_REQUEST = struct.Struct("<BBBBI")
_RESPONSE = struct.Struct("<BBBBI")
assert _REQUEST.size == _RESPONSE.size == HEADER_BYTES

#: COBS adds one byte to a frame this short, the delimiter is another.
_FRAMING_BYTES = 2
_LONGEST_FRAME = HEADER_BYTES + 4 * MAX_WORDS + CRC_BYTES + _FRAMING_BYTES

#: Most frames in flight: far below the 128 up to which the device recognises a repeat.
_FRAMES_IN_FLIGHT = 48

#: Factor by which the timeout grows with an attempt that brought no response.
_GROWTH = 1.5


@dataclass(frozen=True)
class Response:
    """A response frame with a good CRC; ``data`` is empty unless it answers a READ."""

    sequence: int
    status: int
    count: int
    expected: int
    address: int
    data: bytes


@dataclass(frozen=True)
class _Request:
    """One request of a transfer; ``answer_bytes`` is the size of its response on the wire."""

    operation: LinkOperation
    address: int
    count: int
    data: bytes

    @property
    def request_bytes(self) -> int:
        return HEADER_BYTES + len(self.data) + CRC_BYTES + _FRAMING_BYTES

    @property
    def answer_bytes(self) -> int:
        payload = 4 * self.count if self.operation is LinkOperation.READ else 0
        return HEADER_BYTES + payload + CRC_BYTES + _FRAMING_BYTES


def encode_request(sequence: int, operation: LinkOperation, address: int, count: int, data: bytes = b"") -> bytes:
    """A request frame as it goes over the wire, delimiter included."""
    body = _REQUEST.pack(sequence, operation, count, 0, address) + data
    encoded: bytes = cobs.encode(body + zlib.crc32(body).to_bytes(CRC_BYTES, "little"))
    return encoded + b"\0"


def decode_response(frame: bytes) -> Response | None:
    """The response in one COBS frame (without its delimiter), or None for damaged bytes."""
    try:
        plain: bytes = cobs.decode(frame)
    except cobs.DecodeError:
        return None
    if len(plain) < HEADER_BYTES + CRC_BYTES:
        return None
    body, checksum = plain[:-CRC_BYTES], plain[-CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(checksum, "little"):
        return None
    sequence, status, count, expected, address = _RESPONSE.unpack_from(body)
    return Response(sequence, status, count, expected, address, body[HEADER_BYTES:])


class LinkTransport(Transport):
    """A device at the other end of ``pipe``.

    Parameters
    ----------
    pipe:
        Carries the bytes; closed with this object.
    name:
        Name of the device for messages, as the user wrote it.
    timeout:
        Seconds without a response after which the unanswered requests are sent again. The time grows by half with each
        attempt that brings no response, and shrinks by as much with each transfer that sends nothing again: so a slow
        device soon gets the time that it needs.
    attempts:
        How often that happens without any progress until :class:`~systola.errors.LinkError` is raised.
    hint:
        Words added to the message when a device answers bytes that are no frames, e.g. about the baud rate.
    clock:
        Returns the time in seconds. Tests give one that does not depend on the load of the machine.
    """

    def __init__(
        self,
        pipe: Pipe,
        name: str,
        *,
        timeout: float = 1.0,
        attempts: int = 8,
        hint: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout <= 0 or attempts < 1:
            raise ValueError(f"timeout must be positive and attempts at least 1, not {timeout} and {attempts}")
        self._pipe = pipe
        self._name = name
        self._timeout = self._patience = timeout
        self._attempts = attempts
        self._hint = hint
        self._clock = clock
        self._pending = bytearray()
        self._sequence = 0
        self._nonces = itertools.count(int.from_bytes(os.urandom(4), "little"))
        self._synchronised = False
        self._heard = False
        self.resends = 0  #: requests sent again so far, a measure of the line
        try:
            self._synchronise()
        except LinkError:
            self.close()
            raise

    def describe(self) -> str:
        return self._name

    def close(self) -> None:
        self._pipe.close()

    def pump(self, seconds: float) -> None:
        pump = getattr(self._pipe, "pump", None)
        if pump is None:
            time.sleep(seconds)
        else:
            pump(seconds)

    def read(self, address: int, length: int) -> bytes:
        _check_aligned(address, length)
        requests = []
        for offset in range(0, length, 4 * MAX_WORDS):
            count = min(MAX_WORDS, (length - offset) // 4)
            requests.append(_Request(LinkOperation.READ, address + offset, count, b""))
        return b"".join(self._transfer(requests))

    def write(self, address: int, data: bytes) -> None:
        _check_aligned(address, len(data))
        requests = []
        for offset in range(0, len(data), 4 * MAX_WORDS):
            payload = bytes(data[offset : offset + 4 * MAX_WORDS])
            requests.append(_Request(LinkOperation.WRITE, address + offset, len(payload) // 4, payload))
        self._transfer(requests)

    def _receive(self, timeout: float) -> list[Response]:
        """The intact responses that arrive within ``timeout`` seconds, at least one if possible."""
        deadline = self._clock() + timeout
        while True:
            received = self._pipe.read(max(0.0, deadline - self._clock()))
            self._heard = self._heard or bool(received)
            self._pending += received
            *frames, rest = bytes(self._pending).split(b"\0")
            # More than any frame has: a delimiter was lost, and what is left of the frame must not look whole again.
            self._pending = bytearray(rest[-(_LONGEST_FRAME + 1) :])
            responses = [response for frame in frames if frame and (response := decode_response(frame)) is not None]
            if responses or self._clock() >= deadline:
                return responses

    def _synchronise(self) -> None:
        """Agree on a sequence number; whatever an earlier session left on the line is older than the answer and is
        skipped."""
        self._heard = False
        # Repeats are all alike, so that a late answer is as good as a quick one: the device executes them all before
        # what follows.
        nonce = next(self._nonces) & 0xFFFF_FFFF
        sequence = (self._sequence + 1) & 0xFF
        for _ in range(self._attempts):
            # The leading delimiter ends whatever half frame the device still holds.
            self._pipe.write(b"\0" + encode_request(sequence, LinkOperation.SYNC, nonce, 1))
            deadline = self._clock() + self._timeout / 4
            while (left := deadline - self._clock()) > 0:
                for response in self._receive(left):
                    if (response.sequence, response.address, response.status) == (sequence, nonce, LinkStatus.OK):
                        self._sequence = (sequence + 1) & 0xFF
                        self._synchronised = True
                        return
        self._sequence = sequence
        if self._heard:
            raise LinkError(f"{self._name} sends bytes that are not a Systola device's answers{self._hint}")
        raise LinkError(f"{self._name} does not answer: no Systola device is there, or it is not configured{self._hint}")

    def _transfer(self, requests: Sequence[_Request]) -> list[bytes]:
        """Carry out ``requests``, all READ or all WRITE, and return the data of each."""
        if not self._synchronised:
            self._synchronise()
        # Until everything is answered the line may hold anything: after an exception the next transfer synchronises
        # first.
        self._synchronised = False
        answers: list[bytes | None] = [None] * len(requests)
        first_sequence = self._sequence
        base = following = 0  # the oldest unanswered request, and the next one to be sent
        vain = 0
        undisturbed = True
        deadline = 0.0
        while base < len(requests):
            burst = bytearray()
            while following < len(requests) and self._fits(requests[base : following + 1]):
                if answers[following] is None:
                    request = requests[following]
                    sequence = (first_sequence + following) & 0xFF
                    burst += encode_request(sequence, request.operation, request.address, request.count, request.data)
                following += 1
            if burst:
                self._pipe.write(bytes(burst))
                deadline = self._clock() + self._patience
            responses = self._receive(max(0.0, deadline - self._clock()))
            if not responses and self._clock() >= deadline:
                vain += 1
                undisturbed = False
                self._patience = min(self._patience * _GROWTH, self._timeout * _GROWTH ** (self._attempts - 1))
                if vain >= self._attempts:
                    raise LinkError(f"{self._name} stopped answering: {vain} attempts without a good answer")
                self.resends += following - base
                following = base
                self._pipe.write(b"\0")  # ends a frame whose own delimiter was lost
                continue
            for response in responses:
                index = base + ((response.sequence - first_sequence - base) & 0xFF)
                if index >= following or not _answers(requests[index], response):
                    continue  # a repeat of something already settled
                if response.status == LinkStatus.OUT_OF_ORDER:
                    # Every frame after a lost one is refused. The last refusal says that the device holds nothing more:
                    # only then does it have room for all that is sent again. Should that refusal be lost too, a
                    # shortened wait ends the attempt.
                    if index == following - 1:
                        self.resends += following - base
                        following = base
                        break
                    deadline = min(deadline, self._clock() + self._timeout / 8)
                    continue
                if response.status != LinkStatus.OK:
                    raise self._refusal(requests[index], response)
                if answers[index] is None:
                    answers[index] = response.data
                    vain = 0
                    deadline = self._clock() + self._patience
            while base < len(requests) and answers[base] is not None:
                base += 1
            following = max(following, base)
        self._sequence = (first_sequence + len(requests)) & 0xFF
        self._synchronised = True
        if undisturbed:
            self._patience = max(self._timeout, self._patience / _GROWTH)
        return [answer for answer in answers if answer is not None]

    def _fits(self, flight: Sequence[_Request]) -> bool:
        """Whether these requests may be in flight together: then neither side's receive buffer has to hold more than it
        can."""
        return len(flight) == 1 or (
            len(flight) <= _FRAMES_IN_FLIGHT
            and sum(request.request_bytes for request in flight) < RECEIVE_BUFFER_BYTES
            and sum(request.answer_bytes for request in flight) < RECEIVE_BUFFER_BYTES
        )

    def _refusal(self, request: _Request, response: Response) -> Exception:
        end = request.address + 4 * request.count
        what = f"{request.operation.name} of {request.address:#010x} to {end:#010x}"
        if response.status == LinkStatus.BAD_ADDRESS:
            return AddressError(f"{self._name} has no memory there: {what}")
        return LinkError(f"{self._name} refused a request with status {response.status}: {what}")


def _answers(request: _Request, response: Response) -> bool:
    """Whether ``response`` is about ``request`` and whole: the sequence number alone repeats every 256 frames."""
    if (response.address, response.count) != (request.address, request.count):
        return False
    carries_data = request.operation is LinkOperation.READ and response.status == LinkStatus.OK
    return len(response.data) == (4 * request.count if carries_data else 0) or response.status != LinkStatus.OK


def _check_aligned(address: int, length: int) -> None:
    if address % 4 or length % 4 or length < 0:
        raise ValueError(f"an access is made in whole words: address {address:#x}, {length} bytes")
