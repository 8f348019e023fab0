"""The simulated board as a byte pipe, in this process: what the host's link client talks to instead of a serial
port."""

from __future__ import annotations

import time
from pathlib import Path

from systola_firmware.spec.config import Config
from systola_sim.verilated.harness import STOP_AT_DELIMITER, Harness
from systola_sim.verilated.verilator import Progress, board_library

__all__ = ["IDLE_CYCLES", "VerilatedBoard"]

#: Cycles without any activity after which a board that is not busy will never answer: more than the link takes for a
#: frame.
IDLE_CYCLES = 1 << 14

#: Cycles of one step: between steps Python sees signals, such as Ctrl-C.
_STEP_CYCLES = 1 << 15
_IDLE_SLEEP = 0.02


class VerilatedBoard:
    """A pipe to the engine of ``config``, simulated cycle by cycle. Simulated time passes only in :meth:`read` and
    :meth:`pump`.

    Parameters
    ----------
    config:
        The engine.
    uart_divisor:
        Clock cycles a bit: then bytes go bit by bit over the board's UART pins. ``None``: they go over the byte streams
        behind the UART, which is quicker.
    library:
        A library already built; by default :func:`systola_sim.verilated.verilator.board_library` finds or builds it.
    progress:
        Called with each stage of a build.
    host_bit_cycles:
        Clock cycles of the host's bit at the pins, by default ``uart_divisor``.

    Raises :class:`systola_sim.verilated.toolchain.ToolMissing` and :class:`systola_sim.verilated.verilator.BuildError`.
    """

    def __init__(
        self,
        config: Config,
        uart_divisor: int | None = None,
        *,
        library: Path | None = None,
        progress: Progress | None = None,
        host_bit_cycles: float | None = None,
    ) -> None:
        self.config = config
        path = library or board_library(config, progress)
        self._harness = Harness(path, uart_divisor=uart_divisor, host_bit_cycles=host_bit_cycles)

    def __enter__(self) -> VerilatedBoard:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the board; closing twice is fine."""
        self._harness.close()

    @property
    def cycles(self) -> int:
        """Clock cycles simulated so far."""
        return self._harness.cycles

    def write(self, data: bytes, /) -> None:
        """Queue bytes for the board. Raises ``ValueError`` after :meth:`close`."""
        self._harness.write(bytes(data))

    def read(self, timeout: float, /) -> bytes:
        """What the board has sent, a frame at a time where possible.

        Runs the simulation until a frame has ended, until the board is idle, or for ``timeout`` seconds of simulated
        time (``clock_hz`` cycles each), and returns all bytes there are: ``b""`` when there are none. An idle board
        will send nothing more, so a caller that polls it is only slowed down a little rather than made to wait for the
        rest of the timeout.
        """
        received = self._harness.read()
        if received:
            return received
        self._run(timeout, STOP_AT_DELIMITER)
        received = self._harness.read()
        if not received:
            time.sleep(min(max(timeout, 0.0), _IDLE_SLEEP))
        return received

    def pump(self, seconds: float, /) -> None:
        """Let the board work for ``seconds`` of simulated time, or until it is idle."""
        self._run(seconds, 0)

    def _run(self, seconds: float, stop: int) -> None:
        left = max(1, round(seconds * self.config.clock_hz))
        while left > 0:
            step = min(left, _STEP_CYCLES)
            done = self._harness.run(step, stop=stop, quiet=IDLE_CYCLES)
            left -= done
            if done < step:
                return
