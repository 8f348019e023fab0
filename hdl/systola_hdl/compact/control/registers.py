"""Registers, counters and trace in one memory, which the scanner, the sequencer and the host use in turns."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WATCHDOG_CYCLES
from systola_firmware.spec.memory_map import REGISTERS, Access, Control
from systola_hdl.common.logic import is_below
from systola_hdl.compact.control.counters import VISIT_CYCLES, LocalCounters
from systola_hdl.compact.control.state_layout import SCAN_LENGTH, StateLayout
from systola_hdl.compact.interfaces import HostAccess
from systola_hdl.host.counters import EVENT_LAYOUT

__all__ = ["ADDEND_BITS", "Registers", "StateStep"]

#: Width of what a step may add to a word: a program address (up to the largest store's end).
ADDEND_BITS = 17


class StateStep(Signature):
    """What the sequencer does with the memory: ``memory[write] = memory[read] + addend``, a step every two cycles.

    ``read``, ``write``, ``enable`` and ``addend`` are held for both cycles of a step. ``commit`` is high in the second
    one, in which ``data`` is the word read. With ``idle`` the step is not the sequencer's, but the host's.
    """

    def __init__(self, layout: StateLayout) -> None:
        address = ceil_log2(layout.words)
        super().__init__(
            {
                "idle": Out(1),
                "read": Out(address),
                "write": Out(address),
                "enable": Out(1),
                "addend": Out(ADDEND_BITS),
                "commit": In(1),
                "data": In(32),
            }
        )


class Registers(Component):
    """The memory of the control plane, laid out by :class:`~systola_hdl.compact.control.state_layout.StateLayout`.

    It reads a word, adds something and writes it back, every cycle: in every second cycle for the scanner, which adds
    what the local counters have counted since its last visit, and in the others for the sequencer or the host. So a
    counter is exact :data:`~systola_hdl.compact.control.counters.VISIT_CYCLES` + 1 cycles after the program has
    stopped, and until then that much late.

    Members
    -------
    step:
        :class:`StateStep`, flipped.
    host:
        :class:`~systola_hdl.compact.interfaces.HostAccess`, flipped; the address is that of the layout. Served while
        ``step.idle``.
    start, abort: Out(1)
        In the cycle of ``step.commit`` in which the host writes that bit of CONTROL.
    run: In(1), events: In(EVENT_LAYOUT)
        Count in this cycle; what happens in it.
    progress: In(1)
        Restarts the watchdog, as the absence of ``run`` does.
    timeout: Out(1)
        No progress for at least ``watchdog_cycles``; stays until ``run`` falls.
    scanning: Out(3)
        Index of the word that the scanner visits, in its round.
    """

    def __init__(self, config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> None:
        if watchdog_cycles < 1:
            raise ValueError(f"watchdog_cycles must be at least 1, not {watchdog_cycles}")
        self._layout = StateLayout(config)
        self._watchdog_cycles = watchdog_cycles
        super().__init__(
            {
                "step": In(StateStep(self._layout)),
                "host": In(HostAccess(self._layout.words)),
                "start": Out(1),
                "abort": Out(1),
                "run": In(1),
                "events": In(EVENT_LAYOUT),
                "progress": In(1),
                "timeout": Out(1),
                "scanning": Out(range(SCAN_LENGTH)),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        layout, step, host = self._layout, self.step, self.host
        m.submodules.memory = memory = Memory(shape=32, depth=layout.words, init=layout.initial)
        m.submodules.counters = counters = LocalCounters(layout.scanned)
        read, write = memory.read_port(), memory.write_port()

        # Even cycles: the scanner reads, a step writes. Odd cycles: a step reads, the scanner writes.
        odd = Signal()
        m.d.sync += [odd.eq(~odd), self.scanning.eq(self.scanning + odd)]
        scan_read, scan_write, restart = self._build_watchdog(m, odd)
        m.d.comb += [
            counters.run.eq(self.run),
            counters.events.eq(self.events),
            counters.index.eq(self.scanning),
            counters.visit.eq(odd),
            step.commit.eq(~odd),
            step.data.eq(read.data),
            read.addr.eq(Mux(odd, Mux(step.idle, host.address, step.read), scan_read)),
            write.addr.eq(Mux(odd, scan_write, Mux(step.idle, host.address, step.write))),
        ]

        # One carry chain: its lowest bit is the carry into the word.
        addend, carry, total = Signal(ADDEND_BITS), Signal(), Signal(33)
        m.d.comb += [
            addend.eq(Mux(odd, counters.count, step.addend)),
            carry.eq(odd & counters.event),
            total.eq(Cat(1, read.data) + Cat(carry, addend)),
        ]
        with m.If(odd & (self.scanning == layout.watch_index)):
            m.d.comb += addend.eq(Mux(restart, 0, VISIT_CYCLES))
            with m.If(~is_below(read.data, self._watchdog_cycles)):
                m.d.sync += self.timeout.eq(1)
        with m.If(~self.run):
            m.d.sync += self.timeout.eq(0)

        self._build_host(m, odd, read.data, write.en)
        m.d.comb += write.data.eq(total[1:])
        with m.If(odd):
            m.d.comb += write.en.eq(1)
        with m.Elif(step.idle):
            m.d.comb += write.data.eq(host.data)
        with m.Else():
            m.d.comb += write.en.eq(step.enable)
        return m

    def _build_watchdog(self, m: Module, odd: Signal) -> tuple[Signal, Signal, Signal]:
        """The scanner's addresses: when it visits the watchdog's count, it begins with the word that is always 0 if
        there was progress."""
        layout = self._layout
        watched = self.scanning == layout.watch_index
        alive, restart = Signal(), Signal()  # progress since the last visit, and as the visit's read saw it
        m.d.sync += restart.eq(alive)
        with m.If(self.progress | ~self.run):
            m.d.sync += alive.eq(1)
        with m.Elif(odd & watched & restart):
            m.d.sync += alive.eq(0)
        read, write = Signal(ceil_log2(layout.words)), Signal(ceil_log2(layout.words))
        counter = Cat(self.scanning, Const(layout.counters // SCAN_LENGTH, len(read) - len(self.scanning)))
        different = layout.watchdog ^ layout.zero
        m.d.comb += [
            read.eq(counter ^ Mux(watched & ~alive, different, 0)),
            write.eq(counter ^ Mux(watched, different, 0)),
        ]
        return read, write, restart

    def _build_host(self, m: Module, odd: Signal, word: Signal, enable: Signal) -> None:
        """The host's step: what it may write, and what else that does."""
        layout, host = self._layout, self.host
        served = Signal()  # the address was there in the cycle of the read
        # The scanner writes a word with the same lowest bits: if it is the one that is read, the memory delivers
        # anything.
        met = host.address[: len(self.scanning)] == self.scanning
        m.d.sync += served.eq(odd & self.step.idle & host.valid & ~met)
        writes = Signal()
        m.d.comb += [host.done.eq(served), host.read_data.eq(word), writes.eq(served & host.write)]
        with m.Switch(host.address):
            for name, register in REGISTERS.items():
                with m.Case(layout.register(name)):
                    if register.access is Access.READ_WRITE:
                        m.d.comb += enable.eq(writes)
                    elif register.access is Access.WRITE:
                        m.d.comb += [
                            self.start.eq(writes & ((host.data & Control.START) != 0)),
                            self.abort.eq(writes & ((host.data & Control.ABORT) != 0)),
                        ]
