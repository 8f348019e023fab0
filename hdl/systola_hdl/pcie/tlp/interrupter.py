"""Message-signalled interrupts."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.pcie.tlp.header import FIRST_DWORD, REQUEST_DWORD, TypeField, swap_bytes
from systola_hdl.pcie.tlp.stream import MessageSignalledInterrupt, TlpStream

__all__ = ["Interrupter"]


class Interrupter(Component):
    """Turn events into messages, sent by this block or by the hard block. Events that come while one waits are merged
    with it.

    Parameters
    ----------
    message:
        Send the message from here: a write of one dword. Otherwise ask the hard block with ``msi.request``.

    Members
    -------
    event: In(1)
        For a cycle. Lost while MSI or, for our own messages, Bus Master Enable is off or the link is down.
    msi: In(MessageSignalledInterrupt())
        The function's MSI state.
    o: Out(TlpStream())
        Our messages.
    function_id, bus_master_enable, link_up: In
        Parts of the function's state.
    """

    event: In(1)
    msi: In(MessageSignalledInterrupt())
    o: Out(TlpStream())
    function_id: In(16)
    bus_master_enable: In(1)
    link_up: In(1)

    def __init__(self, *, message: bool) -> None:
        self._message = message
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        waiting, allowed = Signal(), Signal()
        if not self._message:
            m.d.comb += [allowed.eq(self.msi.enable & self.link_up), self.msi.request.eq(waiting)]
            # An event in the cycle of the acknowledgement makes another message.
            m.d.sync += waiting.eq(((waiting & ~self.msi.acknowledge) | self.event) & allowed)
            return m

        m.d.comb += allowed.eq(self.msi.enable & self.link_up & self.bus_master_enable)
        o, long = self.o.payload, Signal()
        first, second, address, word = Signal(FIRST_DWORD), Signal(REQUEST_DWORD), Signal(64), Signal(32)
        m.d.comb += [
            first.with_data.eq(1),
            first.type.eq(TypeField.MEMORY),
            first.length.eq(1),
            first.long.eq(long),
            second.first_be.eq(0xF),
            second.requester.eq(self.function_id),
            o.keep.eq(3),
        ]
        begin = Signal()
        m.d.sync += waiting.eq(((waiting & ~begin) | self.event) & allowed)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += begin.eq(waiting & allowed)
                m.d.sync += [address.eq(self.msi.address), word.eq(swap_bytes(Cat(self.msi.data, self.msi.data & 0)))]
                m.d.sync += long.eq(self.msi.address[32:] != 0)
                with m.If(begin):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [self.o.valid.eq(1), o.first.eq(1), o.data.eq(Cat(first, second))]
                with m.If(self.o.ready):
                    m.next = "ADDRESS"
                with m.Elif(~self.link_up):
                    m.next = "IDLE"
            with m.State("ADDRESS"):
                m.d.comb += [self.o.valid.eq(1), o.last.eq(~long)]
                m.d.comb += o.data.eq(Mux(long, Cat(address[32:], address[:32]), Cat(address[:32], word)))
                with m.If(self.o.ready):
                    m.next = "IDLE"
                    with m.If(long):
                        m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [self.o.valid.eq(1), o.last.eq(1), o.keep.eq(1), o.data.eq(word)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
