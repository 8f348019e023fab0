"""The project's own judge of TLPs: it watches both directions of a link and says which rule of the standard a packet
breaks.

It knows no simulator: give it every packet as dwords (:mod:`support.pcie.tlp`), in the order in which they pass. It
keeps the outstanding requests of both sides; so it also tells a completion that nobody asked for, for a posted write
for instance, from one that is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from support.pcie.tlp import Status, Tlp, TlpType, completion_count, completion_lower_address

__all__ = ["TlpMonitor", "TlpViolation"]


class TlpViolation(AssertionError):
    """A packet breaks a rule; ``rule`` is the rule's short name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass
class _Outstanding:
    """A request that waits for completions: what the next must carry."""

    request: Tlp
    remaining: int  #: Byte Count of the next completion
    lower_address: int


@dataclass
class TlpMonitor:
    """Sizes in bytes. Change a field when the function's configuration changes, call :meth:`reset` when the link falls.

    ``function_id`` None: not judged. ``read_boundary`` is the root's read completion boundary, to which the host's
    completions must keep.
    """

    function_id: int | None = None
    max_payload: int = 128
    max_read_request: int = 512
    read_boundary: int = 64
    tag_bits: int = 5
    bus_master: bool = True
    most_outstanding: int = 0  #: requests of the device outstanding at once, so far
    packets: int = 0  #: seen so far, in both directions
    _device: dict[tuple[int, int], _Outstanding] = field(default_factory=dict)
    _host: dict[tuple[int, int], _Outstanding] = field(default_factory=dict)

    def reset(self) -> None:
        """The link fell: nobody waits for anything any more."""
        self._device.clear()
        self._host.clear()

    def forget(self, tag: int) -> None:
        """The device's request with ``tag`` will never be answered: it may use the tag again after its timeout."""
        for key in [key for key in self._device if key[1] == tag]:
            del self._device[key]

    @property
    def device_tags(self) -> list[int]:
        """Tags of the device's outstanding requests."""
        return [tag for _, tag in self._device]

    def finish(self) -> None:
        """At the end of a test: every request must have been answered."""
        for name, table in (("device", self._device), ("host", self._host)):
            if table:
                raise TlpViolation("unanswered", f"requests of the {name} with (requester, tag) {sorted(table)}")

    def from_device(self, words: Sequence[int]) -> Tlp:
        """Judge a packet that the device sent. Raises :class:`TlpViolation`."""
        tlp = self._parse(words)
        if tlp.poisoned:
            raise TlpViolation("poisoned", f"the device sent {tlp}")
        if tlp.type.is_completion:
            if self.function_id is not None and tlp.completer != self.function_id:
                raise TlpViolation("completer", f"{tlp.completer:#06x} is not the function {self.function_id:#06x}")
            self._completion(tlp, self._host, None)
            return tlp
        if not tlp.type.is_memory:
            raise TlpViolation("type", f"a {tlp.type.name} of an endpoint")
        if not self.bus_master:
            raise TlpViolation("bus master", f"a {tlp.type.name} while Bus Master Enable is off")
        if self.function_id is not None and tlp.requester != self.function_id:
            raise TlpViolation("requester", f"{tlp.requester:#06x} is not the function {self.function_id:#06x}")
        self._memory_request(tlp)
        if not tlp.type.has_data:
            if tlp.tag >> self.tag_bits:
                raise TlpViolation("tag", f"{tlp.tag} needs more than {self.tag_bits} bits")
            self._open(tlp, self._device)
            self.most_outstanding = max(self.most_outstanding, len(self._device))
        return tlp

    def to_device(self, words: Sequence[int], *, faulty: bool = False) -> Tlp:
        """Judge a packet that the host sent. ``faulty``: a test sends it broken on purpose; it is taken as nothing at
        all."""
        if faulty:
            return Tlp.from_dwords(words)
        tlp = self._parse(words)
        if tlp.type.is_completion:
            self._completion(tlp, self._device, self.read_boundary)
        elif not tlp.type.is_posted:
            self._open(tlp, self._host)
        return tlp

    def _parse(self, words: Sequence[int]) -> Tlp:
        """Form of a packet: known type, reserved bits, length."""
        self.packets += 1
        try:
            tlp = Tlp.from_dwords(words)
        except ValueError as error:
            raise TlpViolation("type", f"{error}: {[hex(word) for word in words]}") from error
        if tlp.dwords() != list(words):
            raise TlpViolation("reserved", f"bits that must be 0 are not: {[hex(word) for word in words]} is {tlp}")
        if tlp.digest:
            raise TlpViolation("digest", f"announced by {tlp}")
        if tlp.type.has_data and 4 * tlp.length != len(tlp.payload):
            raise TlpViolation("length", f"{len(tlp.payload)} bytes of payload behind {tlp.type.name} of {tlp.length} dwords")
        if not tlp.type.has_data and tlp.payload:
            raise TlpViolation("length", f"{tlp.type.name} with a payload of {len(tlp.payload)} bytes")
        if len(tlp.payload) > self.max_payload:
            raise TlpViolation("max payload", f"{len(tlp.payload)} bytes, more than {self.max_payload}")
        return tlp

    def _memory_request(self, tlp: Tlp) -> None:
        """Address, length and byte enables of a request of the device."""
        if (tlp.type.header_dwords == 4) != bool(tlp.address >> 32):
            raise TlpViolation("address format", f"{tlp.address:#x} in a header of {tlp.type.header_dwords} dwords")
        if tlp.address % 4:
            raise TlpViolation("address", f"{tlp.address:#x} is no multiple of 4")
        if tlp.address % 4096 + 4 * tlp.length > 4096:
            raise TlpViolation("4 KiB", f"{tlp.length} dwords from {tlp.address:#x} on")
        if not tlp.type.has_data and 4 * tlp.length > self.max_read_request:
            raise TlpViolation("max read request", f"{tlp.length} dwords, more than {self.max_read_request} bytes")
        if tlp.length == 1:
            if tlp.last_be:
                raise TlpViolation("last byte enables", f"{tlp.last_be:#06b} of a request of one dword")
            if tlp.type.has_data and not tlp.first_be:
                raise TlpViolation("first byte enables", "a write of nothing")
            return
        # Holes are allowed in two dwords; a device that moves blocks of bytes has no reason for any.
        if tlp.first_be not in (0b1111, 0b1110, 0b1100, 0b1000):
            raise TlpViolation("first byte enables", f"{tlp.first_be:#06b} of {tlp.length} dwords")
        if tlp.last_be not in (0b0001, 0b0011, 0b0111, 0b1111):
            raise TlpViolation("last byte enables", f"{tlp.last_be:#06b} of {tlp.length} dwords")

    def _open(self, tlp: Tlp, table: dict[tuple[int, int], _Outstanding]) -> None:
        """A non-posted request goes out."""
        key = (tlp.requester, tlp.tag)
        if key in table:
            raise TlpViolation("tag reuse", f"tag {tlp.tag} of {tlp} is outstanding: {table[key].request}")
        memory = tlp.type & 0x1E == 0  # also locked ones
        table[key] = _Outstanding(tlp, completion_count(tlp) if memory else 4, completion_lower_address(tlp) if memory else 0)

    def _completion(self, tlp: Tlp, table: dict[tuple[int, int], _Outstanding], boundary: int | None) -> None:
        """A completion, which ``table`` must have a request for. ``boundary`` None: it must be the only one."""
        entry = table.get((tlp.requester, tlp.tag))
        if entry is None:
            raise TlpViolation("unexpected completion", f"nothing outstanding with tag {tlp.tag}: {tlp}")
        request = entry.request
        if (tlp.traffic_class, tlp.attributes) != (request.traffic_class, request.attributes):
            raise TlpViolation("traffic class", f"{tlp} answers {request}")
        if tlp.modified:
            raise TlpViolation("byte count", f"marked as modified: {tlp}")
        if tlp.status not in list(Status):
            raise TlpViolation("status", f"{tlp.status} is reserved")
        # What a host says in these fields of a refusal is of no use to anybody, and differs.
        judged = boundary is None or tlp.status == Status.SUCCESSFUL
        if judged and (tlp.byte_count, tlp.lower_address) != (entry.remaining, entry.lower_address):
            raise TlpViolation(
                "byte count" if tlp.byte_count != entry.remaining else "lower address",
                f"{tlp.byte_count} and {tlp.lower_address:#x} where {entry.remaining} and {entry.lower_address:#x} are due: {tlp}",
            )
        wants_data = not request.type.has_data and tlp.status == Status.SUCCESSFUL
        due = TlpType.COMPLETION_DATA if wants_data else TlpType.COMPLETION
        if request.type in (TlpType.MEMORY_READ_LOCKED_32, TlpType.MEMORY_READ_LOCKED_64):
            due = TlpType.COMPLETION_DATA_LOCKED if wants_data else TlpType.COMPLETION_LOCKED
        if tlp.type != due:
            raise TlpViolation("status", f"{tlp.type.name} with {Status(tlp.status).name} for {request.type.name}")
        if wants_data and request.type & 0x1E == 0:
            carried = 4 * tlp.length - entry.lower_address % 4
            if boundary is None or carried >= entry.remaining:
                if tlp.length != (entry.lower_address % 4 + entry.remaining + 3) // 4:
                    raise TlpViolation("length", f"{tlp.length} dwords for {entry.remaining} bytes: {tlp}")
            else:
                if (entry.lower_address + carried) % boundary:
                    raise TlpViolation("read completion boundary", f"a completion ends at {entry.lower_address + carried:#x}")
                entry.remaining -= carried
                entry.lower_address = entry.lower_address + carried & 0x7F
                return
        elif wants_data and tlp.length != 1:
            raise TlpViolation("length", f"{tlp.length} dwords for {request.type.name}")
        del table[(tlp.requester, tlp.tag)]
