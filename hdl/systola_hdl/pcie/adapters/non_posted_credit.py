"""Credit for non-posted requests of the host, so that the endpoint can hold all that it is sent."""

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["NonPostedCredit"]


class NonPostedCredit(Component):
    """Asks the hard block for one non-posted request at a time, and never for more than ``limit`` that are not yet
    answered.

    The endpoint holds that many even while it cannot send completions, so they never block the stream, and a write of
    the host never waits for our transmitter, as the standard demands.

    Parameters
    ----------
    limit:
        How many the endpoint holds without having answered any, 1 to 32.

    Members
    -------
    request: Out(1)
        One more request for each cycle in which this is high; a register, low during reset.
    answered, dropped: In(1)
        ``answered``: a completion was sent. ``dropped``: a request was marked with an error on its way to the endpoint
        and gets no completion.
    """

    request: Out(1)
    answered: In(1)
    dropped: In(1)

    def __init__(self, limit: int) -> None:
        if not 1 <= limit <= 32:
            raise ValueError(f"the limit of non-posted requests must be from 1 to 32, not {limit}")
        self.limit = limit
        super().__init__()

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        granted = Signal(range(self.limit + 1))
        grant = granted != self.limit
        m.d.sync += [granted.eq(granted + grant - self.answered - self.dropped), self.request.eq(grant)]
        return m
