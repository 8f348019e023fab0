"""The register file, laid out by ``systola_firmware.memory_map``."""

from amaranth.hdl import Cat, Const, Module, Signal, ValueLike
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.config import Config
from systola_firmware.memory_map import REGISTERS, STATUS_ERROR_SHIFT, Access, Control, read_only_values
from systola_hdl.bus_target import BusTarget
from systola_hdl.counters import COUNTER_LAYOUT
from systola_hdl.interfaces import ERROR_CODE, Bus

__all__ = ["Registers"]


class Registers(Component):
    """Registers of :data:`~systola_firmware.memory_map.REGISTERS`. Writing one that is read-only does nothing.

    Members
    -------
    host:
        The host's access; the address is the byte offset in the region.
    start, abort: Out(1)
        For one cycle, after the host has written the bit of CONTROL.
    start_address: Out(32)
        As written.
    busy, done, error, error_code, error_address: In
        State of the sequencer.
    marks: In(32), counters: In(COUNTER_LAYOUT)
        What is counted elsewhere.
    """

    host: In(Bus())
    start: Out(1)
    abort: Out(1)
    start_address: Out(32)
    busy: In(1)
    done: In(1)
    error: In(1)
    error_code: In(ERROR_CODE)
    error_address: In(32)
    marks: In(32)
    counters: In(COUNTER_LAYOUT)

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__()

    def _sources(self, scratch: Signal) -> dict[str, ValueLike]:
        """What reading each register gives."""
        flags = Cat(self.busy, self.done, self.error)
        return {
            **{name: Const(value, 32) for name, value in read_only_values(self._config).items()},
            "status": Cat(flags, Const(0, STATUS_ERROR_SHIFT - len(flags)), self.error_code),
            "start_address": self.start_address,
            "error_address": self.error_address,
            "marks": self.marks,
            "scratch": scratch,
            **{f"counter_{name}": self.counters[name] for name in COUNTER_LAYOUT.members},
        }

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.target = target = BusTarget()
        connect(m, flipped(self.host), target.bus)
        scratch = Signal(32)
        sources = self._sources(scratch)
        stored = {"start_address": self.start_address, "scratch": scratch}

        m.d.sync += [self.start.eq(0), self.abort.eq(0)]
        with m.If(target.enable):
            with m.Switch(target.address):
                for register in REGISTERS.values():
                    with m.Case(register.offset):
                        if register.access is Access.READ:
                            m.d.sync += target.read_data.eq(sources[register.name])
                        elif register.access is Access.READ_WRITE:
                            m.d.sync += target.read_data.eq(sources[register.name])
                            with m.If(target.write):
                                m.d.sync += stored[register.name].eq(target.data)
                        elif register.name == "control":
                            m.d.sync += target.read_data.eq(0)
                            with m.If(target.write):
                                m.d.sync += [
                                    self.start.eq((target.data & Control.START) != 0),
                                    self.abort.eq((target.data & Control.ABORT) != 0),
                                ]
                        else:
                            raise NotImplementedError(f"register {register.name} has no hardware")
        return m
