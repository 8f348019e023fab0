"""What a link offers the engine: word access to the memory map, and with DMA the host's memory and an interrupt."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Flow, In, Out, Signature, connect

from systola_firmware.spec.config import DMA_BEAT_BYTES
from systola_firmware.spec.dma import LENGTH_BITS
from systola_hdl.host.bus import Bus

__all__ = ["DMA_ERROR", "HostMemory", "HostPort", "connect_host_memory"]

#: Shape of a :class:`~systola_firmware.spec.dma.DmaError`.
DMA_ERROR = unsigned(8)


class HostMemory(Signature):
    """The host's memory and an interrupt, between a link (initiator) and the engine, called *device* here: Out is link
    to device.

    Every request is accepted eventually, and every accepted request is answered, also while ``link_up`` is low (then
    with LINK_DOWN): the device relies on it and never withdraws a request. Either side may stall a stream for any time;
    the device stalls ``read_data`` until earlier work is done. To exclude deadlock, no stream may wait for another one,
    with two exceptions: a request may wait until there is room for its answer, and an answer waits for its request.

    A transfer of ``length`` bytes is ``ceil(length / 8)`` beats; byte ``i`` of the transfer is in bits ``8*(i % 8)``
    and up of beat ``i // 8`` whatever the alignment of the host address. Bytes of the last beat behind the last byte of
    the transfer are undefined.

    Reads are answered in the order of their requests, writes in the order of theirs; reads and writes are not ordered
    with each other. What the device writes, and an interrupt after the ``write_done`` of a write, reach the host in
    this order.

    Members
    -------
    read: In(stream of TRANSFER)
        Read ``length`` bytes, at least 1, of the host's memory from ``host_address`` (any alignment; the link splits it
        at 4 KiB boundaries).
    read_data: Out(stream of READ_DATA)
        The bytes of one read after another, from the cycle after its request was taken at the earliest; ``last`` with
        the last beat of each. A read that fails ends early with one beat of ``last`` and ``error``, whose ``data`` is
        undefined and whose ``error_code`` says why; beats before it were good. Without ``error``, ``error_code`` is
        NONE.
    write: In(stream of TRANSFER)
        Write ``length`` bytes, at least 1, to the host's memory.
    write_data: In(stream of WRITE_DATA)
        The bytes of one write after another. The device supplies all beats of each write, and no beat before its
        request was taken; the link takes all of them, also those of a write that has failed.
    write_done: Out(stream of WRITE_DONE)
        One for each write, after its last beat was taken and either handed on towards the host or found to have failed.
    interrupt: In(1)
        For one cycle an event; events that follow each other closely may become one.
    link_up: Out(1)
        The host's memory can be reached. When it falls, transfers under way end with LINK_DOWN.
    """

    TRANSFER = data.StructLayout({"host_address": 64, "length": LENGTH_BITS})
    READ_DATA = data.StructLayout({"data": 8 * DMA_BEAT_BYTES, "last": 1, "error": 1, "error_code": DMA_ERROR})
    WRITE_DATA = data.StructLayout({"data": 8 * DMA_BEAT_BYTES})
    WRITE_DONE = data.StructLayout({"error": 1, "error_code": DMA_ERROR})

    MEMBERS = MappingProxyType(
        {
            "read": In(stream.Signature(TRANSFER)),
            "read_data": Out(stream.Signature(READ_DATA)),
            "write": In(stream.Signature(TRANSFER)),
            "write_data": In(stream.Signature(WRITE_DATA)),
            "write_done": Out(stream.Signature(WRITE_DONE)),
            "interrupt": In(1),
            "link_up": Out(1),
        }
    )

    def __init__(self) -> None:
        super().__init__(dict(self.MEMBERS))


class HostPort(Signature):
    """What a link offers; the link is the initiator.

    Parameters
    ----------
    dma:
        With the members of :class:`HostMemory`; a link that cannot reach the host's memory has ``bus`` alone.

    Members
    -------
    bus: Out(Bus())
        Word access to the memory map.
    """

    TRANSFER, READ_DATA = HostMemory.TRANSFER, HostMemory.READ_DATA
    WRITE_DATA, WRITE_DONE = HostMemory.WRITE_DATA, HostMemory.WRITE_DONE

    def __init__(self, *, dma: bool = True) -> None:
        self.dma = dma
        super().__init__({"bus": Out(Bus()), **(HostMemory.MEMBERS if dma else {})})


def connect_host_memory(m: Module, link: Any, device: Any) -> None:
    """Connect what a link offers besides its bus (a :class:`HostPort` seen from inside the link's user) with a
    :class:`HostMemory` of the device.
    """
    for name, member in HostMemory.MEMBERS.items():
        ours, theirs = getattr(link, name), getattr(device, name)
        if member.is_signature:
            connect(m, ours, theirs)
        elif member.flow is Flow.Out:
            m.d.comb += theirs.eq(ours)
        else:
            m.d.comb += ours.eq(theirs)
