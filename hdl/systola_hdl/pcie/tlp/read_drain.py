"""Takes finished slots from the ring of outstanding reads, and packs their bytes into the answer of a transfer."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.dma import DmaError
from systola_hdl.host.host_port import DMA_ERROR, HostPort
from systola_hdl.pcie.tlp.slots import SLOT
from systola_hdl.pcie.tlp.stream import ENDPOINT_EVENTS

__all__ = ["ReadDrain", "checked_timeout"]


def checked_timeout(timeout: int) -> int:
    """``timeout``. Raises ``ValueError`` if it is less than a cycle."""
    if timeout < 1:
        raise ValueError(f"timeout {timeout}: must be at least 1 cycle")
    return timeout


class ReadDrain(Component):
    """Read slot after slot from the buffer and shift its bytes to the front.

    A word of the buffer holds 8 bytes as they lie in the host's memory; one of the answer begins with the transfer's
    first byte. So each word of the answer is made of two neighbours of the buffer, or of one if the transfer begins at
    a multiple of 8::

        buffer     -- -- -- a0 a1 a2 a3 a4 | a5 a6 a7 b0 b1 -- -- --      a transfer of 10 bytes from 3 on
        answer     a0 a1 a2 a3 a4 a5 a6 a7 | b0 b1 …

    Every slot costs two cycles beside those for its words, every transfer one or two more.

    If a slot has failed, or has been the oldest for ``timeout`` cycles without its answer, the answer ends with an
    error, and the rest of the transfer's slots are thrown away as they finish. The timer is not restarted for them.

    Members
    -------
    occupied, head, head_done, head_code, pop, expire, read_enable, read_word, read_data:
        As :class:`~systola_hdl.pcie.tlp.slots.ReadSlots` has them.
    failing: Out(1)
        A transfer has failed and its last slot has not come yet.
    o: Out(stream of HostPort.READ_DATA)
        The answer.
    events: Out(ENDPOINT_EVENTS)
        ``timeout``.
    """

    def __init__(self, timeout: int) -> None:
        self._timeout = checked_timeout(timeout)
        slots = {
            "occupied": In(1),
            "head": In(SLOT),
            "head_done": In(1),
            "head_code": In(DMA_ERROR),
            "pop": Out(1),
            "expire": Out(1),
        }
        words = {"read_enable": Out(1), "read_word": Out(5), "read_data": In(64)}
        answer = {"failing": Out(1), "o": Out(stream.Signature(HostPort.READ_DATA)), "events": Out(ENDPOINT_EVENTS)}
        super().__init__({**slots, **words, **answer})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        head, failing = self.head, self.failing
        advance = Signal()  # all stages move
        fail, reading, first = Signal(), Signal(), Signal()
        timer, expired = Signal(range(self._timeout + 1)), Signal()
        with m.If(self.pop & (head.last | ~(failing | fail))):
            m.d.sync += [timer.eq(0), expired.eq(0)]
        with m.Elif(timer == self._timeout):
            m.d.sync += expired.eq(1)
        with m.Elif(self.occupied & ~self.head_done):
            m.d.sync += timer.eq(timer + 1)

        # Stage 1: the word to be read. Its flags pass through the other stages with it.
        word, final, end = Signal(5), Signal(5), Signal(3)
        shift, code = Signal(3), Signal(DMA_ERROR)
        with m.FSM():
            with m.State("HEAD"):
                m.d.sync += [
                    word.eq(head.place[3:]),
                    final.eq((head.place + head.size - 1)[3:8]),
                    end.eq(head.place[:3] + head.size[:3]),
                ]
                with m.If(self.occupied & (self.head_done | expired)):
                    with m.If(failing | (self.head_done & (head.size == 0) & (head.code == DmaError.NONE))):
                        m.d.comb += [self.pop.eq(1), self.expire.eq(~self.head_done)]
                        with m.If(head.last):
                            m.d.sync += failing.eq(0)
                    with m.Elif(~self.head_done | (self.head_code != DmaError.NONE)):
                        m.d.comb += fail.eq(1)
                        with m.If(advance):
                            m.d.comb += [self.pop.eq(1), self.expire.eq(~self.head_done)]
                            m.d.sync += failing.eq(~head.last)
                    with m.Else():
                        m.d.sync += first.eq(head.first)
                        m.next = "READ"
            with m.State("READ"):
                m.d.comb += reading.eq(1)
                with m.If(advance):
                    m.d.sync += [word.eq(word + 1), first.eq(0)]
                    with m.If(word == final):
                        m.d.comb += self.pop.eq(1)
                        m.next = "HEAD"
        m.d.comb += [
            self.events.timeout.eq(self.expire),
            code.eq(Mux(self.head_done, self.head_code, DmaError.TIMEOUT)),
            self.read_enable.eq(advance),
            self.read_word.eq(word),
        ]

        # Stage 2: the buffer's output. Stage 3: the output in a register.
        marks = {"valid": reading | fail, "error": fail, "first": first, "last": head.last & (word == final) & reading}
        # `more`: the last word has bytes left behind the shift, which make another word of the answer.
        more = Signal()
        offset = Signal(3)
        m.d.comb += offset.eq(Mux(first, head.place[:3], shift))
        m.d.comb += more.eq((end - 1)[:3] >= offset)
        marks |= {"more": more & ~first & (offset != 0), "shift": offset, "code": code}
        stages: list[dict[str, Signal]] = []
        previous: dict[str, Signal] = {name: Signal.like(value, name=f"stage1_{name}") for name, value in marks.items()}
        m.d.comb += [previous[name].eq(value) for name, value in marks.items()]
        for number in (2, 3):
            stage = {name: Signal.like(value, name=f"stage{number}_{name}") for name, value in previous.items()}
            with m.If(advance):
                m.d.sync += [stage[name].eq(previous[name]) for name in stage]
            stages.append(stage)
            previous = stage
        with m.If(advance & reading & first):
            m.d.sync += shift.eq(head.place[:3])
        current = Signal(64)
        with m.If(advance):
            m.d.sync += current.eq(self.read_data)
        self._build_shifter(m, stages[-1], current, advance)
        return m

    def _build_shifter(self, m: Module, stage: dict[str, Signal], current: Signal, advance: Signal) -> None:
        """Stage 4: words of the answer, in the output's register."""
        before, flush, flush_shift = Signal(64), Signal(), Signal(3)
        answer, room = self.o.payload, Signal()
        single = stage["first"] & stage["last"]
        whole = stage["shift"] == 0
        low, shift, shifted = Signal(64), Signal(3), Signal(64)
        m.d.comb += [
            room.eq(~self.o.valid | self.o.ready),
            advance.eq(room & ~flush),
            low.eq(Mux((single | whole) & ~flush, current, before)),
            shift.eq(Mux(flush, flush_shift, stage["shift"])),
            shifted.eq(Cat(low, current).bit_select(Cat(Const(0, 3), shift), 64)),
        ]
        with m.If(room):
            m.d.sync += [self.o.valid.eq(flush), answer.last.eq(flush), answer.data.eq(shifted), flush.eq(0)]
            m.d.sync += [answer.error.eq(0), answer.error_code.eq(DmaError.NONE)]
            with m.If(~flush & stage["valid"]):
                m.d.sync += [before.eq(current), flush_shift.eq(stage["shift"])]
                with m.If(stage["error"]):
                    m.d.sync += [self.o.valid.eq(1), answer.last.eq(1), answer.error.eq(1), answer.error_code.eq(stage["code"])]
                with m.Elif(~stage["first"] | whole | single):
                    m.d.sync += [
                        self.o.valid.eq(1),
                        answer.last.eq(stage["last"] & ~stage["more"]),
                        flush.eq(stage["last"] & stage["more"]),
                    ]
