"""A configuration space of our own, for a link without a hard block."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.pcie import CLASS_CODE, DEVICE_ID, REVISION_ID, VENDOR_ID
from systola_hdl.pcie.tlp.configuration_access import ConfigurationAccess
from systola_hdl.pcie.tlp.stream import FunctionState

__all__ = ["ConfigurationSpace"]

_MSI, _PCIE = 0x40, 0x60
#: Dword: value after reset, bits that can be written, bits that a written 1 clears. All others read as zero.
_FIXED: dict[int, tuple[int, int, int]] = {
    0x00: (DEVICE_ID << 16 | VENDOR_ID, 0, 0),
    # Command: memory space, bus master, parity error response, SERR, INTx disable. Status: a list of capabilities.
    0x04: (0x0010_0000, 0x0546, 0),
    0x08: (CLASS_CODE << 8 | REVISION_ID, 0, 0),
    0x0C: (0, 0xFF, 0),  # cache line size, without effect
    0x2C: (DEVICE_ID << 16 | VENDOR_ID, 0, 0),
    0x34: (_MSI, 0, 0),
    0x3C: (0, 0xFF, 0),  # interrupt line; no pin
    # MSI: one vector, an address of 64 bits; enable.
    _MSI: (0x0080_0005 | _PCIE << 8, 1 << 16, 0),
    _MSI + 4: (0, 0xFFFF_FFFC, 0),
    _MSI + 8: (0, 0xFFFF_FFFF, 0),
    _MSI + 12: (0, 0xFFFF, 0),
    # PCI Express, version 2, endpoint. Device: payload up to 256 bytes, role-based error reporting.
    _PCIE: (0x0002_0010, 0, 0),
    _PCIE + 4: (1 << 15 | 1, 0, 0),
    # Device Control: error reporting, payload, read request (512 bytes after reset). Device Status: errors.
    _PCIE + 8: (0x2000, 0x70EF, 0x000F_0000),
    _PCIE + 12: (0x11, 0, 0),  # Link Capabilities: 2.5 GT/s, one lane
    _PCIE + 16: (0x0011_0000, 0x00C8, 0),  # Link Control: read completion boundary, common clock, extended synch
}


class ConfigurationSpace(Component):
    """Type 0 header with BAR0 (32 bits, not prefetchable), MSI and PCI Express capabilities; 4 KiB, of which all that
    is not described here reads as zero.

    There is no power management capability and no expansion ROM. Errors set Device Status; no error message is sent.
    Payloads are of at most 256 bytes, whatever greater size is written.

    Parameters
    ----------
    bar_bytes:
        Size of BAR0: a power of two.

    Members
    -------
    access: In(ConfigurationAccess())
        From the completer.
    function: Out(FunctionState())
        What the registers say; ``function_id`` is that of the last write's target.
    link_up: In(1)
        While low, all registers have their values after reset.
    bar: Out(32)
        BAR0's address, without the bits below its size.
    memory_enable: Out(1)
        Command's bit: BAR0 is there.
    """

    def __init__(self, bar_bytes: int) -> None:
        if bar_bytes < 16 or bar_bytes & (bar_bytes - 1) or bar_bytes > 1 << 31:
            raise ValueError(f"bar_bytes {bar_bytes}: must be a power of two from 16 to {1 << 31}")
        self._bar_bytes = bar_bytes
        super().__init__(
            {
                "access": In(ConfigurationAccess()),
                "function": Out(FunctionState()),
                "link_up": In(1),
                "bar": Out(32),
                "memory_enable": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        table = _FIXED | {0x10: (0, (1 << 32) - self._bar_bytes, 0)}
        registers = {offset: Signal(32, name=f"register_{offset:02x}", init=init) for offset, (init, _, _) in table.items()}
        access, function, events = self.access, self.function, self.function.events
        set_bits: dict[int, Value] = {
            # Device Status: correctable, non-fatal, fatal, unsupported request.
            _PCIE + 8: Cat(
                events.unexpected | (events.unsupported & ~events.posted),
                (events.unsupported & events.posted) | events.poisoned | events.timeout,
                events.malformed,
                events.unsupported,
            )
            << 16,
        }
        inner, identity = Module(), Signal(16)
        enabled = Cat(bit.replicate(8) for bit in access.enable)
        for offset, (_, writable, cleared) in table.items():
            register, strobe = registers[offset], Signal(name=f"write_{offset:02x}")
            inner.d.comb += strobe.eq(access.access & access.write & (access.register == offset // 4))
            mask = Mux(strobe, enabled & writable, 0)
            clear = Mux(strobe, enabled & access.write_data & cleared, 0)
            inner.d.sync += register.eq((register & ~mask & ~clear) | (access.write_data & mask) | set_bits.get(offset, 0))
        with inner.If(access.access & access.write):
            inner.d.sync += identity.eq(access.target)
        m.submodules.registers = ResetInserter(~self.link_up)(inner)

        with m.If(access.access):
            m.d.sync += access.read_data.eq(0)
            with m.Switch(access.register):
                for offset, register in registers.items():
                    with m.Case(offset // 4):
                        m.d.sync += access.read_data.eq(register)
        control = registers[_PCIE + 8]
        m.d.comb += [
            self.bar.eq(registers[0x10]),
            self.memory_enable.eq(registers[0x04][1]),
            function.link_up.eq(self.link_up),
            function.function_id.eq(identity),
            function.max_payload.eq(control[5:8]),
            function.max_read_request.eq(control[12:15]),
            function.read_completion_boundary.eq(registers[_PCIE + 16][3]),
            function.bus_master_enable.eq(registers[0x04][2]),
            function.msi.enable.eq(registers[_MSI][16]),
            function.msi.address.eq(Cat(registers[_MSI + 4], registers[_MSI + 8])),
            function.msi.data.eq(registers[_MSI + 12]),
        ]
        return m
