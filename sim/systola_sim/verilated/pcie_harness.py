"""The compiled board on PCIe from Python: a thin ``ctypes`` binding of ``pcie_harness.cpp``."""

from __future__ import annotations

import ctypes
from pathlib import Path

from systola_firmware.spec.config import Config
from systola_sim.verilated.compiled_board import CompiledBoard
from systola_sim.verilated.verilator import Progress, build_library

__all__ = ["HARNESS", "STOP_AT_PACKET", "PcieHarness", "pcie_library"]

#: Stop :meth:`PcieHarness.run` at the end of the next packet from the board.
STOP_AT_PACKET = 1

#: The longest packet: four dwords and 4 KiB.
_MOST_BYTES = 16 + 4096
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "create": (ctypes.c_void_p, []),
    "destroy": (None, [ctypes.c_void_p]),
    "set_link": (None, [ctypes.c_void_p, ctypes.c_uint32]),
    "set_bus_master": (None, [ctypes.c_void_p, ctypes.c_uint32]),
    "send": (None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32]),
    "receive": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "run": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64]),
    "cycles": (ctypes.c_uint64, [ctypes.c_void_p]),
    "quiet": (ctypes.c_uint64, [ctypes.c_void_p]),
}


#: C++ file that drives a ``PcieSimulationTop``.
HARNESS = Path(__file__).with_name("pcie_harness.cpp")


def pcie_library(config: Config, progress: Progress | None = None) -> Path:
    """The shared library of the engine of ``config`` behind its TLP endpoint.

    Raises as :func:`~systola_sim.verilated.verilator.build_library` does.
    """
    from systola_hdl.tops import verilog

    return build_library(
        verilog.content_key(config, "pcie"), lambda: verilog.generate(config, "pcie"), harness=HARNESS, progress=progress
    )


class PcieHarness(CompiledBoard):
    """One simulated board, used by one thread at a time; its link is up, and it may reach memory. Packets are in wire
    order."""

    def __init__(self, library: Path) -> None:
        super().__init__(library, _SIGNATURES)
        self._buffer = ctypes.create_string_buffer(_MOST_BYTES)

    def set_link(self, up: bool) -> None:
        """Raise or drop the link, and run the few cycles that this takes. Whatever is under way is lost."""
        self._call("set_link", int(up))

    def set_bus_master(self, on: bool) -> None:
        """Allow or forbid the board's accesses to memory."""
        self._call("set_bus_master", int(on))

    def send(self, packet: bytes, *, bar_hit: bool) -> None:
        """Queue a packet for the board; it gets it while the simulation runs."""
        self._call("send", packet, len(packet), int(bar_hit))

    def receive(self) -> bytes | None:
        """The next packet that the board has sent, None if there is none; does not run the simulation."""
        size = self._call("receive", self._buffer, _MOST_BYTES)
        return self._buffer.raw[:size] if size else None

    def run(self, cycles: int, *, stop: int = 0, quiet: int = 0) -> int:
        """Run at most ``cycles`` clock cycles, with :data:`STOP_AT_PACKET` to the end of the next packet, with
        ``quiet`` until nothing has happened for so many cycles; return how many were run."""
        return self._call("run", cycles, stop, quiet)

    @property
    def cycles(self) -> int:
        """Clock cycles since the board was made."""
        return self._call("cycles")

    @property
    def quiet(self) -> int:
        """Clock cycles since a packet was last under way in either direction, or the engine was busy."""
        return self._call("quiet")
