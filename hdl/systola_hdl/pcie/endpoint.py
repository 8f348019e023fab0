"""The TLP endpoint: between a stream of raw TLPs and the port that every link offers the engine."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_hdl.host.host_port import HostPort
from systola_hdl.pcie.tlp.completer import TlpCompleter, checked_window
from systola_hdl.pcie.tlp.configuration_access import ConfigurationAccess
from systola_hdl.pcie.tlp.interrupter import Interrupter
from systola_hdl.pcie.tlp.read_drain import checked_timeout
from systola_hdl.pcie.tlp.read_requester import ReadRequester
from systola_hdl.pcie.tlp.receiver import TlpReceiver
from systola_hdl.pcie.tlp.slots import checked_slots
from systola_hdl.pcie.tlp.stream import FunctionState, TlpStream
from systola_hdl.pcie.tlp.transmitter import TlpTransmitter
from systola_hdl.pcie.tlp.write_requester import WriteRequester

__all__ = ["TlpEndpoint"]

#: 10 ms at 250 MHz; 40 ms at the 62.5 MHz of the smallest links. The standard wants 50 µs to 50 ms, and rather 10 ms
#: and more.
DEFAULT_TIMEOUT = 2_500_000


class TlpEndpoint(Component):
    """A PCI function's transaction layer::

        rx ─▶ receiver ─┬─▶ completer ───▶ bus             (host reads and writes words)
                        │       └──────────────────┐
                        └─▶ slots ─▶ drain ─▶ read_data    │
        read ──▶ splitter ─┴─────── memory reads ──┤
        write, write_data ──▶ aligner ─ memory writes ─▶ transmitter ─▶ tx
        interrupt ──▶ interrupter ─────────────────┘

    What leaves ``tx`` leaves it in the order in which it was handed to the transmitter: a write before its
    ``write_done``, so before the interrupt that follows; and a write that is done before any later completion.

    What it does with each received TLP is in :class:`~systola_hdl.pcie.tlp.receiver.TlpReceiver`,
    :class:`~systola_hdl.pcie.tlp.completer.TlpCompleter` and :class:`~systola_hdl.pcie.tlp.slots.ReadSlots`.

    Throughput with TLPs of 256 bytes: 7.5 bytes a cycle to the host (34 beats for 256 bytes). From the host it depends
    on the size of its completions: with 256 bytes as much, with 64 bytes 6.4 bytes a cycle (10 beats for 64 bytes).

    Parameters
    ----------
    window:
        Logarithm of the size of BAR0's windows: :func:`systola_firmware.spec.pcie.window_bits`.
    message:
        The endpoint sends MSI messages itself; otherwise it asks for them with ``function.msi.request``.
    configuration:
        Serve configuration requests of type 0 through the port ``configuration``.
    slots:
        Outstanding reads, 2 to 16, each of at most 256 bytes.
    timeout:
        Cycles after which a read has timed out, counted from when it is the oldest outstanding one.

    Members
    -------
    rx, tx:
        To the adapter. ``rx`` is stalled while more than :attr:`non_posted_requests` wait.
    function: In(FunctionState())
        From the adapter.
    host: Out(HostPort())
        To the engine.
    configuration: Out(ConfigurationAccess())
        To our own configuration space; only if ``configuration``.
    unexpected_completions: Out(16)
        How many came since reset, modulo 2¹⁶.
    """

    #: Requests of the host that are held; with this many or fewer outstanding ``rx`` never stalls for them.
    non_posted_requests = TlpCompleter.queue

    def __init__(
        self, window: int, *, message: bool = False, configuration: bool = False, slots: int = 16, timeout: int = DEFAULT_TIMEOUT
    ) -> None:
        self._window, self._slots, self._timeout = checked_window(window), checked_slots(slots), checked_timeout(timeout)
        self._message, self._configuration = message, configuration
        ports = {
            "rx": In(TlpStream()),
            "tx": Out(TlpStream()),
            "function": In(FunctionState()),
            "host": Out(HostPort()),
            "unexpected_completions": Out(16),
        }
        if configuration:
            ports["configuration"] = Out(ConfigurationAccess())
        super().__init__(ports)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = TlpReceiver(configuration=self._configuration)
        m.submodules.completer = completer = TlpCompleter(self._window)
        m.submodules.reader = reader = ReadRequester(self._slots, self._timeout)
        m.submodules.writer = writer = WriteRequester()
        m.submodules.interrupter = interrupter = Interrupter(message=self._message)
        m.submodules.transmitter = transmitter = TlpTransmitter(4)
        function, host = self.function, self.host

        connect(m, flipped(self.rx), receiver.i)
        connect(m, receiver.request, completer.i)
        connect(m, completer.bus, flipped(host.bus))
        connect(m, completer.o, transmitter.i0)
        connect(m, interrupter.o, transmitter.i1)
        connect(m, reader.o, transmitter.i2)
        connect(m, writer.o, transmitter.i3)
        connect(m, flipped(function.msi), interrupter.msi)
        connect(m, flipped(host.read), reader.read)
        connect(m, reader.read_data, flipped(host.read_data))
        connect(m, flipped(host.write), writer.write)
        connect(m, flipped(host.write_data), writer.write_data)
        connect(m, writer.write_done, flipped(host.write_done))
        if self._configuration:
            connect(m, completer.configuration, flipped(self.configuration))

        # The function's state in registers: it crosses the chip, and seldom changes.
        names = ("function_id", "bus_master_enable", "link_up")
        state = {name: Signal.like(getattr(function, name), name=name) for name in names}
        m.d.sync += [state[name].eq(getattr(function, name)) for name in names]
        for part in (receiver, completer, reader, writer, interrupter, transmitter):
            for name in names:
                if name in part.signature.members:
                    m.d.comb += getattr(part, name).eq(state[name])
        # A TLP that is being sent when the link goes down is cut off in that cycle; the transmitter drops the rest from
        # the next cycle on.
        m.d.comb += [
            self.tx.payload.eq(transmitter.o.payload),
            self.tx.valid.eq(transmitter.o.valid & function.link_up & state["link_up"]),
            transmitter.o.ready.eq(self.tx.ready),
        ]
        m.d.sync += [reader.wide.eq(function.max_read_request != 0), writer.wide.eq(function.max_payload != 0)]
        m.d.comb += [
            reader.completion.eq(receiver.completion),
            interrupter.event.eq(host.interrupt),
            host.link_up.eq(state["link_up"]),
        ]

        events = receiver.events.as_value() | reader.events.as_value()
        m.d.sync += function.events.eq(events | Mux(completer.events.unsupported, completer.events.as_value(), 0))
        with m.If(reader.events.unexpected):
            m.d.sync += self.unexpected_completions.eq(self.unexpected_completions + 1)
        return m
