"""A TLP endpoint between a :class:`support.pcie.tlp_host.TlpHost` and an engine's end of the host port, cycle by
cycle."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from amaranth.hdl import Elaboratable
from amaranth.sim import SimulatorContext

from support.benches.simulate import simulator_of
from support.pcie.tlp import from_beats, to_beats
from support.pcie.tlp_host import TlpHost
from support.pcie.tlp_monitor import TlpMonitor, TlpViolation
from systola_firmware.spec.dma import DmaError
from systola_hdl.host.host_port import HostPort
from systola_hdl.pcie.tlp.stream import TLP_BEAT

__all__ = ["EndpointBench", "ReadResult"]

FUNCTION_ID = 0x0300

#: Bytes of a read that came, and why there are no more.
ReadResult = tuple[bytes, DmaError]


class EndpointBench:
    """Call :meth:`run` from a testbench of ``simulator``; queues say what happens, lists what has happened.

    ``stalls``: the probability that a side stalls in a cycle. The engine's memory, ``words``, has the addresses below
    ``memory_end`` of each region; the bus answers others with an error.
    """

    def __init__(self, dut: Any, *, seed: int = 1, stalls: float = 0.0, reorder: bool = False, **function: int) -> None:
        self.dut = dut
        self.random = random.Random(seed)
        self.stalls = stalls
        self.monitor = TlpMonitor(function_id=FUNCTION_ID)
        self.host = TlpHost(self.monitor, random.Random(seed + 1) if reorder else None)
        self.function = {
            "link_up": 1,
            "function_id": FUNCTION_ID,
            "max_payload": 0,
            "max_read_request": 2,
            "read_completion_boundary": 0,
            "bus_master_enable": 1,
        } | function
        self.message = {"enable": 1, "address": self.host.message_address, "data": 0x4321, "acknowledge": 0}
        self.words: dict[int, int] = {}
        self.memory_end = 0x1000
        self.accesses: list[tuple[int, int]] = []  #: address and write of each access of the bus
        self.reads: deque[tuple[int, int]] = deque()
        self.writes: deque[tuple[int, bytes]] = deque()
        self.read_results: list[ReadResult] = []
        self.write_results: list[DmaError] = []
        self.events: Counter[str] = Counter()
        self.interrupt = 0  #: set to have one event
        self.standalone = not hasattr(dut, "function")  #: it has its own configuration space; ``function`` is for the monitor then
        self.link_up = 1  #: of a standalone one
        self.interrupts = 0  #: free for a test to count in
        self.unexpected = 0  #: the endpoint's count of unexpected completions
        self.message_request = 0  #: the endpoint asks for a message
        self.bus_stalled = False  #: the bus answers nothing
        self.error_beat: int | None = None  #: beat of the next packet that the adapter marks as bad
        self.cycle = 0
        self.sent_beats = self.received_beats = 0
        self._writes = 0  #: writes that the endpoint has taken
        self._last_offer = 0
        self._settled = 0  #: cycles since the link came up
        self._inputs: dict[Any, int] = {}
        self._to_send: deque[int] = deque()
        self.packet: list[tuple[int, int]] = []  #: beats of the one that the device sends
        self._data_to_write: deque[int] = deque()
        self._answer: bytearray = bytearray()
        self._lengths: deque[int] = deque()
        self._bus: tuple[int, dict[str, int]] | None = None
        self._gate: dict[str, bool] = {}
        # What the link was in the middle of when it fell is forgotten.
        link_up = dut.link_up if self.standalone else dut.function.link_up
        self.simulator = simulator_of(self.top(), {"endpoint": dut}, unless=~link_up)

    def top(self) -> Elaboratable:
        """What is simulated."""
        return self.dut

    @property
    def idle(self) -> bool:
        """Every transfer that the endpoint has taken has ended, and all that it has sent was taken."""
        return not self._lengths and self._writes == len(self.write_results) and self.cycle > self._last_offer + 4

    def configure(self, **function: int) -> None:
        """Change the function's state, for both sides."""
        self.function |= function
        self.monitor.max_payload = 128 << self.function["max_payload"]
        self.monitor.max_read_request = 128 << self.function["max_read_request"]
        self.monitor.read_boundary = self.host.read_boundary = 128 if self.function["read_completion_boundary"] else 64
        self.monitor.bus_master = bool(self.function["bus_master_enable"])

    def simulate(self, until: Callable[[], bool], *, limit: int = 20_000, every: Callable[[], None] = lambda: None) -> None:
        """Run from reset until ``until``; ``every`` is called once a cycle."""

        async def testbench(ctx: SimulatorContext) -> None:
            await self.run(ctx, until, limit=limit, every=every)

        self.simulator.add_testbench(testbench)
        self.simulator.run()

    async def run(
        self, ctx: SimulatorContext, until: Callable[[], bool], *, limit: int = 20_000, every: Callable[[], None] = lambda: None
    ) -> None:
        """Run until ``until`` holds; fails after ``limit`` cycles."""
        self.configure()
        deadline = self.cycle + limit
        while not until():
            assert self.cycle < deadline, f"not over after {limit} cycles"
            every()
            await self._step(ctx)

    def _set(self, ctx: SimulatorContext, signal: Any, value: int) -> None:
        """Set what has changed only: this is the bench's inner loop."""
        key = id(signal)
        if self._inputs.get(key) != value:
            self._inputs[key] = value
            ctx.set(signal, value)

    def _go(self, name: str, *, sticky: bool = False) -> bool:
        """Whether a side does not stall in this cycle; ``sticky``: once it offers something it goes on to."""
        if self.stalls == 0.0 or (sticky and self._gate.get(name)):
            return True
        self._gate[name] = self.random.random() >= self.stalls
        return self._gate[name]

    async def _step(self, ctx: SimulatorContext) -> None:
        dut, host = self.dut, self.dut.host
        if self.standalone:
            self._set(ctx, dut.link_up, self.link_up)
            self.function["link_up"] = self.link_up
        else:
            for name, value in self.function.items():
                self._set(ctx, getattr(dut.function, name), value)
            for name, value in self.message.items():
                self._set(ctx, getattr(dut.function.msi, name), value)
        self._set(ctx, host.interrupt, self.interrupt)
        self.interrupt = 0

        # What is offered, and where there is room.
        if not self._to_send and self._settled >= 2:
            if not self.host.sent or self._go("mix"):
                self.host.step()
            if self.host.sent:
                words, hit = self.host.sent.popleft()
                beats = to_beats(words, bar_hit=int(hit))
                if self.error_beat is not None:
                    beats[self.error_beat]["error"] = 1
                    self.error_beat = None
                self._to_send.extend(TLP_BEAT.const(beat).as_bits() for beat in beats)
        self._offer(ctx, "rx", dut.rx, self._to_send[0] if self._to_send else None)
        self._offer(ctx, "read", host.read, self._transfer(self.reads[0]) if self.reads else None)
        self._offer(ctx, "write", host.write, self._transfer((self.writes[0][0], len(self.writes[0][1]))) if self.writes else None)
        data = self._data_to_write[0] if self._data_to_write else None
        self._offer(ctx, "write_data", host.write_data, data)
        self._offer_response(ctx)
        for name, stream in (("tx", dut.tx), ("read_data", host.read_data), ("done", host.write_done), ("bus", host.bus.request)):
            self._set(ctx, stream.ready, int(self._go(name) and not (name == "bus" and self._bus is not None)))

        # What passes at the end of this cycle.
        if self._passes(ctx, "rx", dut.rx):
            self._to_send.popleft()
            self.received_beats += 1
        if self._passes(ctx, "read", host.read):
            self._lengths.append(self.reads.popleft()[1])
        if self._passes(ctx, "write", host.write):
            _, content = self.writes.popleft()
            self._writes += 1
            padded = content + self.random.randbytes(-len(content) % 8)
            self._data_to_write.extend(int.from_bytes(padded[start : start + 8], "little") for start in range(0, len(padded), 8))
        if self._passes(ctx, "write_data", host.write_data):
            self._data_to_write.popleft()
        if self._passes(ctx, "response", host.bus.response):
            self._bus = None
        self._take(ctx)
        self.unexpected = ctx.get(dut.unexpected_completions)
        events = 0
        if not self.standalone:
            self.message_request = ctx.get(dut.function.msi.request)
            events = ctx.get(dut.function.events.as_value())
        if events:
            for index, name in enumerate(("unsupported", "posted", "poisoned", "malformed", "unexpected", "timeout")):
                self.events[name] += events >> index & 1
        await ctx.tick()
        self.cycle += 1
        self._settled = self._settled + 1 if self.function["link_up"] else 0
        if not self.function["link_up"]:
            self._to_send.clear()
            self.packet.clear()

    @staticmethod
    def _transfer(what: tuple[Any, ...]) -> int:
        return int(HostPort.TRANSFER.const({"host_address": what[0], "length": what[1]}).as_bits())

    def _offer(self, ctx: SimulatorContext, name: str, stream: Any, payload: int | None) -> None:
        valid = payload is not None and self._go(name, sticky=True)
        self._set(ctx, stream.valid, int(valid))
        if payload is not None:
            value = stream.payload if not hasattr(stream.payload, "as_value") else stream.payload.as_value()
            self._set(ctx, value, payload)

    def _passes(self, ctx: SimulatorContext, name: str, stream: Any) -> bool:
        if self._inputs.get(id(stream.valid)) and ctx.get(stream.ready):
            self._gate[name] = False
            return True
        return False

    def _offer_response(self, ctx: SimulatorContext) -> None:
        response = self.dut.host.bus.response
        payload = None
        if self._bus is not None and not self.bus_stalled:
            address, access = self._bus[0], self._bus[1]
            error = (address & 0xFFF_FFFF) >= self.memory_end
            payload = (0 if access["write"] or error else self.words.get(address, 0)) | error << 32
        self._offer(ctx, "response", response, payload)

    def _take(self, ctx: SimulatorContext) -> None:
        """The endpoint's outputs."""
        dut, host = self.dut, self.dut.host
        valid = ctx.get(dut.tx.valid)
        if valid:
            self._last_offer = self.cycle
        if self.packet and not valid and self.function["link_up"]:
            raise TlpViolation("pause", f"after {len(self.packet)} beats")
        if valid and ctx.get(dut.tx.ready):
            beat = TLP_BEAT.from_bits(ctx.get(dut.tx.payload.as_value()))
            if beat.first != (not self.packet) or beat.error or beat.bar_hit or beat.keep not in ((1, 3) if beat.last else (3,)):
                raise TlpViolation("beats", f"{beat} after {self.packet}")
            self.packet.append((beat.data, beat.keep))
            self.sent_beats += 1
            if beat.last:
                words, self.packet = from_beats(self.packet), []
                self.host.receive(words)
        if ctx.get(host.read_data.valid) and ctx.get(host.read_data.ready):
            beat = HostPort.READ_DATA.from_bits(ctx.get(host.read_data.payload.as_value()))
            if not beat.error:
                self._answer += beat.data.to_bytes(8, "little")
                assert beat.error_code == DmaError.NONE
            if beat.last:
                length = self._lengths.popleft()
                if not beat.error:
                    assert len(self._answer) == (length + 7) // 8 * 8, (len(self._answer), length)
                self.read_results.append((bytes(self._answer[:length]), DmaError(beat.error_code)))
                self._answer = bytearray()
        if ctx.get(host.write_done.valid) and ctx.get(host.write_done.ready):
            done = HostPort.WRITE_DONE.from_bits(ctx.get(host.write_done.payload.as_value()))
            assert done.error == (done.error_code != DmaError.NONE)
            self.write_results.append(DmaError(done.error_code))
        if ctx.get(host.bus.request.valid) and ctx.get(host.bus.request.ready):
            address = ctx.get(host.bus.request.payload.address)
            access = {"write": ctx.get(host.bus.request.payload.write), "data": ctx.get(host.bus.request.payload.data)}
            self.accesses.append((address, access["write"]))
            if access["write"] and (address & 0xFFF_FFFF) < self.memory_end:
                self.words[address] = access["data"]
            self._bus = (address, access)
