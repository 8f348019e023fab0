"""The simulated board on PCIe: endpoint and engine, with raw TLPs and the function's state on ports."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect

from systola_firmware.spec.config import Config
from systola_firmware.spec.pcie import window_bits
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.tops.linked_engine import LinkedEngine

__all__ = ["FUNCTION_ID", "MESSAGE_ADDRESS", "TIMEOUT_CYCLES", "PcieSimulationTop"]

#: Bus 1, device 0, function 0.
FUNCTION_ID = 0x0100
#: Where MSI messages go.
MESSAGE_ADDRESS = 0xFEE0_0000
_MESSAGE_DATA = 0x4021
#: Cycles after which a read of the host's memory has timed out: few, so that this can be simulated.
TIMEOUT_CYCLES = 20_000


class PcieSimulationTop(Component):
    """The engine of ``config``, which must have ``dma``, behind a TLP endpoint; its serial line, which it also has, is
    idle.

    Members
    -------
    rx_data: In(64), rx_keep: In(2), rx_first, rx_last, rx_bar_hit, rx_valid: In(1), rx_ready: Out(1):
        Packets for the device: a :func:`~systola_hdl.pcie.tlp.stream.TlpStream`, without errors.
    tx_data: Out(64), tx_keep: Out(2), tx_first, tx_last, tx_valid: Out(1), tx_ready: In(1):
        Packets of the device, likewise.
    link_up, bus_master: In(1), max_payload, max_read_request: In(3)
        As in :class:`~systola_hdl.pcie.tlp.stream.FunctionState`.
    busy: Out(1)
        A program runs.
    """

    rx_data: In(64)
    rx_keep: In(2)
    rx_first: In(1)
    rx_last: In(1)
    rx_bar_hit: In(1)
    rx_valid: In(1)
    rx_ready: Out(1)
    tx_data: Out(64)
    tx_keep: Out(2)
    tx_first: Out(1)
    tx_last: Out(1)
    tx_valid: Out(1)
    tx_ready: In(1)
    link_up: In(1)
    bus_master: In(1)
    max_payload: In(3)
    max_read_request: In(3)
    busy: Out(1)

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.endpoint = endpoint = TlpEndpoint(window_bits(self._config), message=True, timeout=TIMEOUT_CYCLES)
        m.submodules.engine = engine = LinkedEngine(self._config)
        connect(m, endpoint.host, engine.port)
        received, sent, function = endpoint.rx, endpoint.tx, endpoint.function
        m.d.comb += [
            received.payload.data.eq(self.rx_data),
            received.payload.keep.eq(self.rx_keep),
            received.payload.first.eq(self.rx_first),
            received.payload.last.eq(self.rx_last),
            received.payload.bar_hit.eq(self.rx_bar_hit),
            received.valid.eq(self.rx_valid),
            self.rx_ready.eq(received.ready),
            self.tx_data.eq(sent.payload.data),
            self.tx_keep.eq(sent.payload.keep),
            self.tx_first.eq(sent.payload.first),
            self.tx_last.eq(sent.payload.last),
            self.tx_valid.eq(sent.valid),
            sent.ready.eq(self.tx_ready),
            function.link_up.eq(self.link_up),
            function.function_id.eq(FUNCTION_ID),
            function.max_payload.eq(self.max_payload),
            function.max_read_request.eq(self.max_read_request),
            function.bus_master_enable.eq(self.bus_master),
            function.msi.enable.eq(1),
            function.msi.address.eq(MESSAGE_ADDRESS),
            function.msi.data.eq(_MESSAGE_DATA),
            self.busy.eq(engine.busy),
        ]
        return m
