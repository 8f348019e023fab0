"""The register file, laid out by ``systola_firmware.spec.memory_map``."""

from amaranth.hdl import Array, Cat, Const, Module, Signal, ValueLike
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.memory_map import REGISTERS, STATUS_ERROR_SHIFT, Control, read_only_values
from systola_hdl.common.layouts import ERROR_CODE
from systola_hdl.host.bus import Bus
from systola_hdl.host.bus_target import BusTarget
from systola_hdl.host.counters import COUNTER_LAYOUT

__all__ = ["Registers"]

#: Registers from which one is chosen in one cycle.
_GROUP = 4
_READ_LATENCY = 3


class Registers(Component):
    """Registers of :data:`~systola_firmware.spec.memory_map.REGISTERS`. Writing one that is read-only does nothing.

    A read chooses a register in two stages with pipeline registers between them; it gives the value two cycles after
    the access was taken.

    Members
    -------
    host:
        The host's access; the address is the byte offset in the region.
    start, abort: Out(1)
        For one cycle, after the host has written START or ABORT to CONTROL.
    start_address: Out(32)
        As written.
    busy, done, error, error_code, error_address: In
        State of the sequencer.
    marks: In(32), counters: In(COUNTER_LAYOUT)
        The numbers of marks and the counters, which are kept elsewhere.
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
        """The value that a read gives, for each register that can be read."""
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
        m.submodules.target = target = BusTarget(read_latency=_READ_LATENCY)
        connect(m, flipped(self.host), target.bus)
        scratch = Signal(32)
        sources = [self._sources(scratch).get(name, Const(0, 32)) for name in REGISTERS]
        index = target.address[2 : 2 + ceil_log2(len(sources))]  # the region contains nothing else

        # Cycle 1: the index, a copy for each group. Cycle 2: a register of each group. Cycle 3: one of the groups.
        chosen, low = [], exact_log2(_GROUP)
        for first in range(0, len(sources), _GROUP):
            group = Signal(32, name=f"group{first // _GROUP}")
            select = Signal(low, name=f"select{first // _GROUP}", attrs={"keep": 1})
            m.d.sync += [select.eq(index[:low]), group.eq(Array(sources[first : first + _GROUP])[select])]
            chosen.append(group)
        group_select = Signal.like(index[low:])
        m.d.sync += [group_select.eq(index[low:]), target.read_data.eq(Array(chosen)[group_select])]

        stored = {"start_address": self.start_address, "scratch": scratch}
        writes = Signal(data.StructLayout(dict.fromkeys([*stored, "control"], 1)))
        for name in writes.shape().members:
            m.d.sync += writes[name].eq(target.enable & target.write & (index == REGISTERS[name].offset // 4))
        for name, register in stored.items():
            with m.If(writes[name]):
                m.d.sync += register.eq(target.data)
        m.d.sync += [
            self.start.eq(writes.control & ((target.data & Control.START) != 0)),
            self.abort.eq(writes.control & ((target.data & Control.ABORT) != 0)),
        ]
        return m
