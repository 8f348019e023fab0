"""What all adapters between a hard block and the endpoint have in common."""

from __future__ import annotations

from amaranth.lib.wiring import Component, In, Out, Signature

from systola_hdl.pcie.tlp.stream import FunctionState, TlpStream

__all__ = ["HardBlockAdapter"]


class HardBlockAdapter(Component):
    """Between the user side of a hard block and the endpoint. This class has the ports; a subclass connects them.

    Parameters
    ----------
    pins:
        Signature of the hard block's user side, the hard block being the initiator.
    non_posted_requests:
        How many non-posted requests the endpoint holds without answering any: see
        :class:`~systola_hdl.pcie.adapters.non_posted_credit.NonPostedCredit`.

    Members
    -------
    pins: In(pins)
        The hard block.
    rx: Out(TlpStream), tx: In(TlpStream)
        To and from the endpoint.
    function: Out(FunctionState)
        From configuration space, which is in the hard block.
    """

    def __init__(self, pins: Signature, non_posted_requests: int) -> None:
        self.non_posted_requests = non_posted_requests
        super().__init__({"pins": In(pins), "rx": Out(TlpStream()), "tx": In(TlpStream()), "function": Out(FunctionState())})
