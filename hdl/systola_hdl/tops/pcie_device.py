"""A PCIe card's inside, up to the pins of its hard block."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.pcie import window_bits
from systola_hdl.pcie.adapters.adapter import HardBlockAdapter
from systola_hdl.pcie.endpoint import DEFAULT_TIMEOUT, TlpEndpoint
from systola_hdl.tops.linked_engine import LinkedEngine

__all__ = ["PcieDevice"]


class PcieDevice(Component):
    """Adapter, endpoint and engine, and the serial link beside them; all in the ``sync`` domain, the hard block's user
    clock.

    Parameters
    ----------
    config:
        Configuration of the engine; it must have ``dma``.
    adapter:
        The hard block's adapter; it gives the hard block credit for :attr:`TlpEndpoint.non_posted_requests` requests.
    timeout:
        Cycles after which a read of the host's memory has timed out.

    Members
    -------
    pins: In
        The hard block: :class:`~systola_hdl.pcie.adapters.ultrascale.UltrascalePins` or
        :class:`~systola_hdl.pcie.adapters.series7.Series7Pins`.
    rx: In(1), tx: Out(1)
        The serial line; ``rx`` may be asynchronous.
    busy: Out(1)
        A program runs.
    """

    def __init__(self, config: Config, adapter: HardBlockAdapter, *, timeout: int = DEFAULT_TIMEOUT) -> None:
        if not config.dma:
            raise ValueError(f"the engine of {config.name} has no DMA")
        self._adapter = adapter
        self._engine = LinkedEngine(config)
        self._endpoint = TlpEndpoint(window_bits(config), timeout=timeout)
        super().__init__(
            {"pins": adapter.signature.members["pins"], "rx": In(1, init=1), "tx": Out(1, init=1), "busy": Out(1)},
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.adapter = adapter = self._adapter
        m.submodules.endpoint = endpoint = self._endpoint
        m.submodules.engine = engine = self._engine
        connect(m, adapter.pins, flipped(self.pins))
        connect(m, adapter.rx, endpoint.rx)
        connect(m, endpoint.tx, adapter.tx)
        connect(m, adapter.function, endpoint.function)
        connect(m, endpoint.host, engine.port)
        m.d.comb += [engine.rx.eq(self.rx), self.tx.eq(engine.tx), self.busy.eq(engine.busy)]
        return m
