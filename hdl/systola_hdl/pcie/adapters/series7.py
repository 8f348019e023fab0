"""Adapter between the 7-series hard block PCIE_2_1 and the TLP endpoint."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.wiring import In, Out, Signature

from systola_hdl.pcie.adapters.adapter import HardBlockAdapter
from systola_hdl.pcie.adapters.axi_stream import AxiStream
from systola_hdl.pcie.adapters.non_posted_credit import NonPostedCredit
from systola_hdl.pcie.tlp.header import is_completion

__all__ = ["RX_USER_BITS", "TX_USER_BITS", "Series7Adapter", "Series7Pins"]

#: Widths of ``tuser`` (AMD PG054, "7 Series FPGAs Integrated Block for PCI Express", tables of the AXI4-Stream
#: interfaces).
RX_USER_BITS = 22
TX_USER_BITS = 4

_RX_CHECKSUM_ERROR = 0
_RX_BAR0 = 2
_TX_DISCONTINUE = 3


class Series7Pins(Signature):
    """The user side of PCIE_2_1 within its AXI wrapper, as far as it is used; initiator is the hard block. Names are
    PG054's.

    The wrapper is to be set up with 64 bits, one function, one MSI vector, flow control of non-posted requests
    (TRN_NP_FC), and to trim checksums (ENABLE_RX_TD_ECRC_TRIM). ``user_clk_out`` is the clock of the ``sync`` domain.
    ``user_reset_out`` is not that domain's reset: the engine keeps running through a reset of the link, and reports to
    the host which transfers it cut off.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "user_lnk_up": Out(1),
                "user_reset_out": Out(1),
                "m_axis_rx": Out(AxiStream(RX_USER_BITS, keep_bits=8)),
                "s_axis_tx": In(AxiStream(TX_USER_BITS, keep_bits=8)),
                "tx_cfg_gnt": In(1),
                "rx_np_ok": In(1),
                "rx_np_req": In(1),
                "cfg_bus_number": Out(8),
                "cfg_device_number": Out(5),
                "cfg_function_number": Out(3),
                "cfg_command": Out(16),
                "cfg_dcommand": Out(16),
                "cfg_lcommand": Out(16),
                "cfg_interrupt": In(1),
                "cfg_interrupt_rdy": Out(1),
                "cfg_interrupt_assert": In(1),
                "cfg_interrupt_di": In(8),
                "cfg_interrupt_msienable": Out(1),
            }
        )


class Series7Adapter(HardBlockAdapter):
    """The hard block's streams are raw TLPs in the dword order of :class:`~systola_hdl.pcie.tlp.stream.TlpStream`: the
    adapter is wires, without latency.

    The block's own TLPs, the message of the interrupt among them, are always admitted between ours (``tx_cfg_gnt``), in
    the order in which the block's one transmit buffer got them. Errors are not reported to the block, because it would
    answer refused requests a second time.

    Resources: a few registers.
    """

    def __init__(self, non_posted_requests: int = 1) -> None:
        super().__init__(Series7Pins(), non_posted_requests)

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        pins, function = self.pins, self.function
        source, sink = pins.m_axis_rx, pins.s_axis_tx
        m.submodules.credit = credit = NonPostedCredit(self.non_posted_requests)

        rx, first = self.rx.payload, Signal(init=1)
        m.d.comb += [
            self.rx.valid.eq(source.tvalid),
            source.tready.eq(self.rx.ready),
            rx.data.eq(source.tdata),
            rx.keep.eq(Cat(source.tkeep[0], source.tkeep[4])),
            rx.first.eq(first),
            rx.last.eq(source.tlast),
            rx.error.eq(source.tlast & source.tuser[_RX_CHECKSUM_ERROR]),
            rx.bar_hit.eq(source.tuser[_RX_BAR0]),
        ]
        posted = Signal()
        with m.If(self.rx.valid & self.rx.ready):
            m.d.sync += first.eq(rx.last)
            with m.If(first):
                # Fmt and Type of a memory write, a message or a completion
                m.d.sync += posted.eq(rx.data[24:32].matches("01-00000", "0-110---", "0-00101-"))
        m.d.comb += credit.dropped.eq(self.rx.valid & self.rx.ready & rx.last & rx.error & ~posted)

        tx, completing = self.tx.payload, Signal()
        m.d.comb += [
            sink.tvalid.eq(self.tx.valid),
            self.tx.ready.eq(sink.tready),
            sink.tdata.eq(tx.data),
            sink.tkeep.eq(Cat(bit.replicate(4) for bit in tx.keep)),
            sink.tlast.eq(tx.last),
            sink.tuser[_TX_DISCONTINUE].eq(tx.error),
        ]
        with m.If(self.tx.valid & self.tx.ready):
            with m.If(tx.first):
                m.d.sync += completing.eq(is_completion(tx.data))
            m.d.comb += credit.answered.eq(tx.last & completing)

        m.d.comb += [
            pins.tx_cfg_gnt.eq(1),
            pins.rx_np_ok.eq(1),
            pins.rx_np_req.eq(credit.request),
            function.link_up.eq(pins.user_lnk_up & ~pins.user_reset_out),
            function.function_id.eq(Cat(pins.cfg_function_number, pins.cfg_device_number, pins.cfg_bus_number)),
            function.max_payload.eq(pins.cfg_dcommand[5:8]),
            function.max_read_request.eq(pins.cfg_dcommand[12:15]),
            function.read_completion_boundary.eq(pins.cfg_lcommand[3]),
            function.bus_master_enable.eq(pins.cfg_command[2]),
            function.msi.enable.eq(pins.cfg_interrupt_msienable),
            # An event that comes while the interrupt is disabled is lost.
            pins.cfg_interrupt.eq(function.msi.request & function.msi.enable),
            function.msi.acknowledge.eq(function.msi.request & (pins.cfg_interrupt_rdy | ~function.msi.enable)),
        ]
        return ResetInserter(~function.link_up)(m)
