"""Takes received TLPs apart: requests to the completer, completions to the slots of our reads."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.pcie.tlp.header import COMPLETION_DWORD, COMPLETION_REQUESTER, FIRST_DWORD, REQUEST_DWORD, TypeField
from systola_hdl.pcie.tlp.stream import ENDPOINT_EVENTS, TLP_BEAT, TlpStream

__all__ = ["COMPLETION_BEAT", "RECEIVED_REQUEST", "RequestKind", "TlpReceiver"]

#: Bits of an address that BAR0's windows or a register of the configuration space can have.
ADDRESS_BITS = 32


class RequestKind(enum.IntEnum):
    """What the completer does with a request."""

    MEMORY = 0
    CONFIGURATION = 1
    UNSUPPORTED = 2


#: A request that the completer has to serve; all but a memory write get a completion. ``address`` is that of the dword,
#: or the third dword of a configuration request: function and register. ``data`` is the payload's first dword as on the
#: wire. ``memory``: a memory read or write, whose completion has Byte Count and Lower Address.
RECEIVED_REQUEST = data.StructLayout(
    {
        "kind": RequestKind,
        "write": 1,
        "memory": 1,
        "locked": 1,
        "address": ADDRESS_BITS,
        "data": 32,
        "length": 10,
        "request": REQUEST_DWORD,
        "attributes": 3,
        "traffic_class": 3,
    }
)

#: A completion as it passes; it cannot be stalled. ``start``: from the next cycle until ``done`` the header is in
#: ``first``, ``second`` and ``third``; already in this cycle, ``tag`` is valid, and ``carried``, the number of payload
#: bytes from the first requested byte on. ``lanes``: payload dwords in ``data``, the earlier in the lower half; a beat
#: has none, the lower, or both, from the cycle after ``start`` on. ``done``, with the last of them: the completion is
#: over; ``drop``: it must have no effect; ``malformed``: its length is not the header's.
COMPLETION_BEAT = data.StructLayout(
    {
        "start": 1,
        "tag": 8,
        "carried": 13,
        "first": FIRST_DWORD,
        "second": COMPLETION_DWORD,
        "third": COMPLETION_REQUESTER,
        "lanes": 2,
        "data": 64,
        "done": 1,
        "drop": 1,
        "malformed": 1,
    }
)


class TlpReceiver(Component):
    """Decide what becomes of each TLP when its last beat has come, and pass it on.

    Parameters
    ----------
    configuration:
        Configuration requests of type 0 for function 0 are served; else they are unsupported, as a hard block keeps
        them to itself.

    Members
    -------
    i: In(TlpStream())
        From the adapter. It is stalled only while ``request`` refuses a request.
    request: Out(stream of RECEIVED_REQUEST)
        Comes two cycles after the last beat.
    completion: Out(COMPLETION_BEAT)
        ``start`` comes a cycle after its beat, data and ``done`` two.
    link_up: In(1)
        While low, everything is forgotten.
    events: Out(ENDPOINT_EVENTS)
        ``unsupported`` of posted requests only; ``malformed``; ``poisoned`` of requests.
    """

    def __init__(self, *, configuration: bool) -> None:
        self._configuration = configuration
        super().__init__(
            {
                "i": In(TlpStream()),
                "request": Out(stream.Signature(RECEIVED_REQUEST)),
                "completion": Out(COMPLETION_BEAT),
                "link_up": In(1),
                "events": Out(ENDPOINT_EVENTS),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Cycle 1: the beat in a register.
        stall, valid, second = Signal(), Signal(), Signal()
        beat = Signal(TLP_BEAT)
        begun, was_first = Signal(), Signal()  # the next beat continues a TLP whose first beat was seen; it is its second beat
        i = self.i.payload
        m.d.comb += self.i.ready.eq(~stall)
        with m.If(~stall):
            m.d.sync += [beat.eq(i), valid.eq(self.i.valid & (begun | i.first))]
            with m.If(self.i.valid):
                m.d.sync += [begun.eq((begun | i.first) & ~i.last), was_first.eq(i.first), second.eq(was_first & ~i.first)]

        # Cycle 2: the header and the first payload dword in registers of their own; payload dwords are counted.
        header, words = Signal(FIRST_DWORD), [Signal(32, name=f"header{index}") for index in (1, 2, 3)]
        first_data, count, lanes = Signal(32), Signal(12), Signal(2)
        bar_hit, bad, short, malformed, done = Signal(), Signal(), Signal(), Signal(), Signal()
        low, high = beat.data[:32], beat.data[32:]
        process = Signal()
        m.d.comb += process.eq(valid & ~stall)
        with m.If(~stall):
            m.d.sync += [done.eq(valid & beat.last), lanes.eq(0)]
        expected, counted, cut = Signal(11), Signal(12), Signal()
        with m.If(header.with_data):
            m.d.comb += expected.eq(Cat(header.length, header.length == 0))
        m.d.comb += [counted.eq(count), cut.eq(short)]
        with m.If(process):
            m.d.sync += [bad.eq((bad & ~beat.first) | beat.error), count.eq(counted), short.eq(cut)]
            m.d.sync += malformed.eq(cut | (counted != expected))
            with m.If(beat.first):
                m.d.comb += [counted.eq(0), cut.eq(beat.last)]
                m.d.sync += [header.eq(low), words[0].eq(high), bar_hit.eq(beat.bar_hit)]
            with m.Elif(second):
                m.d.comb += [counted.eq(~header.long & beat.keep[1]), cut.eq(header.long & ~beat.keep[1])]
                m.d.sync += [words[1].eq(low), words[2].eq(high), bar_hit.eq(bar_hit | beat.bar_hit), first_data.eq(high)]
                with m.If(~header.long & beat.keep[1]):
                    m.d.sync += [lanes.eq(1), self.completion.data.eq(high)]
            with m.Else():
                m.d.sync += [lanes.eq(beat.keep), self.completion.data.eq(beat.data)]
                with m.If(~count[11]):  # a TLP with a larger count is too long in any case
                    m.d.comb += counted.eq(count + Mux(beat.keep[1], 2, 1))
                with m.If(count == 0):
                    m.d.sync += first_data.eq(low)
        with m.If(~self.link_up):
            m.d.sync += [begun.eq(0), valid.eq(0), done.eq(0)]

        is_completion, over = Signal(), Signal()
        m.d.comb += is_completion.eq((header.type == TypeField.COMPLETION) & ~header.long & ~header.prefix)
        m.d.comb += [
            self.completion.start.eq(process & second & is_completion),
            self.completion.tag.eq(low[8:16]),
            self.completion.carried.eq(Cat(Const(0, 2), header.length, header.length == 0) - low[:2]),
            self.completion.first.eq(header),
            self.completion.second.eq(words[0]),
            self.completion.third.eq(words[1]),
            self.completion.lanes.eq(lanes),
            self.completion.done.eq(done & is_completion),
            self.completion.drop.eq(bad | malformed),
            self.completion.malformed.eq(malformed & ~bad),
            over.eq(done & ~is_completion & ~bad),
        ]
        hit = Signal()  # the request is for BAR0 or, a configuration request, for function 0
        m.d.comb += hit.eq(Mux(header.type == TypeField.MEMORY, bar_hit, words[1][16:19] == 0))
        self._judge_request(m, over, hit, malformed, header)
        m.d.comb += [
            self.request.payload.address.eq(Mux(header.long, words[2], words[1])),
            self.request.payload.data.eq(first_data),
            self.request.payload.request.eq(words[0]),
            stall.eq(self.request.valid & ~self.request.ready),
        ]
        return m

    def _judge_request(self, m: Module, over: Signal, hit: Signal, malformed: Signal, header: data.View) -> None:
        """Whether a whole request is served, refused, or dropped and reported."""
        request, events = self.request.payload, self.events
        writes, long = header.with_data, header.long
        known, posted, served, one = Signal(), Signal(), Signal(), Signal()
        m.d.comb += one.eq(header.length == 1)
        with m.Switch(header.type):
            with m.Case(TypeField.MEMORY):
                m.d.comb += [known.eq(1), posted.eq(writes), served.eq(one & hit), request.kind.eq(RequestKind.MEMORY)]
            with m.Case(TypeField.MEMORY_LOCKED):
                m.d.comb += known.eq(~writes)
            with m.Case(TypeField.CONFIGURATION_0):
                m.d.comb += [known.eq(~long), request.kind.eq(RequestKind.CONFIGURATION)]
                m.d.comb += served.eq(one & hit if self._configuration else 0)
            with m.Case(TypeField.IO, TypeField.CONFIGURATION_1):
                m.d.comb += known.eq(~long)
            with m.Case(TypeField.FETCH_ADD, TypeField.SWAP, TypeField.COMPARE_AND_SWAP):
                m.d.comb += known.eq(writes)
            with m.Case("10---"):  # messages, which are dropped without an event
                m.d.comb += [known.eq(long), posted.eq(1)]
        poisoned, message, whole = Signal(), Signal(), Signal()
        refused = whole & posted & ~message & ~poisoned & ~served
        m.d.comb += [
            poisoned.eq(header.poisoned & writes),
            message.eq(header.type[3:] == 0b10),
            whole.eq(over & known & ~header.prefix & ~malformed),
            events.malformed.eq(over & (malformed | ~known | header.prefix)),
            events.poisoned.eq(whole & poisoned & ~message),
            events.unsupported.eq(refused),
            events.posted.eq(refused),
            self.request.valid.eq(whole & (~posted | (served & ~poisoned))),
            request.write.eq(writes),
            request.memory.eq((header.type == TypeField.MEMORY) | (header.type == TypeField.MEMORY_LOCKED)),
            request.locked.eq(header.type == TypeField.MEMORY_LOCKED),
            request.length.eq(header.length),
            request.attributes.eq(Cat(header.attributes_low, header.attributes_high)),
            request.traffic_class.eq(header.traffic_class),
        ]
        with m.If(~served | poisoned):
            m.d.comb += request.kind.eq(RequestKind.UNSUPPORTED)
