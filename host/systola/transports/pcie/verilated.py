"""The simulated PCIe function of the real gateware: endpoint and engine in Verilator, behind a small root complex."""

from __future__ import annotations

from collections.abc import Callable

from systola.transports.pcie.function import ALL_ONES
from systola.transports.pcie.simulated import SimulatedFunction
from systola_firmware.spec.config import Config
from systola_sim.machine.dma_model import HostMemory
from systola_sim.verilated.pcie_harness import PcieHarness, pcie_library
from systola_sim.verilated.root_complex import RootComplex
from systola_sim.verilated.verilator import Progress

__all__ = ["VerilatedFunction"]

#: Cycles of one step: between steps Python sees signals, such as Ctrl-C.
_STEP_CYCLES = 1 << 15


class VerilatedFunction(SimulatedFunction):
    """The engine of ``config``, which must have ``dma``. Simulated time passes in reads, waits and pumps only.

    Parameters
    ----------
    memory:
        The host's memory that the device reaches, by default the buffers of this process.
    progress:
        Called with each stage of the one-time build.
    observe:
        Called with each packet in wire order, and whether it came from the device.

    Raises :class:`systola_sim.verilated.toolchain.ToolMissing` and :class:`systola_sim.verilated.verilator.BuildError`.
    """

    def __init__(
        self,
        config: Config,
        memory: HostMemory | None = None,
        *,
        progress: Progress | None = None,
        observe: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        super().__init__(config, f"pcie:sim:{config.name}", memory)
        self._clock_hz = config.clock_hz
        self.harness = PcieHarness(pcie_library(config, progress))
        self._root = RootComplex(self.harness, self.memory, self._interrupt, observe)

    def _read(self, offset: int) -> int:
        word = self._root.read_word(offset)
        return ALL_ONES if word is None else word

    def _write(self, offset: int, value: int) -> None:
        self._root.write_word(offset, value)

    def wait_interrupt(self, seconds: float) -> bool:
        self._run(seconds, until=lambda: self._events > 0)
        return self._take_events()

    def pump(self, seconds: float) -> None:
        self._run(seconds, until=lambda: False)

    def _run(self, seconds: float, until: Callable[[], bool]) -> None:
        left = max(1, round(seconds * self._clock_hz))
        while left > 0 and self._root.run(min(left, _STEP_CYCLES), until):
            left -= _STEP_CYCLES

    def set_link(self, up: bool) -> None:
        """Raise or drop the link, for tests. What is under way is lost."""
        self._root.set_link(up)

    def close(self) -> None:
        super().close()
        self.harness.close()
