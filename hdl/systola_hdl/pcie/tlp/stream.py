"""Where the TLP endpoint meets what is below it: the stream of raw TLPs, and the state of the function.

Below is an adapter of a hard block, or in simulation a root complex that speaks raw TLPs; both are *adapter* here.
"""

from __future__ import annotations

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["ENDPOINT_EVENTS", "TLP_BEAT", "FunctionState", "MessageSignalledInterrupt", "TlpStream"]

#: Payload of a :func:`TlpStream`: one beat, two dwords of a TLP.
TLP_BEAT = data.StructLayout({"data": 64, "keep": 2, "first": 1, "last": 1, "error": 1, "bar_hit": 1})

#: What the endpoint reports, each a pulse of one cycle for one TLP or request (several may come in one cycle).
#:
#: * ``unsupported``: a request that is not served; ``posted`` tells, in the same cycle, whether it was a posted one. A
#:   non-posted one got its completion with status Unsupported Request.
#: * ``poisoned``: a write or a completion with EP was dropped.
#: * ``malformed``: a TLP whose length contradicts its header, or of no known type; dropped.
#: * ``unexpected``: a completion that no outstanding request of ours asked for; dropped.
#: * ``timeout``: a completion did not come in time.
ENDPOINT_EVENTS = data.StructLayout({"unsupported": 1, "posted": 1, "poisoned": 1, "malformed": 1, "unexpected": 1, "timeout": 1})


def TlpStream() -> stream.Signature:
    """Signature of a stream of raw TLPs, two dwords a beat: header first, payload right behind it, no gap, no digest,
    no prefix.

    ``data`` [31:0] is the earlier dword, [63:32] the later one. A dword holds its four wire bytes with the first of
    them in bits 31 to 24, header and payload alike. So header fields are where the standard's tables have them: Fmt and
    Type are ``data[24:32]`` of the first beat, Length ``data[0:10]``; and the byte at the lowest address of a payload
    dword is its bits 31 to 24. The payload behind a header of three dwords begins in the upper half of the second beat.

    Fields of the payload
    ---------------------
    data: 64
        Two dwords.
    keep: 2
        Which of them are valid: ``0b11``, or ``0b01`` in a last beat.
    first, last: 1
        First and last beat of a TLP. Every TLP has at least two beats.
    error: 1
        In any beat of a TLP, the last at the latest. Towards the endpoint: drop this TLP. From the endpoint: nullify it
        (discontinue); the endpoint never sets it.
    bar_hit: 1
        Towards the endpoint, in the first beat, the second, or both: this memory request hits BAR0. 0 from the
        endpoint.

    The endpoint sends the beats of a TLP without a pause: once the first was offered, ``valid`` stays high until the
    last was taken (hard blocks demand this), unless ``link_up`` falls. Towards the endpoint there may be pauses
    anywhere.
    """
    return stream.Signature(TLP_BEAT)


class MessageSignalledInterrupt(Signature):
    """The function's MSI state; initiator is the adapter. There is one vector.

    Without a hard block the endpoint sends the message: a write of ``data`` to ``address`` when ``enable``. With one,
    which keeps address and data to itself, ``request`` is high until ``acknowledge`` (one cycle, message handed over),
    one such handshake a message, and only begun while ``enable``. An event while MSI is not enabled is lost: drivers
    poll then.
    """

    def __init__(self) -> None:
        super().__init__({"enable": Out(1), "address": Out(64), "data": Out(16), "request": In(1), "acknowledge": Out(1)})


class FunctionState(Signature):
    """What the configuration space says, be it a hard block's or our own; initiator is the adapter.

    Members
    -------
    link_up: Out(1)
        Data link up and no reset. While low, both streams are idle, and both sides forget a TLP that was under way: the
        next beat of either is a ``first``, at least two cycles after the link came up. The endpoint ends transfers in
        flight with an error.
    function_id: Out(16)
        Bus, device and function number: our requester and completer ID.
    max_payload, max_read_request: Out(3)
        Device Control's codes: 128 bytes shifted left by the code.
    read_completion_boundary: Out(1)
        Link Control's bit: 0 for 64 bytes, 1 for 128.
    bus_master_enable: Out(1)
        Command's bit: requests of ours may be sent.
    msi:
        See :class:`MessageSignalledInterrupt`.
    events: In(ENDPOINT_EVENTS)
        See :data:`ENDPOINT_EVENTS`: for the hard block's error inputs, or our own Device Status.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "link_up": Out(1),
                "function_id": Out(16),
                "max_payload": Out(3),
                "max_read_request": Out(3),
                "read_completion_boundary": Out(1),
                "bus_master_enable": Out(1),
                "msi": Out(MessageSignalledInterrupt()),
                "events": In(ENDPOINT_EVENTS),
            }
        )
