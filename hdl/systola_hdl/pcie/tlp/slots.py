"""Outstanding reads: assigns completions to slots, and collects their bytes in a buffer."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from systola_firmware.spec.dma import DmaError
from systola_hdl.host.host_port import DMA_ERROR
from systola_hdl.pcie.tlp.header import LARGEST_SEGMENT, CompletionStatus, swap_bytes
from systola_hdl.pcie.tlp.receiver import COMPLETION_BEAT
from systola_hdl.pcie.tlp.stream import ENDPOINT_EVENTS

__all__ = ["SLOT", "TAG_BITS", "ReadSlots", "checked_slots"]

#: Width of the tags: one that every host supports.
TAG_BITS = 5
_OFFSET_BITS = ceil_log2(LARGEST_SEGMENT)

#: Offset of a slot's next byte in its block of the buffer (``place``), and how many bytes are missing.
_PROGRESS = data.StructLayout({"place": _OFFSET_BITS, "left": _OFFSET_BITS + 1})

#: What a slot waits for: ``size`` bytes, the first at offset ``place`` in its naturally aligned block of the buffer.
#: ``code`` is not NONE if the request was never sent. A slot with ``code`` NONE and ``size`` 0 is skipped: both its
#: tags were dead. ``first`` and ``last`` slot of a transfer.
SLOT = data.StructLayout({"place": _OFFSET_BITS, "size": _OFFSET_BITS + 1, "first": 1, "last": 1, "code": DMA_ERROR})


@dataclass(frozen=True)
class _Ring:
    """State of the ring: indices of its slots, and bit vectors with a bit for each.

    ``waiting``: the slot waits for a completion; ``lost``: it did when the link went down; ``touched``: it has got some
    of its bytes; ``generation``: which of its two tags is in use; ``dead``: for each of the two, whether it is dead.
    ``count``: how many slots are allocated; ``use``: which of its two tags the slot at the tail is to use.
    """

    waiting: Signal
    lost: Signal
    touched: Signal
    generation: Signal
    dead: list[Signal]
    head: Signal
    tail: Signal
    count: Signal
    use: Signal


@dataclass(frozen=True)
class _Completion:
    """A completion: the index of its slot, its whole tag, and how many bytes it has carried.

    ``place``: offset in the slot's block of the buffer of the next dword, ``following`` of the one behind this beat;
    ``left``: bytes that were missing before this completion; ``due``: the Lower Address it must have.
    """

    slot: Signal
    tag: Signal
    carried: Signal
    place: Signal
    following: Signal
    left: Signal
    due: Signal


@dataclass(frozen=True)
class _Verdict:
    """In the cycle after a completion's last beat. ``alive``: its slot waits for it; ``complete``: by its own header,
    no completion of the same request follows; ``finish``: its slot waits for nothing more."""

    alive: Signal
    complete: Signal
    finish: Signal


def checked_slots(slots: int) -> int:
    """``slots``. Raises ``ValueError`` if it is not 2, 4, 8 or 16."""
    if slots not in (2, 4, 8, 16):
        raise ValueError(f"slots {slots}: must be 2, 4, 8 or 16")
    return slots


class ReadSlots(Component):
    """A ring of slots, one for each outstanding read, allocated at the tail and freed at the head.

    A slot has two tags, used one at a time. After a timeout or a bad completion the tag in use is *dead*: completions
    for it may still come, but nobody waits for them any more. It is usable again when the last of them has come, or
    when the link has gone down; until then the slot uses its other tag.

    Completions of different slots come in any order, those of one slot in order, and they may be split anywhere between
    dwords. Each must have the expected Byte Count and Lower Address. Its bytes go to the buffer at once; the state of
    the slot is updated after its last beat. A completion with a tag for which no slot waits is dropped and reported.

    Buffer: two memories of 32 bits, one for even and one for odd dwords, as an answer may begin with either.

    Parameters
    ----------
    slots:
        A power of two, 2 to 16.

    Members
    -------
    completion: In(COMPLETION_BEAT)
        From the receiver.
    function_id, link_up:
        Of :class:`~systola_hdl.pcie.tlp.stream.FunctionState`. When the link goes down, all waiting slots are done,
        with the error LINK_DOWN.
    free, tag: Out
        ``free``: there is a free slot at the tail. ``tag``: the tag to use for it; ``tag_free``: this tag is not dead.
        ``any_tag_free``: at least one slot of the ring has a tag that is not dead.
    allocate, allocation: In
        Allocate the slot at the tail.
    occupied: Out(1)
        There is a slot at the head. ``head``: what was allocated; ``head_done``: it waits for nothing more;
        ``head_code``: why it failed.
    pop: In(1)
        Free the slot at the head. ``expire``, with ``pop``: it has not got its answer, so its tag is dead from now on.
    read_enable, read_word, read_data:
        The head's aligned word of 8 bytes, little endian, in the cycle after ``read_enable``.
    events: Out(ENDPOINT_EVENTS)
        ``unexpected``, ``malformed``, ``poisoned``.
    """

    def __init__(self, slots: int) -> None:
        self._slots = checked_slots(slots)
        super().__init__(
            {
                "completion": In(COMPLETION_BEAT),
                "function_id": In(16),
                "link_up": In(1),
                "free": Out(1),
                "tag": Out(TAG_BITS),
                "tag_free": Out(1),
                "any_tag_free": Out(1),
                "allocate": In(1),
                "allocation": In(SLOT),
                "occupied": Out(1),
                "head": Out(SLOT),
                "head_done": Out(1),
                "head_code": Out(DMA_ERROR),
                "pop": In(1),
                "expire": In(1),
                "read_enable": In(1),
                "read_word": In(_OFFSET_BITS - 3),
                "read_data": Out(64),
                "events": Out(ENDPOINT_EVENTS),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        slots, bits = self._slots, exact_log2(self._slots)
        waiting, lost, touched, generation = (Signal(slots, name=name) for name in ("waiting", "lost", "touched", "generation"))
        dead = [Signal(slots, name=f"dead{index}") for index in range(2)]
        head, tail, count = Signal(bits), Signal(bits), Signal(range(slots + 1))
        use = Signal()
        ring = _Ring(waiting, lost, touched, generation, dead, head, tail, count, use)

        m.submodules.allocated = allocated = Memory(shape=SLOT, depth=slots, init=[])
        m.submodules.progress = progress = Memory(shape=_PROGRESS, depth=slots, init=[])
        m.submodules.outcome = outcome = Memory(shape=DMA_ERROR, depth=slots, init=[])
        at_head, at_tail = allocated.read_port(domain="comb"), allocated.write_port()
        begun, continued = allocated.read_port(domain="comb"), progress.read_port(domain="comb")
        advanced, ended, end = progress.write_port(), outcome.write_port(), outcome.read_port(domain="comb")
        self._build_ends(m, ring, at_tail, at_head, end)
        completion = self._build_lookup(m, ring, begun, continued)
        verdict = self._build_verdict(m, ring, completion, advanced, ended)
        self._build_dead_tags(m, ring, completion, verdict)
        self._build_moves(m, ring)
        return m

    def _build_ends(self, m: Module, ring: _Ring, at_tail: WritePort, at_head: ReadPort, end: ReadPort) -> None:
        """Show the slots at the tail and at the head. ``at_head``: what the one at the head waits for; ``end``: its
        outcome."""
        waiting, dead, head, tail = ring.waiting, ring.dead, ring.head, ring.tail
        count, use = ring.count, ring.use
        m.d.comb += [
            use.eq(dead[0].bit_select(tail, 1)),
            self.free.eq(count != self._slots),
            self.tag.eq(tail | use << TAG_BITS - 1),
            self.tag_free.eq(~use | ~dead[1].bit_select(tail, 1)),
            self.any_tag_free.eq(~(dead[0] & dead[1]).all()),
            at_tail.addr.eq(tail),
            at_tail.data.eq(self.allocation),
            at_tail.en.eq(self.allocate),
            at_head.addr.eq(head),
            end.addr.eq(head),
        ]
        # The head in registers; `occupied` is low for a cycle after `pop`.
        m.d.sync += [
            self.occupied.eq((count != 0) & ~self.pop),
            self.head.eq(at_head.data),
            self.head_done.eq(~waiting.bit_select(head, 1)),
            self.head_code.eq(DmaError.NONE),
        ]
        with m.If(at_head.data.code != DmaError.NONE):
            m.d.sync += self.head_code.eq(at_head.data.code)
        with m.Elif(ring.lost.bit_select(head, 1)):
            m.d.sync += self.head_code.eq(DmaError.LINK_DOWN)
        with m.Elif(at_head.data.size != 0):
            m.d.sync += self.head_code.eq(end.data)
        m.d.sync += count.eq(count + self.allocate - self.pop)

    def _build_lookup(self, m: Module, ring: _Ring, begun: ReadPort, continued: ReadPort) -> _Completion:
        """Look up the slot of a completion, and put its dwords into the buffer. ``begun``: what the slot waits for as
        it was allocated, ``continued``: as an earlier completion has left it."""
        waiting, generation, touched, bits = ring.waiting, ring.generation, ring.touched, len(ring.head)
        # Cycle 1 of a completion: its slot is looked up.
        c = self.completion
        slot, tag, living, carried = Signal(bits), Signal(8), Signal(), Signal(13)
        place, left, due = Signal(_OFFSET_BITS), Signal(_OFFSET_BITS + 1), Signal(7)
        m.d.comb += [begun.addr.eq(c.tag[:bits]), continued.addr.eq(c.tag[:bits])]
        with m.If(c.start):
            m.d.sync += [slot.eq(c.tag[:bits]), tag.eq(c.tag), carried.eq(c.carried)]
            m.d.sync += living.eq(self._lives(waiting, generation, c.tag[:bits], c.tag))
            with m.If(touched.bit_select(c.tag[:bits], 1)):
                m.d.sync += [place.eq(continued.data.place), due.eq(continued.data.place), left.eq(continued.data.left)]
            with m.Else():
                m.d.sync += [place.eq(begun.data.place), due.eq(begun.data.place), left.eq(begun.data.size)]

        # Cycle 2 and on: its dwords go to the buffer; `place`, the offset of the next one, advances with them.
        following = Signal(_OFFSET_BITS)
        m.d.comb += following.eq(Cat(Const(0, 2), place[2:] + Mux(c.lanes[1], 2, 1)))
        with m.If(c.lanes[0]):
            m.d.sync += place.eq(following)
        self._build_buffer(m, slot, place, living, ring.head)
        return _Completion(slot, tag, carried, place, following, left, due)

    def _build_verdict(self, m: Module, ring: _Ring, completion: _Completion, advanced: WritePort, ended: WritePort) -> _Verdict:
        """In the cycle after its last beat: whether a completion is good, and whether its slot is done. ``advanced``:
        what is still missing; ``ended``: the outcome of a slot that is done."""
        c, slot, carried, left, due = self.completion, completion.slot, completion.carried, completion.left, completion.due
        place, following = completion.place, completion.following
        rest, complete = Signal(signed(14)), Signal()
        alive, good, finish = Signal(), Signal(), Signal()
        successful = c.second.status == CompletionStatus.SUCCESSFUL
        m.d.comb += [
            rest.eq(left - carried),
            # By its own header, no completion of the same request follows.
            complete.eq(~successful | (carried >= Cat(c.second.byte_count, c.second.byte_count == 0))),
            alive.eq(self._lives(ring.waiting, ring.generation, slot, completion.tag) & (c.third.requester == self.function_id)),
            good.eq((c.second.byte_count == left) & (c.third.lower_address == due) & (rest > -4) & c.first.with_data),
            ended.addr.eq(slot),
            ended.data.eq(DmaError.NONE),
            ended.en.eq(finish),
            advanced.addr.eq(slot),
            advanced.data.place.eq(Mux(c.lanes[0], following, place)),
            advanced.data.left.eq(rest),
            advanced.en.eq(c.done & alive),
        ]
        with m.If(c.done & ~c.drop & ~alive):
            m.d.comb += self.events.unexpected.eq(1)
        with m.If(c.done & c.malformed):
            m.d.comb += [self.events.malformed.eq(1), finish.eq(alive), ended.data.eq(DmaError.MALFORMED)]
        with m.Elif(c.done & alive & ~c.drop):
            with m.If(c.second.status == CompletionStatus.COMPLETER_ABORT):
                m.d.comb += [finish.eq(1), ended.data.eq(DmaError.COMPLETER_ABORT)]
            with m.Elif(~successful):
                m.d.comb += [finish.eq(1), ended.data.eq(DmaError.UNSUPPORTED_REQUEST)]
            with m.Elif(c.first.poisoned):
                m.d.comb += [finish.eq(1), ended.data.eq(DmaError.POISONED), self.events.poisoned.eq(1)]
            with m.Elif(~good):
                m.d.comb += [finish.eq(1), ended.data.eq(DmaError.MALFORMED), self.events.malformed.eq(1)]
            with m.Else():
                m.d.comb += finish.eq(rest <= 0)
                m.d.sync += ring.touched.bit_select(slot, 1).eq(1)
        with m.If(finish):
            m.d.sync += ring.waiting.bit_select(slot, 1).eq(0)
        return _Verdict(alive, complete, finish)

    def _build_dead_tags(self, m: Module, ring: _Ring, completion: _Completion, verdict: _Verdict) -> None:
        """Tags that become dead and, at last, those for which no completion can come any more."""
        c, slot, tag, head, dead = self.completion, completion.slot, completion.tag, ring.head, ring.dead
        alive, complete, finish = verdict.alive, verdict.complete, verdict.finish
        with m.If(self.pop & self.expire & ring.waiting.bit_select(head, 1) & ~(finish & (slot == head))):
            for index in range(2):
                with m.If(ring.generation.bit_select(head, 1) == index):
                    m.d.sync += dead[index].bit_select(head, 1).eq(1)
        ours = (tag >> TAG_BITS == 0) & (c.third.requester == self.function_id)
        for index in range(2):
            with m.If(c.done & ~(c.drop & ~c.malformed) & ours & (tag[TAG_BITS - 1] == index)):
                with m.If(finish & ~complete):
                    m.d.sync += dead[index].bit_select(slot, 1).eq(1)
                with m.Elif(~alive & complete):
                    m.d.sync += dead[index].bit_select(slot, 1).eq(0)

    def _build_moves(self, m: Module, ring: _Ring) -> None:
        """Free the slot at the head, allocate the one at the tail, and give up all when the link is down."""
        waiting, lost, head, tail, dead = ring.waiting, ring.lost, ring.head, ring.tail, ring.dead
        with m.If(self.pop):
            m.d.sync += [head.eq(head + 1), waiting.bit_select(head, 1).eq(0)]
        with m.If(self.allocate):
            m.d.sync += [
                tail.eq(tail + 1),
                waiting.bit_select(tail, 1).eq((self.allocation.code == DmaError.NONE) & (self.allocation.size != 0)),
                ring.touched.bit_select(tail, 1).eq(0),
                lost.bit_select(tail, 1).eq(0),
                ring.generation.bit_select(tail, 1).eq(ring.use),
            ]
        with m.If(~self.link_up):
            m.d.sync += [waiting.eq(0), lost.eq(lost | waiting), dead[0].eq(0), dead[1].eq(0)]

    def _build_buffer(self, m: Module, slot: Signal, place: Signal, living: Signal, head: Signal) -> None:
        """Two banks, one for the even dwords and one for the odd ones."""
        lanes, words = self.completion.lanes & living.replicate(2), swap_bytes(self.completion.data)
        word = place[3:]
        for index in range(2):
            bank = Memory(shape=32, depth=self._slots * LARGEST_SEGMENT // 8, init=[])
            m.submodules[f"bank{index}"] = bank
            write, read = bank.write_port(), bank.read_port()
            later = place[2] != index  # this bank takes the second dword of the beat
            m.d.comb += [
                write.en.eq(Mux(later, lanes[1], lanes[0])),
                write.data.eq(Mux(later, words[32:], words[:32])),
                write.addr.eq(Cat((word + (place[2] & later))[: len(word)], slot)),
                read.en.eq(self.read_enable),
                read.addr.eq(Cat(self.read_word, head)),
                self.read_data.word_select(index, 32).eq(read.data),
            ]

    def _lives(self, waiting: Signal, generation: Signal, slot: Value, tag: Value) -> Value:
        """Whether a slot waits for ``tag``."""
        top = tag[TAG_BITS - 1]
        spare = Cat(tag[len(slot) : TAG_BITS - 1], tag[TAG_BITS:]).any()
        return waiting.bit_select(slot, 1) & (generation.bit_select(slot, 1) == top) & ~spare
