"""The ports of an engine, whichever it is."""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature

from systola_firmware.spec.config import Config
from systola_hdl.host.bus import Bus
from systola_hdl.host.host_port import HostMemory

__all__ = ["EnginePorts"]


class EnginePorts(Signature):
    """What both engines have: ``systola_hdl.full.engine.Engine`` and ``systola_hdl.compact.engine.Engine``.

    Members
    -------
    bus: In(Bus())
        The host's access to everything.
    busy: Out(1)
        A program runs.
    done: Out(1)
        The last program reached END.
    host: In(HostMemory())
        A link to the host's memory; only with ``config.dma``. Without such a link, leave it unconnected: ``link_up`` is
        low then.
    """

    def __init__(self, config: Config) -> None:
        members = {"bus": In(Bus()), "busy": Out(1), "done": Out(1)}
        super().__init__({**members, "host": In(HostMemory())} if config.dma else members)
