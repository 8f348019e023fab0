"""Serves the host's requests: words of the memory map, registers of the configuration space, and a refusal for all
else."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.memory_map import REGION_SHIFT
from systola_hdl.host.bus import Bus
from systola_hdl.pcie.tlp.configuration_access import ConfigurationAccess
from systola_hdl.pcie.tlp.header import (
    COMPLETION_DWORD,
    COMPLETION_REQUESTER,
    FIRST_DWORD,
    CompletionStatus,
    TypeField,
    swap_bytes,
)
from systola_hdl.pcie.tlp.receiver import RECEIVED_REQUEST, RequestKind
from systola_hdl.pcie.tlp.stream import ENDPOINT_EVENTS, TlpStream

__all__ = ["TlpCompleter", "checked_window"]

_QUEUE = 4


def checked_window(window: int) -> int:
    """``window``. Raises ``ValueError`` if it is not in the range that windows of BAR0 can have."""
    if not 12 <= window <= REGION_SHIFT:
        raise ValueError(f"window {window}: must be from 12 to {REGION_SHIFT}")
    return window


class TlpCompleter(Component):
    """Execute one request after another and send its completion.

    The bus has no byte enables. A write of some of a word's bytes reads the word and writes it back; that is not atomic
    for the engine, and of a register that reads as zero the other bytes are written zero. A write of no byte does
    nothing. A read always reads a whole word, also of zero length. Where the bus says that there is no memory, a read
    is answered with Unsupported Request, a write is reported.

    Parameters
    ----------
    window:
        Logarithm of the size of BAR0's windows (:mod:`systola_firmware.spec.pcie`).

    Members
    -------
    i: In(stream of RECEIVED_REQUEST)
        What the host asks for; :attr:`queue` are held.
    o: Out(TlpStream())
        Completions.
    bus: Out(Bus())
        The memory map.
    configuration: Out(ConfigurationAccess())
        The configuration space, if there is one here.
    function_id: In(16)
        Our completer ID, sampled after the request was executed.
    link_up: In(1)
        While low, requests are forgotten, and no completion is sent for one that is being executed.
    events: Out(ENDPOINT_EVENTS)
        ``unsupported``, with ``posted``.
    """

    #: Requests held beside the one in execution.
    queue = _QUEUE

    i: In(stream.Signature(RECEIVED_REQUEST))
    o: Out(TlpStream())
    bus: Out(Bus())
    configuration: Out(ConfigurationAccess())
    function_id: In(16)
    link_up: In(1)
    events: Out(ENDPOINT_EVENTS)

    def __init__(self, window: int) -> None:
        self._window = checked_window(window)
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        fifo = SyncFIFO(width=RECEIVED_REQUEST.size, depth=_QUEUE)
        m.submodules.fifo = ResetInserter(~self.link_up)(fifo)
        m.d.comb += [fifo.w_data.eq(self.i.payload), fifo.w_en.eq(self.i.valid), self.i.ready.eq(fifo.w_rdy)]
        request, word, stale = Signal(RECEIVED_REQUEST), Signal(32), Signal()
        refused, with_data = Signal(), Signal()
        tail = Signal()  # the second of a completion's two beats
        bus, configuration = self.bus, self.configuration
        written = swap_bytes(request.data)
        enables = request.request.first_be
        m.d.comb += [
            bus.request.payload.address[2:REGION_SHIFT].eq(request.address[2 : self._window]),
            bus.request.payload.address[REGION_SHIFT:].eq(request.address[self._window :]),
            configuration.write.eq(request.write),
            configuration.register.eq(request.address[2:12]),
            configuration.enable.eq(enables),
            configuration.write_data.eq(written),
            configuration.target.eq(request.address[16:]),
            self.events.posted.eq(request.memory & request.write),
        ]
        merged = Cat(Mux(enables[byte], written.word_select(byte, 8), word.word_select(byte, 8)) for byte in range(4))
        m.d.comb += bus.request.payload.data.eq(merged)
        with m.If(~self.link_up):
            m.d.sync += stale.eq(1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += fifo.r_en.eq(1)
                m.d.sync += [request.eq(fifo.r_data), stale.eq(~self.link_up), refused.eq(0), with_data.eq(0)]
                with m.If(fifo.r_rdy):
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                with m.Switch(request.kind):
                    with m.Case(RequestKind.MEMORY):
                        m.next = "READ"
                        with m.If(request.write & (enables == 0)):
                            m.next = "IDLE"
                        with m.Elif(request.write & enables.all()):
                            m.next = "WRITE"
                    with m.Case(RequestKind.CONFIGURATION):
                        m.d.comb += configuration.access.eq(1)
                        m.next = "CONFIGURATION"
                    with m.Default():
                        m.d.comb += self.events.unsupported.eq(1)
                        m.d.sync += refused.eq(1)
                        m.next = "HEADER"
            with m.State("CONFIGURATION"):
                m.d.sync += [word.eq(configuration.read_data), with_data.eq(~request.write)]
                m.next = "HEADER"
            with m.State("READ"):
                m.d.comb += bus.request.valid.eq(1)
                with m.If(bus.request.ready):
                    m.next = "READ-RESPONSE"
            with m.State("READ-RESPONSE"):
                m.d.comb += bus.response.ready.eq(1)
                m.d.sync += [word.eq(bus.response.payload.data), refused.eq(bus.response.payload.error)]
                m.d.sync += with_data.eq(~bus.response.payload.error)
                with m.If(bus.response.valid):
                    m.d.comb += self.events.unsupported.eq(bus.response.payload.error)
                    m.next = "HEADER"
                    with m.If(request.write):
                        m.next = "WRITE"
                        with m.If(bus.response.payload.error):
                            m.next = "IDLE"
            with m.State("WRITE"):
                m.d.comb += [bus.request.valid.eq(1), bus.request.payload.write.eq(1)]
                with m.If(bus.request.ready):
                    m.next = "WRITE-RESPONSE"
            with m.State("WRITE-RESPONSE"):
                m.d.comb += bus.response.ready.eq(1)
                with m.If(bus.response.valid):
                    m.d.comb += self.events.unsupported.eq(bus.response.payload.error)
                    m.next = "IDLE"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(~stale), self.o.payload.first.eq(1)]
                with m.If(stale):
                    m.next = "IDLE"
                with m.Elif(self.o.ready):
                    m.next = "TAIL"
            with m.State("TAIL"):
                m.d.comb += [self.o.valid.eq(1), tail.eq(1)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        beats = self._build_completion(m, request, word, refused, with_data)
        m.d.comb += [
            self.o.payload.last.eq(tail),
            self.o.payload.keep.eq(Mux(tail, Cat(1, with_data), 3)),
            self.o.payload.data.eq(Mux(tail, beats[1], beats[0])),
        ]
        return m

    def _build_completion(
        self, m: Module, request: Signal, word: Signal, refused: Signal, with_data: Signal
    ) -> tuple[Value, Value]:
        """The data of the completion's two beats; Byte Count and Lower Address are ready a cycle after ``request``."""
        first, last = request.request.first_be, request.request.last_be
        begin, end, lower, count = Signal(2), Signal(3), Signal(2), Signal(13)
        for byte in reversed(range(4)):
            with m.If(first[byte]):
                m.d.comb += begin.eq(byte)
        ends = Mux(request.length == 1, first, last)
        m.d.comb += end.eq(1)
        for byte in range(4):
            with m.If(ends[byte]):
                m.d.comb += end.eq(byte + 1)
        m.d.sync += [count.eq(4), lower.eq(begin)]
        with m.If(request.memory):
            m.d.sync += count.eq(Cat(Const(0, 2), request.length, request.length == 0) - 4 + end - begin)

        header, second, third = Signal(FIRST_DWORD), Signal(COMPLETION_DWORD), Signal(COMPLETION_REQUESTER)
        m.d.comb += [
            header.with_data.eq(with_data),
            header.type.eq(Mux(request.locked, TypeField.COMPLETION_LOCKED, TypeField.COMPLETION)),
            header.traffic_class.eq(request.traffic_class),
            header.attributes_low.eq(request.attributes[:2]),
            header.attributes_high.eq(request.attributes[2]),
            header.length.eq(with_data),
            second.completer.eq(self.function_id),
            second.status.eq(Mux(refused, CompletionStatus.UNSUPPORTED_REQUEST, CompletionStatus.SUCCESSFUL)),
            second.byte_count.eq(count),
            third.requester.eq(request.request.requester),
            third.tag.eq(request.request.tag),
            third.lower_address.eq(Mux(request.memory, Cat(lower, request.address[2:7]), 0)),
        ]
        return Cat(header, second), Cat(third, swap_bytes(word))
