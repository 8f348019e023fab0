"""The AXI4-Stream of a hard block's user side."""

from __future__ import annotations

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["AxiStream"]


class AxiStream(Signature):
    """64 bits of data; initiator is the source. A transfer happens in a cycle with ``tvalid & tready``.

    Parameters
    ----------
    user_bits:
        Width of ``tuser``, whose meaning is the channel's.
    keep_bits:
        2 with a bit for each dword of ``tdata`` (UltraScale+), 8 with one for each byte (7-series).
    """

    def __init__(self, user_bits: int, keep_bits: int = 2) -> None:
        super().__init__(
            {
                "tdata": Out(64),
                "tkeep": Out(keep_bits),
                "tlast": Out(1),
                "tuser": Out(user_bits),
                "tvalid": Out(1),
                "tready": In(1),
            }
        )
