"""Sequencer and registers of the compact engine together."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WATCHDOG_CYCLES
from systola_hdl.compact.control.registers import Registers
from systola_hdl.compact.control.sequencer import Sequencer
from systola_hdl.compact.control.state_layout import StateLayout
from systola_hdl.compact.interfaces import HostAccess, ProgramFetch, UnitControl

__all__ = ["ControlPlane"]


class ControlPlane(Component):
    """Everything of the engine but its units and their memories.

    Members
    -------
    host:
        :class:`~systola_hdl.compact.interfaces.HostAccess`, flipped: registers and trace, at the addresses of
        :class:`~systola_hdl.compact.control.state_layout.StateLayout`.
    fetch: Out(ProgramFetch)
        The program.
    matmul, post: Out(UnitControl)
        The units.
    array_busy, wait_weights, wait_activations, wait_post: In(1)
        Events of the MATMUL unit.
    progress: In(1)
        A unit gets on: restarts the watchdog, which otherwise stops the program after ``watchdog_cycles``.
    unit_reset: Out(1)
        Reset of both units.
    busy, done: Out(1)
        A program runs; the last one reached END.
    """

    def __init__(self, config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> None:
        self._config = config
        self._watchdog_cycles = watchdog_cycles
        super().__init__(
            {
                "host": In(HostAccess(StateLayout(config).words)),
                "fetch": Out(ProgramFetch(config)),
                "matmul": Out(UnitControl()),
                "post": Out(UnitControl()),
                "array_busy": In(1),
                "wait_weights": In(1),
                "wait_activations": In(1),
                "wait_post": In(1),
                "progress": In(1),
                "unit_reset": Out(1),
                "busy": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = Registers(self._config, watchdog_cycles=self._watchdog_cycles)
        m.submodules.sequencer = sequencer = Sequencer(self._config)
        connect(m, flipped(self.host), registers.host)
        connect(m, sequencer.step, registers.step)
        connect(m, sequencer.fetch, flipped(self.fetch))
        connect(m, sequencer.matmul, flipped(self.matmul))
        connect(m, sequencer.post, flipped(self.post))
        m.d.sync += registers.progress.eq(sequencer.moved | self.progress)
        m.d.comb += [
            sequencer.start.eq(registers.start),
            sequencer.abort.eq(registers.abort),
            sequencer.timeout.eq(registers.timeout),
            sequencer.scanning.eq(registers.scanning),
            registers.run.eq(sequencer.run),
            registers.events.wait_token.eq(sequencer.wait_token),
            registers.events.post_busy.eq(self.post.busy),
            *(
                registers.events[name].eq(getattr(self, name))
                for name in ("array_busy", "wait_weights", "wait_activations", "wait_post")
            ),
            self.unit_reset.eq(sequencer.unit_reset),
            self.busy.eq(sequencer.busy),
            self.done.eq(sequencer.done),
        ]
        return m
