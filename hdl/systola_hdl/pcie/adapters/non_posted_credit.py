"""How many non-posted requests of the host are under way in the endpoint."""

from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["NonPostedCredit"]


class NonPostedCredit(Component):
    """Asks the hard block for one non-posted request at a time, and never for more than ``limit`` that are not yet
    answered.

    What the endpoint takes in even while it cannot send does not hold up the stream; so a host's write never waits for
    our transmitter, as the standard demands.

    Parameters
    ----------
    limit:
        How many the endpoint holds without having answered any, 1 to 32.

    Members
    -------
    request: Out(1)
        One more, for each cycle; a register, low during reset.
    answered, dropped: In(1)
        A completion was sent; a request was marked with error on its way to the endpoint, and gets none.
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
