"""A small root complex in front of the simulated gateware, for the host's accesses to words, the device's accesses to
memory, and its interrupts.

It is there to run whole models and checks nothing: it cuts completions at fixed addresses, and answers after a fixed
time, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from systola_firmware.spec.dma import DmaError
from systola_hdl.tops.pcie_simulation import MESSAGE_ADDRESS
from systola_sim.machine.dma_model import HostMemory, TransferError
from systola_sim.verilated.pcie_harness import STOP_AT_PACKET, PcieHarness
from systola_sim.verilated.tlp import Completion, MemoryRequest, completions, parse, read_request, write_request

__all__ = ["BAR_ADDRESS", "IDLE_CYCLES", "MEMORY_CYCLES", "RootComplex"]

#: Address of BAR0.
BAR_ADDRESS = 0xC000_0000
#: Most bytes of a completion.
_MAX_PAYLOAD = 256
_REQUESTER = 0
#: Cycles after which a read of a word is given up, as root complexes do; it then reads all ones.
_READ_CYCLES = 1 << 16
#: Cycles of silence after which a device that is not busy will do nothing more.
IDLE_CYCLES = 1 << 12

#: Cycles until memory answers a read: 1 µs at 125 MHz, as computers do.
MEMORY_CYCLES = 125

_STATUS = {DmaError.UNSUPPORTED_REQUEST: 1, DmaError.COMPLETER_ABORT: 4}


class RootComplex:
    """The root complex of ``harness``; the device reaches ``memory``.

    A read of ``memory`` that fails is answered as its error says: refused, aborted, poisoned, or not answered at all.

    Parameters
    ----------
    interrupt:
        Called for each message.
    observe:
        Called with each packet, and whether it came from the device; for a monitor.
    """

    def __init__(
        self,
        harness: PcieHarness,
        memory: HostMemory,
        interrupt: Callable[[], None],
        observe: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self._harness = harness
        self._memory = memory
        self._interrupt = interrupt
        self._observe = observe or (lambda _packet, _from_device: None)
        self._tag = 0
        self._due: deque[tuple[int, MemoryRequest]] = deque()  #: reads of memory, and the cycle in which each is answered
        self._answers: dict[int, Completion] = {}

    def read_word(self, offset: int) -> int | None:
        """The word at ``offset`` of BAR0; None if the device refused, or did not answer."""
        self._tag = (self._tag + 1) % 32
        self._answers.pop(self._tag, None)
        self._send(read_request(BAR_ADDRESS + offset, _REQUESTER, self._tag), hit=True)
        left = _READ_CYCLES
        while left > 0 and self._tag not in self._answers:
            left -= self._advance(left)
            self._serve()
        answer = self._answers.pop(self._tag, None)
        return int.from_bytes(answer.payload, "little") if answer is not None and answer.status == 0 else None

    def write_word(self, offset: int, value: int) -> None:
        """Write the word at ``offset`` of BAR0: posted."""
        self._send(write_request(BAR_ADDRESS + offset, value, _REQUESTER), hit=True)

    def run(self, cycles: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Let the device work for so many cycles, until it is idle, or until ``until``, asked after each packet.

        Returns whether the cycles have passed.
        """
        while cycles > 0 and not until():
            cycles -= self._advance(cycles, IDLE_CYCLES)
            if not self._serve() and not self._due and self._harness.quiet >= IDLE_CYCLES:
                return False
        return cycles <= 0

    def set_link(self, up: bool) -> None:
        """Raise or drop the link: what is under way is lost."""
        self._due.clear()
        self._harness.set_link(up)

    def _advance(self, cycles: int, quiet: int = 0) -> int:
        """Run up to ``cycles``, to the end of the next packet or until an answer is due; returns how many were run."""
        if self._due:
            cycles, quiet = max(1, min(cycles, self._due[0][0] - self._harness.cycles)), 0
        return self._harness.run(cycles, stop=STOP_AT_PACKET, quiet=quiet)

    def _send(self, packet: bytes, *, hit: bool = False) -> None:
        self._observe(packet, False)
        self._harness.send(packet, bar_hit=hit)

    def _serve(self) -> bool:
        """Take what the device has sent, and send the answers that are due. Returns whether there was anything to
        do."""
        served = False
        while (packet := self._harness.receive()) is not None:
            served = True
            self._observe(packet, True)
            request = parse(packet)
            if isinstance(request, Completion):
                self._answers[request.tag] = request
            elif not request.write:
                self._due.append((self._harness.cycles + MEMORY_CYCLES, request))
            elif request.address == MESSAGE_ADDRESS:
                self._interrupt()
            else:
                self._write(request)
        while self._due and self._due[0][0] <= self._harness.cycles:
            served = True
            self._read(self._due.popleft()[1])
        return served

    def _read(self, request: MemoryRequest) -> None:
        start, length = request.byte_range()
        data: bytes | None = None
        status, poisoned = 0, False
        try:
            data = self._memory.read(start, length)
        except TransferError as error:
            if error.error is DmaError.POISONED:
                data, poisoned = bytes(length), True
            elif error.error not in _STATUS:
                return
            status = _STATUS.get(error.error, 0)
        for packet in completions(request, data, _MAX_PAYLOAD, status=status, poisoned=poisoned):
            self._send(packet)

    def _write(self, request: MemoryRequest) -> None:
        start, length = request.byte_range()
        skipped = start - request.address
        try:
            self._memory.write(start, request.payload[skipped : skipped + length])
        except TransferError:
            return  # a posted write: the device does not learn of the error
