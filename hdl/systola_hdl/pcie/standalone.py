"""The endpoint with a configuration space of its own: a whole PCI function on a stream of raw TLPs."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_hdl.host.host_port import HostPort
from systola_hdl.pcie.configuration_space import ConfigurationSpace
from systola_hdl.pcie.endpoint import DEFAULT_TIMEOUT, TlpEndpoint
from systola_hdl.pcie.tlp.header import FIRST_DWORD
from systola_hdl.pcie.tlp.stream import TlpStream

__all__ = ["StandaloneEndpoint"]


class StandaloneEndpoint(Component):
    """For a data link layer that hands up every TLP, configuration requests included, and does not compare addresses
    with BARs. The endpoint sends MSI messages itself.

    Parameters
    ----------
    window, slots, timeout:
        As for :class:`~systola_hdl.pcie.endpoint.TlpEndpoint`. BAR0 has sixteen windows.

    Members
    -------
    rx, tx:
        Raw TLPs. ``bar_hit`` of ``rx`` is ignored.
    link_up: In(1)
        As in :class:`~systola_hdl.pcie.tlp.stream.FunctionState`; while low the configuration space is reset.
    host: Out(HostPort())
        To the engine.
    unexpected_completions: Out(16)
        As the endpoint's.
    """

    def __init__(self, window: int, *, slots: int = 16, timeout: int = DEFAULT_TIMEOUT) -> None:
        self._endpoint = TlpEndpoint(window, message=True, configuration=True, slots=slots, timeout=timeout)
        self._bar_bits = window + 4
        super().__init__(
            {
                "rx": In(TlpStream()),
                "tx": Out(TlpStream()),
                "link_up": In(1),
                "host": Out(HostPort()),
                "unexpected_completions": Out(16),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.endpoint = endpoint = self._endpoint
        m.submodules.configuration = configuration = ConfigurationSpace(1 << self._bar_bits)
        connect(m, configuration.function, endpoint.function)
        connect(m, endpoint.configuration, configuration.access)
        connect(m, endpoint.tx, flipped(self.tx))
        connect(m, endpoint.host, flipped(self.host))
        m.d.comb += [configuration.link_up.eq(self.link_up), self.unexpected_completions.eq(endpoint.unexpected_completions)]

        # The address is in the second beat, in one dword or in two.
        beat, long, second = self.rx.payload, Signal(), Signal()
        header = Signal(FIRST_DWORD)
        m.d.comb += header.eq(beat.data[:32])
        with m.If(self.rx.valid & self.rx.ready):
            m.d.sync += [second.eq(beat.first), long.eq(header.long)]
        high, low = Mux(long, beat.data[:32], 0), Mux(long, beat.data[32:], beat.data[:32])
        m.d.comb += [
            endpoint.rx.payload.eq(beat),
            endpoint.rx.payload.bar_hit.eq(
                second & configuration.memory_enable & (high == 0) & (low[self._bar_bits :] == configuration.bar[self._bar_bits :])
            ),
            endpoint.rx.valid.eq(self.rx.valid),
            self.rx.ready.eq(endpoint.rx.ready),
        ]
        return m
