"""The engine: everything behind the host's bus."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_hdl.activation_memory import ActivationMemory
from systola_hdl.bus_decoder import BusDecoder
from systola_hdl.counters import Counters
from systola_hdl.interfaces import Bus
from systola_hdl.program_store import ProgramStore
from systola_hdl.registers import Registers
from systola_hdl.trace import Trace
from systola_hdl.weight_memory import WeightMemory

__all__ = ["Engine"]


class Engine(Component):
    """Registers, memories, sequencer and execution units.

    Members
    -------
    bus: In(Bus())
        The host's access to everything.
    busy: Out(1)
        A program runs.
    """

    bus: In(Bus())
    busy: Out(1)

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.decoder = decoder = BusDecoder(config)
        m.submodules.registers = registers = Registers(config)
        m.submodules.program = program = ProgramStore(config)
        m.submodules.activation = activation = ActivationMemory(config)
        m.submodules.weight = weight = WeightMemory(config)
        m.submodules.trace = trace = Trace(config)
        m.submodules.counters = counters = Counters()
        connect(m, flipped(self.bus), decoder.bus)
        connect(m, decoder.registers, registers.host)
        connect(m, decoder.program, program.host)
        connect(m, decoder.activation, activation.host)
        connect(m, decoder.weight, weight.host)
        connect(m, decoder.trace, trace.host)
        m.d.comb += [registers.counters.eq(counters.values), registers.marks.eq(trace.count)]
        return m
