"""Merges the TLPs of several sources into one stream."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_hdl.common.skid_buffer import SkidBuffer
from systola_hdl.pcie.tlp.stream import TLP_BEAT, TlpStream

__all__ = ["TlpTransmitter"]


class TlpTransmitter(Component):
    """Pass whole TLPs on, in the order in which their first beats are taken; nothing passes another one from there on.

    An earlier source has priority over a later one, except that the last two, reads and writes, take turns. A source
    must not pause inside a TLP; so ``o`` does not either. A skid buffer registers ``ready``.

    While ``link_up`` is low, and for the rest of a TLP during which it fell, beats are taken and discarded, so that no
    source ever hangs.

    Parameters
    ----------
    sources:
        Number of sources, at least 2.

    Members
    -------
    i0, i1 …: In(TlpStream())
        Sources.
    o: Out(TlpStream())
        To the adapter; latency 1 cycle.
    link_up: In(1)
        As :class:`~systola_hdl.pcie.tlp.stream.FunctionState` has it.
    """

    def __init__(self, sources: int) -> None:
        if sources < 2:
            raise ValueError(f"sources {sources}: must be at least 2")
        self._sources = sources
        super().__init__({f"i{index}": In(TlpStream()) for index in range(sources)} | {"o": Out(TlpStream()), "link_up": In(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        inputs = [getattr(self, f"i{index}") for index in range(self._sources)]
        inside, discard, write_next = Signal(), Signal(), Signal()
        held, chosen = Signal(range(self._sources)), Signal(range(self._sources))
        last = self._sources - 1
        m.d.comb += chosen.eq(Mux(inputs[last].valid & (write_next | ~inputs[last - 1].valid), last, last - 1))
        for index in reversed(range(last - 1)):
            with m.If(inputs[index].valid):
                m.d.comb += chosen.eq(index)
        with m.If(inside):
            m.d.comb += chosen.eq(held)

        payload, valid, ready = Signal(TLP_BEAT), Signal(), Signal()
        m.d.comb += [
            payload.eq(Array(i.payload.as_value() for i in inputs)[chosen]),
            valid.eq(Cat(i.valid for i in inputs).bit_select(chosen, 1)),
        ]
        for index, i in enumerate(inputs):
            m.d.comb += i.ready.eq(ready & (chosen == index))
        drop = Signal()
        m.d.comb += drop.eq(~self.link_up | (inside & discard))
        with m.If(valid & ready):
            m.d.sync += [inside.eq(~payload.last), held.eq(chosen), discard.eq(drop)]
            with m.If(payload.last):
                m.d.sync += write_next.eq(chosen == last - 1)
        with m.Elif(~self.link_up):
            m.d.sync += discard.eq(1)

        queue = SkidBuffer(TLP_BEAT)
        m.submodules.queue = ResetInserter(~self.link_up)(queue)
        m.d.comb += [queue.i.payload.eq(payload), queue.i.valid.eq(valid & ~drop), ready.eq(queue.i.ready)]
        connect(m, queue.o, flipped(self.o))
        return m
