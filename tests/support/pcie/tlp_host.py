"""A host of TLPs in Python: memory, completions cut and mixed at random, and requests of its own; no simulator in it.

Every packet that it sends or receives passes the monitor.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from support.pcie.tlp import Status, Tlp, TlpType, completion_count, completion_lower_address
from support.pcie.tlp_monitor import TlpMonitor

__all__ = ["Fault", "TlpHost"]

_PAGE = 4096


@dataclass(frozen=True)
class Fault:
    """What befalls the answer to a read: a refusal (``status``), silence (``lost``), or damage done to its first
    completion."""

    status: Status = Status.SUCCESSFUL
    lost: bool = False
    damage: Callable[[Tlp], Tlp] | None = None


@dataclass
class TlpHost:
    """``random`` decides how answers are cut and in which order they come; None: each at once, whole up to
    ``max_payload``."""

    monitor: TlpMonitor
    random: random.Random | None = None
    message_address: int = 0xFEE0_0000
    read_boundary: int = 64
    fault: Callable[[Tlp], Fault] = lambda _: Fault()
    messages: list[int] = field(default_factory=list)  #: data of the MSI messages that came
    late: list[Tlp] = field(default_factory=list)  #: answers that were lost
    answers: dict[int, Tlp] = field(default_factory=dict)  #: completions for the host's own requests, by tag
    writes: int = 0  #: memory writes that came, messages not counted
    sent: deque[tuple[list[int], bool]] = field(default_factory=deque)  #: packets for the device: dwords, and whether BAR0 is hit
    _pages: dict[int, bytearray] = field(default_factory=dict)
    _pending: list[deque[Tlp]] = field(default_factory=list)

    def read(self, address: int, length: int) -> bytes:
        """Bytes of the host's memory."""
        return bytes(self._page(at)[at % _PAGE] for at in range(address, address + length))

    def write(self, address: int, content: bytes) -> None:
        """Set bytes of the host's memory."""
        for at, byte in enumerate(content, address):
            self._page(at)[at % _PAGE] = byte

    def _page(self, address: int) -> bytearray:
        return self._pages.setdefault(address // _PAGE, bytearray(_PAGE))

    def reset(self) -> None:
        """The link fell: nothing that was on its way arrives."""
        self._pending.clear()
        self.sent.clear()
        self.monitor.reset()

    def request(self, tlp: Tlp, *, bar_hit: bool = True, faulty: bool = False) -> None:
        """Send a request or, ``faulty``, anything at all."""
        words = tlp.dwords()
        self.monitor.to_device(words, faulty=faulty)
        self.sent.append((words, bar_hit))

    def receive(self, words: Sequence[int]) -> None:
        """A packet from the device."""
        tlp = self.monitor.from_device(words)
        if tlp.type.is_completion:
            self.answers[tlp.tag] = tlp
        elif tlp.type.has_data:
            self._written(tlp)
        else:
            self._asked(tlp)

    def _written(self, tlp: Tlp) -> None:
        if tlp.address == self.message_address:
            assert (tlp.length, tlp.first_be) == (1, 15), tlp
            self.messages.append(int.from_bytes(tlp.payload, "little"))
            return
        self.writes += 1
        for index, byte in enumerate(tlp.payload):
            enables = tlp.first_be if index < 4 else tlp.last_be if index >= 4 * tlp.length - 4 else 0xF
            if enables >> index % 4 & 1:
                self._page(tlp.address + index)[(tlp.address + index) % _PAGE] = byte

    def _asked(self, tlp: Tlp) -> None:
        fault = self.fault(tlp)
        if fault.status != Status.SUCCESSFUL:
            refusal = Tlp(TlpType.COMPLETION, status=fault.status, requester=tlp.requester, tag=tlp.tag, length=0)
            refusal.byte_count, refusal.lower_address = completion_count(tlp), completion_lower_address(tlp)
            self._pending.append(deque([refusal]))
            return
        completions = deque(self._completions(tlp))
        if fault.lost:
            self.late += completions
            return
        if fault.damage is not None:
            completions[0] = fault.damage(completions[0])
        self._pending.append(completions)

    def _completions(self, tlp: Tlp) -> list[Tlp]:
        """The answer, cut at multiples of the read completion boundary."""
        start, left = completion_lower_address(tlp) + (tlp.address & ~0x7F), completion_count(tlp)
        completions = []
        while left:
            # Up to the payload's limit, from the dword on in which the first byte lies.
            most = min(left, self.monitor.max_payload - start % 4)
            if most < left or self.random is not None:
                ends = [end for end in range(start + 1, start + most + 1) if end % self.read_boundary == 0]
                if most == left:
                    ends.append(start + left)
                most = (self.random.choice(ends) if self.random is not None else ends[-1]) - start
            begin = start & ~3
            dwords = (start + most - begin + 3) // 4
            completions.append(
                Tlp(
                    TlpType.COMPLETION_DATA,
                    length=dwords,
                    requester=tlp.requester,
                    tag=tlp.tag,
                    byte_count=left,
                    lower_address=start & 0x7F,
                    attributes=tlp.attributes,
                    traffic_class=tlp.traffic_class,
                    payload=self.read(begin, 4 * dwords),
                )
            )
            start, left = start + most, left - most
        return completions

    def step(self) -> None:
        """Once in a while: send one of the completions that are due, if any."""
        if not self._pending:
            return
        queue = self.random.choice(self._pending) if self.random is not None else self._pending[0]
        tlp = queue.popleft()
        if not queue:
            self._pending.remove(queue)
        self.complete(tlp)

    def complete(self, tlp: Tlp, *, faulty: bool = False) -> None:
        """Send a completion. One that does not fit what the device has asked for must be ``faulty``."""
        words = tlp.dwords()
        self.monitor.to_device(words, faulty=faulty or tlp.poisoned)
        if tlp.poisoned and not faulty:
            self.monitor.forget(tlp.tag)
        self.sent.append((words, False))

    def send_late(self) -> None:
        """Send the answers that were lost, after nobody waits for them any more."""
        for tlp in self.late:
            self.complete(replace(tlp), faulty=True)
        self.late.clear()

    @property
    def quiet(self) -> bool:
        """Nothing is left to be sent."""
        return not self._pending and not self.sent
