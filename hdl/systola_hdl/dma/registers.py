"""The DMA engine's registers, laid out by ``systola_firmware.spec.memory_map``."""

from amaranth.hdl import Array, Cat, Const, Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from systola_firmware.spec.memory_map import DMA_IDENTITY, DMA_REGISTERS, DMA_STATUS_ERROR_SHIFT, Access, DmaControl
from systola_hdl.host.bus import Bus
from systola_hdl.host.bus_target import BusTarget
from systola_hdl.host.host_port import DMA_ERROR

__all__ = ["DmaRegisters"]


class DmaRegisters(Component):
    """Registers of :data:`~systola_firmware.spec.memory_map.DMA_REGISTERS`. Writing one that is read-only does nothing.

    Members
    -------
    host:
        The host's access; the address is the byte offset in the region.
    clear: In(1)
        All registers that can be written become zero.
    reset: Out(1)
        For one cycle, after the host has written RESET to CONTROL.
    doorbell, ring_size: Out(32), ring_address, record_address: Out(64)
        As written.
    completed: In(32), busy, stopped, link_up: In(1), error_code: In(8)
        State of the engine.
    status: Out(32)
        The value that a read of STATUS gives.
    """

    host: In(Bus())
    clear: In(1)
    reset: Out(1)
    doorbell: Out(32)
    ring_size: Out(32)
    ring_address: Out(64)
    record_address: Out(64)
    completed: In(32)
    busy: In(1)
    stopped: In(1)
    link_up: In(1)
    error_code: In(DMA_ERROR)
    status: Out(32)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.target = target = BusTarget()
        connect(m, flipped(self.host), target.bus)
        flags = Cat(self.busy, self.stopped, self.link_up)
        m.d.comb += self.status.eq(Cat(flags, Const(0, DMA_STATUS_ERROR_SHIFT - len(flags)), self.error_code))
        stored = {
            "doorbell": self.doorbell,
            "ring_size": self.ring_size,
            "ring_low": self.ring_address[:32],
            "ring_high": self.ring_address[32:],
            "record_low": self.record_address[:32],
            "record_high": self.record_address[32:],
        }
        sources = {"identity": Const(DMA_IDENTITY, 32), "status": self.status, "completed": self.completed, **stored}
        index = target.address[2 : 2 + ceil_log2(len(DMA_REGISTERS))]
        m.d.sync += target.read_data.eq(Array(sources.get(name, Const(0, 32)) for name in DMA_REGISTERS)[index])
        writes = target.enable & target.write
        for number, register in enumerate(DMA_REGISTERS.values()):
            if register.access is Access.READ_WRITE:
                with m.If(writes & (index == number)):
                    m.d.sync += stored[register.name].eq(target.data)
        control = list(DMA_REGISTERS).index("control")
        m.d.sync += self.reset.eq(writes & (index == control) & ((target.data & DmaControl.RESET) != 0))
        with m.If(self.clear):
            m.d.sync += [register.eq(0) for register in stored.values()]
        return m
