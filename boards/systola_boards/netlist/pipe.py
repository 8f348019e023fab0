"""A netlist under Verilator as the byte pipe of the driver: as a simulated board, but one that may be broken."""

from __future__ import annotations

from systola.errors import LinkError
from systola_sim.verilated.board import IDLE_CYCLES, VerilatedBoard

__all__ = ["NetlistPipe"]

#: Clock cycles after which a netlist without an answer is given up: the digits model takes a tenth of it, its weights
#: included.
LIMIT_CYCLES = 10_000_000


class NetlistPipe(VerilatedBoard):
    """The pipe to the netlist. Raises :class:`~systola.errors.LinkError` where one would wait for a real board in
    vain."""

    _asked = False

    def write(self, data: bytes, /) -> None:
        """Queue bytes for the board."""
        self._asked = True
        super().write(data)

    def read(self, timeout: float, /) -> bytes:
        """What the board has sent; see :meth:`VerilatedBoard.read`."""
        received = super().read(timeout)
        if received:
            self._asked = False
        elif self._asked and self._harness.quiet >= IDLE_CYCLES:
            raise LinkError("the netlist does not answer")
        if self.cycles > LIMIT_CYCLES:
            raise LinkError(f"the netlist has not finished after {self.cycles:,} cycles")
        return received
